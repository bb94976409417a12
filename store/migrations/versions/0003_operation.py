"""crashes and priorities of scores, corrections by destinations, what people did, pauses, tombstones, alerts, chores"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

#: What people did is added to, never changed and never deleted.
APPEND_ONLY = {
    "sqlite": [
        f"CREATE TRIGGER act_no_{event} BEFORE {event} ON act BEGIN SELECT RAISE(ABORT, 'the record of acts is append-only'); END"
        for event in ("update", "delete")
    ],
    "postgresql": [
        "CREATE FUNCTION act_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the record of acts is append-only'; END $$",
        "CREATE TRIGGER act_append_only BEFORE UPDATE OR DELETE ON act FOR EACH ROW EXECUTE FUNCTION act_is_append_only()",
    ],
}
#: Text from DICOM may be longer than PostgreSQL's ordinary index takes: there it gets one of hashes.
_ANY_TEXT = (("study", "patient_id"), ("result_object", "patient_id"), ("result_object", "accession_number"))
#: Names of files, where there is one.
_KEPT = (("instance", "file_name"), ("score", "preview_file"), ("score", "heat_map_file"), ("result_object", "png_file"))
#: What was given up of a version that another one has replaced: nobody can do anything about it any more.
_SUPERSEDED = """
UPDATE delivery SET state = 'cancelled', due_at = NULL, reason = 'a newer version stands'
WHERE state IN ('refused', 'expired') AND EXISTS (
    SELECT 1 FROM result_object JOIN version AS mine ON mine.id = result_object.version_id
    JOIN version AS newer ON newer.study_instance_uid = mine.study_instance_uid AND newer.number > mine.number
    WHERE result_object.sop_instance_uid = delivery.sop_instance_uid
)
"""


def upgrade() -> None:
    for table, column in _ANY_TEXT:
        op.drop_index(f"ix_{table}_{column}", table)
        op.create_index(f"ix_{table}_{column}", table, [column], postgresql_using="hash")
    for table, column in _KEPT:
        _create_index_of_kept(f"ix_{table}_{column}", table, [column], column)
    _create_index_of_kept("ix_instance_kept", "instance", ["pixels_expire", "received_at"], "file_name")
    op.create_index("ix_result_object_file_name", "result_object", ["file_name"])
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rule_priority", sa.Integer(), server_default="5", nullable=False))
        batch_op.add_column(sa.Column("correction", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("corrected_by", sa.Text(), server_default="", nullable=False))
        batch_op.add_column(sa.Column("crashes", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("begun_by", sa.String(length=200), nullable=True))
        batch_op.create_index(batch_op.f("ix_study_begun_by"), ["begun_by"], unique=False)
        batch_op.drop_index("ix_study_open")
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.create_index("ix_instance_sender", ["calling_ae_title", "received_at"], unique=False)
    with op.batch_alter_table("score", schema=None) as batch_op:
        batch_op.add_column(sa.Column("crashes", sa.Integer(), server_default="0", nullable=False))
        batch_op.add_column(sa.Column("begun_by", sa.String(length=200), nullable=True))
        batch_op.add_column(sa.Column("priority", sa.Integer(), server_default="5", nullable=False))
        batch_op.create_index(batch_op.f("ix_score_begun_by"), ["begun_by"], unique=False)
    open_study = sa.text("workflow_id IS NULL AND generation > settled_generation")
    op.create_index("ix_study_open", "study", ["due_at"], sqlite_where=open_study, postgresql_where=open_study)
    free_score = sa.text("workflow_id IS NULL AND state = 'waiting'")
    op.create_index("ix_score_free", "score", ["background", "priority", "id"], sqlite_where=free_score, postgresql_where=free_score)
    with op.batch_alter_table("version", schema=None) as batch_op:
        batch_op.add_column(sa.Column("epoch", sa.Integer(), server_default="0", nullable=False))
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.add_column(sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("patient_check", sa.String(length=16), server_default="", nullable=False))
        batch_op.add_column(sa.Column("begun_by", sa.String(length=200), nullable=True))
    handed_out = sa.text("workflow_id IS NOT NULL")
    for table in ("study", "score", "delivery"):
        op.drop_index(f"ix_{table}_workflow_id", table)
        for column in ("workflow_id", "claimed_at"):
            op.create_index(f"ix_{table}_{column}", table, [column], sqlite_where=handed_out, postgresql_where=handed_out)
    op.execute(_SUPERSEDED)
    with op.batch_alter_table("lease", schema=None) as batch_op:
        batch_op.add_column(sa.Column("started_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.add_column(sa.Column("figures", sa.JSON(), nullable=True))
    op.create_table(
        "act",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("what", sa.String(length=32), nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("study_key", sa.String(length=64), server_default="", nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_act")),
    )
    op.create_index(op.f("ix_act_at"), "act", ["at"], unique=False)
    op.create_index(op.f("ix_act_study_key"), "act", ["study_key"], unique=False)
    for statement in APPEND_ONLY[op.get_bind().dialect.name]:
        op.execute(statement)
    op.create_table(
        "tombstone",
        sa.Column("study_key", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("study_key", name=op.f("pk_tombstone")),
    )
    op.create_table(
        "pause",
        sa.Column("what", sa.String(length=16), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("what", name=op.f("pk_pause")),
    )
    op.create_table(
        "alert",
        sa.Column("cause", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("count", sa.Integer(), server_default="1", nullable=False),
        sa.Column("command", sa.Text(), server_default="", nullable=False),
        sa.Column("raised_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("cause", name=op.f("pk_alert")),
    )
    op.create_index(op.f("ix_alert_due_at"), "alert", ["due_at"], unique=False)
    op.create_table(
        "chore",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("done_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("begun_by", sa.String(length=200), server_default="", nullable=False),
        sa.Column("outcome", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chore")),
    )


def _create_index_of_kept(name: str, table: str, columns: list[str], file_name: str) -> None:
    kept = sa.text(f"{file_name} IS NOT NULL")
    op.create_index(name, table, columns, sqlite_where=kept, postgresql_where=kept)
