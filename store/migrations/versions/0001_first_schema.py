"""first schema"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "installation",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_installation")),
    )
    op.create_table(
        "lease",
        sa.Column("process", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("beat_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("process", name=op.f("pk_lease")),
    )
    op.create_table(
        "study",
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("generation", sa.Integer(), server_default="0", nullable=False),
        sa.Column("settled_generation", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("first_instance_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_instance_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("collecting_since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("patient_id", sa.Text(), server_default="", nullable=False),
        sa.Column("issuer_of_patient_id", sa.Text(), server_default="", nullable=False),
        sa.Column("patient_name", sa.Text(), server_default="", nullable=False),
        sa.Column("patient_birth_date", sa.Text(), server_default="", nullable=False),
        sa.Column("study_date", sa.Text(), server_default="", nullable=False),
        sa.Column("selection_hash", sa.String(length=64), server_default="", nullable=False),
        sa.Column("frozen_instances", sa.JSON(), nullable=True),
        sa.Column("frozen_generation", sa.Integer(), nullable=True),
        sa.Column("frozen_by_request", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("rule_name", sa.Text(), server_default="", nullable=False),
        sa.Column("rule_hash", sa.String(length=64), server_default="", nullable=False),
        sa.Column("rule_action", sa.String(length=16), server_default="", nullable=False),
        sa.Column("rule_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("rule_values", sa.JSON(), nullable=True),
        sa.Column("rule_send_to", sa.JSON(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("workflow_id", sa.String(length=200), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("study_instance_uid", name=op.f("pk_study")),
    )
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_study_due_at"), ["due_at"], unique=False)
        batch_op.create_index("ix_study_open", ["generation", "settled_generation"], unique=False)
        batch_op.create_index(batch_op.f("ix_study_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_study_study_date"), ["study_date"], unique=False)
        batch_op.create_index(batch_op.f("ix_study_workflow_id"), ["workflow_id"], unique=False)

    op.create_table(
        "decision",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answer", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_decision_study_instance_uid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decision")),
        sa.UniqueConstraint("request_id", name=op.f("uq_decision_request_id")),
    )
    with op.batch_alter_table("decision", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_decision_study_instance_uid"), ["study_instance_uid"], unique=False)

    op.create_table(
        "instance",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("modality", sa.Text(), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("issuer_of_patient_id", sa.Text(), nullable=False),
        sa.Column("patient_name", sa.Text(), nullable=False),
        sa.Column("patient_birth_date", sa.Text(), nullable=False),
        sa.Column("file_hash", sa.String(length=64), nullable=False),
        sa.Column("pixel_hash", sa.String(length=64), nullable=True),
        sa.Column("file_name", sa.String(length=64), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("called_ae_title", sa.String(length=16), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("pixels_removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disposition", sa.String(length=16), nullable=False),
        sa.Column("disposition_reason", sa.Text(), server_default="", nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=True),
        sa.Column("ranking", sa.JSON(), nullable=True),
        sa.Column("rejects", sa.JSON(), nullable=True),
        sa.Column("header", sa.LargeBinary(), nullable=True),
        sa.Column("image_kind", sa.Text(), server_default="", nullable=False),
        sa.Column("manufacturer", sa.Text(), server_default="", nullable=False),
        sa.Column("manufacturer_model_name", sa.Text(), server_default="", nullable=False),
        sa.Column("software_versions", sa.Text(), server_default="", nullable=False),
        sa.Column("station_name", sa.Text(), server_default="", nullable=False),
        sa.Column("device_serial_number", sa.Text(), server_default="", nullable=False),
        sa.Column("detector_id", sa.Text(), server_default="", nullable=False),
        sa.Column("institution_name", sa.Text(), server_default="", nullable=False),
        sa.Column("body_part_thickness", sa.Text(), server_default="", nullable=False),
        sa.Column("kvp", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_instance_study_instance_uid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instance")),
        sa.UniqueConstraint(
            "study_instance_uid", "sop_instance_uid", "file_hash", name=op.f("uq_instance_study_instance_uid_sop_instance_uid_file_hash")
        ),
    )
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_instance_disposition"), ["disposition"], unique=False)
        batch_op.create_index(batch_op.f("ix_instance_sop_instance_uid"), ["sop_instance_uid"], unique=False)
        batch_op.create_index(batch_op.f("ix_instance_study_instance_uid"), ["study_instance_uid"], unique=False)

    op.create_table(
        "run",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("model_key", sa.String(length=64), nullable=False),
        sa.Column("model", sa.JSON(), nullable=False),
        sa.Column("selection", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_run_study_instance_uid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
    )
    with op.batch_alter_table("run", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_run_study_instance_uid"), ["study_instance_uid"], unique=False)

    op.create_table(
        "timeline",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_timeline_study_instance_uid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_timeline")),
    )
    with op.batch_alter_table("timeline", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_timeline_study_instance_uid"), ["study_instance_uid"], unique=False)

    op.create_table(
        "score",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("instance_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("model_key", sa.String(length=64), nullable=False),
        sa.Column("model", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("scores", sa.JSON(), nullable=True),
        sa.Column("preview_file", sa.String(length=64), nullable=True),
        sa.Column("scored_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duration_seconds", sa.Float(), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("workflow_id", sa.String(length=200), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["instance_id"], ["instance.id"], name=op.f("fk_score_instance_id")),
        sa.ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_score_study_instance_uid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_score")),
        sa.UniqueConstraint("instance_id", "model_key", name=op.f("uq_score_instance_id_model_key")),
    )
    with op.batch_alter_table("score", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_score_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_score_study_instance_uid"), ["study_instance_uid"], unique=False)
        batch_op.create_index(batch_op.f("ix_score_workflow_id"), ["workflow_id"], unique=False)

    op.create_table(
        "version",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("cause", sa.String(length=64), nullable=False),
        sa.Column("object_cause", sa.String(length=64), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("losers", sa.JSON(), nullable=False),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("trained", sa.Boolean(), nullable=False),
        sa.Column("requested", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["run.id"], name=op.f("fk_version_run_id")),
        sa.ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_version_study_instance_uid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_version")),
        sa.UniqueConstraint("object_cause", name=op.f("uq_version_object_cause")),
        sa.UniqueConstraint("study_instance_uid", "number", name=op.f("uq_version_study_instance_uid_number")),
    )
    op.create_table(
        "result_object",
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("version_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("file_name", sa.String(length=64), nullable=False),
        sa.Column("png_file", sa.String(length=64), nullable=True),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("header", sa.JSON(), nullable=False),
        sa.Column("study_date", sa.Text(), nullable=False),
        sa.Column("patient_id", sa.Text(), nullable=False),
        sa.Column("patient_name", sa.Text(), nullable=False),
        sa.Column("patient_name_ideographic", sa.Text(), nullable=False),
        sa.Column("patient_name_phonetic", sa.Text(), nullable=False),
        sa.Column("accession_number", sa.Text(), nullable=False),
        sa.Column("modality", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_result_object_study_instance_uid")),
        sa.ForeignKeyConstraint(["version_id"], ["version.id"], name=op.f("fk_result_object_version_id")),
        sa.PrimaryKeyConstraint("sop_instance_uid", name=op.f("pk_result_object")),
    )
    with op.batch_alter_table("result_object", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_result_object_accession_number"), ["accession_number"], unique=False)
        batch_op.create_index(batch_op.f("ix_result_object_patient_id"), ["patient_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_result_object_series_instance_uid"), ["series_instance_uid"], unique=False)
        batch_op.create_index(batch_op.f("ix_result_object_study_date"), ["study_date"], unique=False)
        batch_op.create_index(batch_op.f("ix_result_object_study_instance_uid"), ["study_instance_uid"], unique=False)
        batch_op.create_index(batch_op.f("ix_result_object_version_id"), ["version_id"], unique=False)

    op.create_table(
        "delivery",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("study_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("confirm_tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("workflow_id", sa.String(length=200), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["sop_instance_uid"], ["result_object.sop_instance_uid"], name=op.f("fk_delivery_sop_instance_uid")),
        sa.ForeignKeyConstraint(["study_instance_uid"], ["study.study_instance_uid"], name=op.f("fk_delivery_study_instance_uid")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.UniqueConstraint("sop_instance_uid", "destination", name=op.f("uq_delivery_sop_instance_uid_destination")),
    )
    with op.batch_alter_table("delivery", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_delivery_due_at"), ["due_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_delivery_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_delivery_study_instance_uid"), ["study_instance_uid"], unique=False)
        batch_op.create_index(batch_op.f("ix_delivery_workflow_id"), ["workflow_id"], unique=False)
