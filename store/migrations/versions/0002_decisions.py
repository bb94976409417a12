"""decisions of people, doubts with their choices, demographics, the breast's edge, cards and heat maps of scores"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("study", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rule_slots", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("card", sa.Text(), server_default="", nullable=False))
        batch_op.add_column(sa.Column("doubts", sa.JSON(), nullable=True))
        batch_op.create_index(batch_op.f("ix_study_patient_id"), ["patient_id"], unique=False)
    with op.batch_alter_table("instance", schema=None) as batch_op:
        batch_op.add_column(sa.Column("breast_edge", sa.String(length=8), server_default="", nullable=False))
        batch_op.add_column(sa.Column("pixels_expire", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("demographics", sa.String(length=64), server_default="", nullable=False))
    with op.batch_alter_table("score", schema=None) as batch_op:
        batch_op.add_column(sa.Column("card", sa.Text(), server_default="", nullable=False))
        batch_op.add_column(sa.Column("background", sa.Boolean(), server_default=sa.false(), nullable=False))
        batch_op.add_column(sa.Column("heat_map_file", sa.String(length=64), nullable=True))
    with op.batch_alter_table("decision", schema=None) as batch_op:
        batch_op.add_column(sa.Column("why", sa.Text(), server_default="", nullable=False))
        batch_op.add_column(sa.Column("parameters", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("effect", sa.JSON(), nullable=True))
