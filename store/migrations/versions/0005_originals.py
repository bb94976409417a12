"""images that are forwarded as they were received"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ORIGINAL = sa.text("instance_id IS NOT NULL")


def upgrade() -> None:
    # Of what is here already no rule is asked: nothing old is forwarded.
    op.add_column("instance", sa.Column("to_route", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("study", sa.Column("rule_forward_to", sa.JSON(), nullable=True))
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    # SQLite takes no constraint off a table: it is copied.
    with op.batch_alter_table("delivery", reflect_kwargs={"resolve_fks": False}) as table:
        table.drop_constraint("fk_delivery_sop_instance_uid", type_="foreignkey")
        table.add_column(sa.Column("instance_id", number, nullable=True))
        table.add_column(sa.Column("size_bytes", sa.BigInteger(), nullable=True))
        table.create_foreign_key("fk_delivery_instance_id", "instance", ["instance_id"], ["id"])
    op.create_index("ix_delivery_instance_id", "delivery", ["instance_id"], sqlite_where=_ORIGINAL, postgresql_where=_ORIGINAL)
