"""what studies are found by in listings"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

#: Studies whose rows are read at once.
_AT_ONCE = 500
_LONGEST = 64
_SEARCHED_BY_BEGINNING = ("patient_id", "patient_name", "patient_name_ideographic", "patient_name_phonetic", "accession_number")
_HOURS = {
    # Without its fraction, which strftime would round.
    "sqlite": "CAST(strftime('%s', substr(last_instance_at, 1, 19)) AS INTEGER) / 3600",
    "postgresql": "CAST(floor(extract(epoch FROM last_instance_at) / 3600) AS INTEGER)",
}

_study = sa.table("study", *(sa.column(name) for name in ("study_instance_uid", "patient_id", "study_date", "last_hour")))
_instance = sa.table(
    "instance",
    *(sa.column(name) for name in ("study_instance_uid", "disposition", "calling_ae_title", "station_name", "manufacturer_model_name")),
)
_version = sa.table("version", *(sa.column(name) for name in ("study_instance_uid", "number", "outcome", "run_id")))
_run = sa.table("run", sa.column("id"), sa.column("selection", sa.JSON()))


def upgrade() -> None:
    dialect = op.get_bind().dialect.name
    op.add_column("study", sa.Column("last_hour", sa.Integer(), server_default="0", nullable=False))
    op.execute(f"UPDATE study SET last_hour = {_HOURS[dialect]}")  # nosec B608 # noqa: S608 - text of ours
    found_by = op.create_table(
        "found_by",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("what", sa.String(length=8), nullable=False),
        sa.Column("value", sa.String(length=64, collation=None if dialect == "sqlite" else "C"), nullable=False),
        sa.Column("last_hour", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_found_by_study_instance_uid")),
        sa.PrimaryKeyConstraint("study_instance_uid", "what", "value", name=op.f("pk_found_by")),
        sqlite_with_rowid=False,
    )
    for rows in _rows(op.get_bind()):
        op.bulk_insert(found_by, rows)
    # Once they are full: that is quicker.
    op.create_index("ix_found_by_value", "found_by", ["what", "value", "last_hour", "study_instance_uid"])
    op.create_index("ix_study_last_hour", "study", ["last_hour"])
    op.drop_index("ix_study_state", "study")
    op.create_index("ix_study_state", "study", ["state", "last_hour"])
    op.drop_index("ix_study_study_date", "study")
    for name in ("patient_id", "accession_number", "study_date"):
        op.drop_index(f"ix_result_object_{name}", "result_object")
    for name in _SEARCHED_BY_BEGINNING:
        beginning = f"substr({name}, 1, 64)" if dialect == "sqlite" else f'(substr({name}, 1, 64) COLLATE "C")'
        op.create_index(f"ix_result_object_{name}", "result_object", [sa.text(beginning)])
    op.create_index("ix_delivery_sent_at", "delivery", ["sent_at"])  # what was sent today is counted
    op.create_index("ix_result_object_study_date", "result_object", [sa.text("study_date DESC"), "study_instance_uid"])
    if dialect == "postgresql":
        for table in ("study", "found_by", "result_object"):
            op.execute(f"ANALYZE {table}")  # what the planner knows of new indexes


def _rows(connection: sa.Connection) -> Iterator[list[dict[str, Any]]]:
    """What the studies are found by, so many of them at a time."""
    after = ""
    while True:
        query = sa.select(_study).where(_study.c.study_instance_uid > after).order_by(_study.c.study_instance_uid).limit(_AT_ONCE)
        studies = connection.execute(query).all()
        if not studies:
            return
        uids = [one.study_instance_uid for one in studies]
        found = {(one.study_instance_uid, what, value) for one in studies for what, value in _of_study(one)}
        images = sa.select(_instance).where(_instance.c.study_instance_uid.in_(uids), _instance.c.disposition != "own result").distinct()
        for one in connection.execute(images):
            of_image = (("sender", one.calling_ae_title), ("device", one.station_name), ("device", one.manufacturer_model_name))
            found |= {(one.study_instance_uid, what, value) for what, value in of_image}
        found |= {(uid, "class", value) for uid, value in _classes(connection, uids)}
        hours = {one.study_instance_uid: one.last_hour for one in studies}
        trimmed = sorted({(uid, what, value[:_LONGEST]) for uid, what, value in found if value})
        yield [{"study_instance_uid": uid, "what": what, "value": value, "last_hour": hours[uid]} for uid, what, value in trimmed]
        after = uids[-1]


def _of_study(row: sa.Row[Any]) -> tuple[tuple[str, str], ...]:
    return (("patient", row.patient_id), ("month", row.study_date[:6]))


def _classes(connection: sa.Connection, uids: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The classes of the current versions' views; of one that says WITHDRAWN there are none."""
    newest: dict[str, Any] = {}
    query = sa.select(_version.c.study_instance_uid, _version.c.outcome, _run.c.selection).join(_run, _run.c.id == _version.c.run_id)
    for one in connection.execute(query.where(_version.c.study_instance_uid.in_(uids)).order_by(_version.c.number)):
        newest[one.study_instance_uid] = one
    for uid, one in newest.items():
        for view in one.selection.values() if one.outcome != "WITHDRAWN" else ():
            if scores := view["scores"]:
                yield uid, scores["classes"][scores["probabilities"].index(max(scores["probabilities"]))]
