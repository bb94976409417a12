"""The rows. Columns are DICOM keywords in snake_case; times are aware UTC; text is kept as it came, without padding."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite would return a naive one."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime was about to be stored; times are aware UTC")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: BIGINT counts by itself on PostgreSQL only; SQLite counts only INTEGER.
_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
#: A row that a workflow holds.
HANDED_OUT = sa.text("workflow_id IS NOT NULL")
#: A delivery of an image as it was received.
ORIGINAL = sa.text("instance_id IS NOT NULL")
_UID = sa.String(64)
_HASH = sa.String(64)


def _study_key(**options: object) -> sa.Column[str]:
    return sa.Column("study_instance_uid", _UID, sa.ForeignKey("study.study_instance_uid"), nullable=False, **options)  # type: ignore[arg-type]


def _claim() -> tuple[sa.Column[int] | sa.Column[str] | sa.Column[datetime] | sa.Index, ...]:
    """How a row is handed to the workflow engine: while it works on the row `workflow_id` names that workflow, else it is NULL."""
    return (
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("workflow_id", sa.String(200)),
        sa.Column("claimed_at", UtcDateTime),
        # Of what is handed out alone: nearly all rows are not, and an index of them all would be taken for the better one.
        sa.Index(None, "workflow_id", sqlite_where=HANDED_OUT, postgresql_where=HANDED_OUT),
        sa.Index(None, "claimed_at", sqlite_where=HANDED_OUT, postgresql_where=HANDED_OUT),
    )


def _any_text(column: str) -> sa.Index:
    """An index of text from DICOM, which may be longer than PostgreSQL's ordinary index takes (2.7 KB): there it is one of hashes."""
    return sa.Index(None, column, postgresql_using="hash")


class beginning(sa.sql.functions.FunctionElement[str]):
    """The first 64 characters of a text from DICOM, in the order of their bytes: of any length it would not go into PostgreSQL's index."""

    type = sa.Text()
    inherit_cache = True


#: How many characters `beginning` takes.
BEGINNING = 64


@compiles(beginning)
def _on_sqlite(element: beginning, compiler: Any, **options: Any) -> str:
    return f"substr({compiler.process(element.clauses, **options)}, 1, {BEGINNING})"


@compiles(beginning, "postgresql")
def _on_postgresql(element: beginning, compiler: Any, **options: Any) -> str:
    return f'(substr({compiler.process(element.clauses, **options)}, 1, {BEGINNING}) COLLATE "C")'


#: Columns of result objects that an index of beginnings finds. Of all rows: PostgreSQL's planner learns nothing from a partial index.
SEARCHED_BY_BEGINNING = ("patient_id", "patient_name", "patient_name_ideographic", "patient_name_phonetic", "accession_number")


def _kept(file_name: str, name: str | None = None, columns: tuple[str, ...] = ()) -> sa.Index:
    """An index of rows that link to a file, by its name (so the janitor asks) or by other `columns`."""
    kept = sa.text(f"{file_name} IS NOT NULL")
    return sa.Index(name, *(columns or (file_name,)), sqlite_where=kept, postgresql_where=kept)


#: Something happened to a study that nobody has looked at yet.
OPEN_STUDY = sa.text("workflow_id IS NULL AND generation > settled_generation")
#: A study that counts for its sender's pace.
PACED_STUDY = sa.text("pace <> ''")
#: An image that waits to be read and was not handed out.
FREE_SCORE = sa.text("workflow_id IS NULL AND state = 'waiting'")
#: A delivery that will be due and was not handed out.
FREE_DELIVERY = sa.text("workflow_id IS NULL AND due_at IS NOT NULL")

#: What belongs to the installation and must not change: Device Observer UID, serial number.
installation = sa.Table(
    "installation",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

study = sa.Table(
    "study",
    metadata,
    sa.Column("study_instance_uid", _UID, primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("state_reason", sa.Text, nullable=False, server_default=""),
    sa.Column("revision", sa.Integer, nullable=False, server_default="1"),
    # Raised whenever something happened that a worker must look at; equal to settled_generation when nothing is open.
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
    sa.Column("settled_generation", sa.Integer, nullable=False, server_default="0"),
    sa.Column("due_at", UtcDateTime, index=True),
    sa.Column("first_instance_at", UtcDateTime, nullable=False),
    sa.Column("last_instance_at", UtcDateTime, nullable=False),
    sa.Column("last_hour", sa.Integer, nullable=False, server_default="0", index=True),  # of last_instance_at: see store.found_by
    sa.Column("collecting_since", UtcDateTime, nullable=False),
    sa.Column("patient_id", sa.Text, nullable=False, server_default=""),
    sa.Column("issuer_of_patient_id", sa.Text, nullable=False, server_default=""),
    sa.Column("patient_name", sa.Text, nullable=False, server_default=""),
    sa.Column("patient_birth_date", sa.Text, nullable=False, server_default=""),
    sa.Column("study_date", sa.Text, nullable=False, server_default=""),
    # The images that the last look found eligible: a change of it is what "a new eligible image" means.
    sa.Column("selection_hash", _HASH, nullable=False, server_default=""),
    # The selection that a run in progress reads: JSON list of instance ids, and the generation at which it was frozen.
    sa.Column("frozen_instances", sa.JSON),
    sa.Column("frozen_generation", sa.Integer),
    sa.Column("frozen_by_request", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("rule_name", sa.Text, nullable=False, server_default=""),
    sa.Column("rule_hash", _HASH, nullable=False, server_default=""),
    sa.Column("rule_action", sa.String(16), nullable=False, server_default=""),
    sa.Column("rule_reason", sa.Text, nullable=False, server_default=""),
    sa.Column("rule_values", sa.JSON),
    sa.Column("rule_send_to", sa.JSON),
    sa.Column("rule_slots", sa.JSON),  # the expected views
    sa.Column("rule_forward_to", sa.JSON),  # who gets the images themselves
    sa.Column("card", sa.Text, nullable=False, server_default=""),  # path of the model card that reads it; "" for the site's
    sa.Column("doubts", sa.JSON),  # of a held study: list of {reason, choices}
    sa.Column("rule_priority", sa.Integer, nullable=False, server_default="5"),  # 1 first ... 9 last
    # See store.pace: how it stands to the pace of the calling AE title that it counts for, and at which priority it waits by that.
    sa.Column("pace", sa.String(8), nullable=False, server_default=""),
    sa.Column("paced_by", sa.String(16), nullable=False, server_default=""),
    sa.Column("priority", sa.Integer, nullable=False, server_default="5"),
    # What a destination says of the patient, where it differs from the images: {keyword: value}, and who said so.
    sa.Column("correction", sa.JSON),
    sa.Column("corrected_by", sa.Text, nullable=False, server_default=""),
    sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),  # of workers that died alone while they looked at or reported it
    sa.Column("begun_by", sa.String(200), index=True),  # the process that does so at this moment
    *_claim(),
    # What waits for a look; `store.archive` asks in these very words, or the index is of no use.
    sa.Index("ix_study_open", "due_at", sqlite_where=OPEN_STUDY, postgresql_where=OPEN_STUDY),
    sa.Index("ix_study_urgent", "priority", "due_at", sqlite_where=OPEN_STUDY, postgresql_where=OPEN_STUDY),
    sa.Index("ix_study_paced", "pace", "first_instance_at", "paced_by", sqlite_where=PACED_STUDY, postgresql_where=PACED_STUDY),
    sa.Index("ix_study_state", "state", "last_hour"),
    _any_text("patient_id"),
)

#: What studies are found by in listings: `store.found_by` says how these rows follow theirs.
found_by = sa.Table(
    "found_by",
    metadata,
    _study_key(primary_key=True),
    sa.Column("what", sa.String(8), primary_key=True),  # patient | month | sender | device | class
    # As bytes are ordered, on either database: what begins alike stands together.
    sa.Column("value", sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql"), primary_key=True),
    sa.Column("last_hour", sa.Integer, nullable=False),
    sa.Index("ix_found_by_value", "what", "value", "last_hour", "study_instance_uid"),
    sqlite_with_rowid=False,
)

instance = sa.Table(
    "instance",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    _study_key(index=True),
    sa.Column("series_instance_uid", _UID, nullable=False),
    sa.Column("sop_instance_uid", _UID, nullable=False, index=True),
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("transfer_syntax_uid", _UID, nullable=False),
    sa.Column("modality", sa.Text, nullable=False),
    sa.Column("patient_id", sa.Text, nullable=False),
    sa.Column("issuer_of_patient_id", sa.Text, nullable=False),
    sa.Column("patient_name", sa.Text, nullable=False),
    sa.Column("patient_birth_date", sa.Text, nullable=False),
    sa.Column("file_hash", _HASH, nullable=False),
    sa.Column("pixel_hash", _HASH),
    sa.Column("breast_edge", sa.String(8), nullable=False, server_default=""),  # left | right, as the pixels show it
    sa.Column("file_name", sa.String(64)),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("origin", sa.String(16), nullable=False),
    sa.Column("calling_ae_title", sa.String(16), nullable=False),
    sa.Column("called_ae_title", sa.String(16), nullable=False),
    sa.Column("received_at", UtcDateTime, nullable=False),
    sa.Column("resolved_at", UtcDateTime),
    sa.Column("pixels_removed_at", UtcDateTime),
    sa.Column("pixels_expire", sa.Boolean, nullable=False, server_default=sa.false()),  # a Key Object says not to keep them longer
    sa.Column("to_route", sa.Boolean, nullable=False, server_default=sa.false()),  # no rule has said yet where it is forwarded
    # candidate | copy | set aside | ignored | own result | key object | doubt | rejected | excluded | failed | on demand
    sa.Column("disposition", sa.String(16), nullable=False, index=True),
    sa.Column("disposition_reason", sa.Text, nullable=False, server_default=""),
    sa.Column("evidence", sa.JSON),
    sa.Column("ranking", sa.JSON),  # what the election looks at beside the evidence
    sa.Column("demographics", _HASH, nullable=False, server_default=""),  # digest of the values that results copy
    sa.Column("rejects", sa.JSON),  # of a Key Object that rejects: {title, sop_instance_uids, reason}
    sa.Column("header", sa.LargeBinary),
    sa.Column("image_kind", sa.Text, nullable=False, server_default=""),
    # For drift and gantry reports, per image.
    sa.Column("manufacturer", sa.Text, nullable=False, server_default=""),
    sa.Column("manufacturer_model_name", sa.Text, nullable=False, server_default=""),
    sa.Column("software_versions", sa.Text, nullable=False, server_default=""),
    sa.Column("station_name", sa.Text, nullable=False, server_default=""),
    sa.Column("device_serial_number", sa.Text, nullable=False, server_default=""),
    sa.Column("detector_id", sa.Text, nullable=False, server_default=""),
    sa.Column("institution_name", sa.Text, nullable=False, server_default=""),
    sa.Column("body_part_thickness", sa.Text, nullable=False, server_default=""),
    sa.Column("kvp", sa.Text, nullable=False, server_default=""),
    sa.UniqueConstraint("study_instance_uid", "sop_instance_uid", "file_hash"),
    sa.Index("ix_instance_sender", "calling_ae_title", "received_at"),
    # Images that still have their pixels, oldest first: what retention looks through.
    _kept("file_name", "ix_instance_kept", ("pixels_expire", "received_at")),
    _kept("file_name"),
)

#: One image read by one model; the first saved result wins.
score = sa.Table(
    "score",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("instance_id", _ID, sa.ForeignKey("instance.id"), nullable=False),
    _study_key(index=True),
    sa.Column("model_key", _HASH, nullable=False),
    sa.Column("model", sa.JSON, nullable=False),
    sa.Column("card", sa.Text, nullable=False, server_default=""),  # path of its card; "" for the site's
    sa.Column("background", sa.Boolean, nullable=False, server_default=sa.false()),  # waits until nothing else does
    sa.Column("state", sa.String(16), nullable=False, index=True),  # waiting | scored | failed
    sa.Column("due_at", UtcDateTime),
    sa.Column("error", sa.Text, nullable=False, server_default=""),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),  # that were the image's own; claims that expired are not
    sa.Column("crashes", sa.Integer, nullable=False, server_default="0"),  # of workers that died alone while they read it
    sa.Column("begun_by", sa.String(200), index=True),  # the process that reads it at this moment
    sa.Column("priority", sa.Integer, nullable=False, server_default="5"),  # 0 first: see store.look.FIRST and store.pace
    sa.Column("scores", sa.JSON),
    sa.Column("preview_file", sa.String(64)),
    sa.Column("heat_map_file", sa.String(64)),
    sa.Column("scored_at", UtcDateTime),
    sa.Column("duration_seconds", sa.Float),
    *_claim(),
    sa.UniqueConstraint("instance_id", "model_key"),
    sa.Index("ix_score_free", "background", "priority", "id", sqlite_where=FREE_SCORE, postgresql_where=FREE_SCORE),
    _kept("preview_file"),
    _kept("heat_map_file"),
)

run = sa.Table(
    "run",
    metadata,
    sa.Column("id", _HASH, primary_key=True),
    _study_key(index=True),
    sa.Column("model_key", _HASH, nullable=False),
    sa.Column("model", sa.JSON, nullable=False),
    sa.Column("selection", sa.JSON, nullable=False),  # view -> {sop_instance_uid, instance_id, pixel_hash, scores | failure}
    sa.Column("created_at", UtcDateTime, nullable=False),
)

version = sa.Table(
    "version",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    _study_key(),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("run_id", _HASH, sa.ForeignKey("run.id"), nullable=False),
    sa.Column("cause", _HASH, nullable=False),  # without the predecessor
    sa.Column("object_cause", _HASH, nullable=False, unique=True),  # with it
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("losers", sa.JSON, nullable=False),
    sa.Column("warnings", sa.JSON, nullable=False),
    sa.Column("trained", sa.Boolean, nullable=False),
    sa.Column("requested", sa.Boolean, nullable=False),  # by a person: does not count for the breaker
    sa.Column("epoch", sa.Integer, nullable=False, server_default="0"),  # how often the database was restored before it was made
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("study_instance_uid", "number"),
)

result_object = sa.Table(
    "result_object",
    metadata,
    sa.Column("sop_instance_uid", _UID, primary_key=True),
    sa.Column("version_id", _ID, sa.ForeignKey("version.id"), nullable=False, index=True),
    _study_key(index=True),
    sa.Column("series_instance_uid", _UID, nullable=False, index=True),
    sa.Column("sop_class_uid", _UID, nullable=False),
    sa.Column("transfer_syntax_uid", _UID, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),  # sr | page
    sa.Column("file_name", sa.String(64), nullable=False),
    sa.Column("png_file", sa.String(64)),  # the page once more: versions that were made before say where
    sa.Column("sha256", _HASH, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("header", sa.JSON, nullable=False),  # DICOM JSON model (PS3.18 F) without pixel data
    # What QIDO-RS matches, as text; the three groups of the name in lower case.
    sa.Column("study_date", sa.Text, nullable=False),
    sa.Column("patient_id", sa.Text, nullable=False),
    sa.Column("patient_name", sa.Text, nullable=False),
    sa.Column("patient_name_ideographic", sa.Text, nullable=False),
    sa.Column("patient_name_phonetic", sa.Text, nullable=False),
    sa.Column("accession_number", sa.Text, nullable=False),
    sa.Column("modality", sa.String(16), nullable=False),
    *(sa.Index(f"ix_result_object_{name}", beginning(sa.column(name))) for name in SEARCHED_BY_BEGINNING),
    # The order of answers.
    sa.Index("ix_result_object_study_date", sa.desc("study_date"), "study_instance_uid"),
    sa.Index(None, "file_name"),
    _kept("png_file"),
)

#: An object on its way to a destination: a result of ours, or an image as it was received. Each once, whatever becomes of it.
delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("sop_instance_uid", _UID, nullable=False),
    sa.Column("instance_id", _ID, sa.ForeignKey("instance.id")),  # of an image; NULL: it is a result
    sa.Column("size_bytes", sa.BigInteger),  # of an image
    _study_key(index=True),
    sa.Column("destination", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),  # waiting | sending | sent | confirmed | refused | expired | cancelled
    sa.Column("due_at", UtcDateTime, index=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("confirm_tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("status", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
    sa.Column("sent_at", UtcDateTime, index=True),
    sa.Column("confirmed_at", UtcDateTime),
    sa.Column("checked_at", UtcDateTime),  # when the destination was asked whose study it is
    sa.Column("patient_check", sa.String(16), nullable=False, server_default=""),  # agrees | unchecked
    sa.Column("begun_by", sa.String(200)),  # the process that has it in hand, as long as a workflow holds it
    sa.Column("priority", sa.Integer, nullable=False, server_default="5"),  # its study's at its making; more of images
    *_claim(),
    sa.UniqueConstraint("sop_instance_uid", "destination"),
    sa.Index(None, "instance_id", sqlite_where=ORIGINAL, postgresql_where=ORIGINAL),
    sa.Index("ix_delivery_free", "destination", "priority", "id", sqlite_where=FREE_DELIVERY, postgresql_where=FREE_DELIVERY),
)

#: Processes that live: each renews its row every few seconds.
lease = sa.Table(
    "lease",
    metadata,
    sa.Column("process", sa.String(200), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("beat_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("figures", sa.JSON),  # what it counted since it started, for /metrics: {name: number}
    sa.Column("configuration", sa.JSON),  # the one that it works by: `store.leases.Configured`; NULL of an earlier release
    sa.Column("reload_asked", sa.String(64), nullable=False, server_default=""),  # the request that it shall answer last
)

#: What people decided: reprocess, release, withdraw. Applied once, kept for ever.
decision = sa.Table(
    "decision",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("request_id", sa.String(64), nullable=False, unique=True),
    _study_key(index=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False, server_default=""),
    sa.Column("parameters", sa.JSON),  # what was asked for
    sa.Column("effect", sa.JSON),  # what it decided for good; NULL unless it was accepted
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("applied_at", UtcDateTime),
    sa.Column("answer", sa.Text, nullable=False, server_default=""),
)

timeline = sa.Table(
    "timeline",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    _study_key(index=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)

#: What people did, for ever: also what concerns no single study. `study_key` is keyed, so that it says nothing once the study is forgotten.
act = sa.Table(
    "act",
    metadata,
    sa.Column("id", _ID, primary_key=True, autoincrement=True),
    sa.Column("at", UtcDateTime, nullable=False, index=True),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("what", sa.String(32), nullable=False),
    sa.Column("why", sa.Text, nullable=False, server_default=""),
    sa.Column("study_key", _HASH, nullable=False, server_default="", index=True),
    sa.Column("parameters", sa.JSON),
)

#: Studies that were forgotten and must not come back, by a keyed digest of their UID.
tombstone = sa.Table(
    "tombstone",
    metadata,
    sa.Column("study_key", _HASH, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
)

#: What a person has paused: sending, analysing.
pause = sa.Table(
    "pause",
    metadata,
    sa.Column("what", sa.String(16), primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("person", sa.Text, nullable=False),
    sa.Column("why", sa.Text, nullable=False, server_default=""),
)

#: What people are to be told, once per cause.
alert = sa.Table(
    "alert",
    metadata,
    sa.Column("cause", sa.String(200), primary_key=True),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("count", sa.Integer, nullable=False, server_default="1"),
    sa.Column("command", sa.Text, nullable=False, server_default=""),  # what to run
    sa.Column("raised_at", UtcDateTime, nullable=False),
    sa.Column("cleared_at", UtcDateTime),  # when the cause was gone; should it come back, it is a new one
    sa.Column("told_at", UtcDateTime),
    sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
    sa.Column("error", sa.Text, nullable=False, server_default=""),  # why it could not be told
    sa.Column("due_at", UtcDateTime, index=True),  # when it is to be told; NULL: nothing is to be told
)

#: What is due now and then, done by one process of all hosts.
chore = sa.Table(
    "chore",
    metadata,
    sa.Column("name", sa.String(32), primary_key=True),
    sa.Column("done_at", UtcDateTime),  # NULL: somebody asked for it
    sa.Column("begun_at", UtcDateTime),
    sa.Column("begun_by", sa.String(200), nullable=False, server_default=""),
    sa.Column("outcome", sa.JSON),
)
