"""which configuration a process works by, and what asks it to read its file anew"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("lease", schema=None) as batch_op:
        batch_op.add_column(sa.Column("configuration", sa.JSON(), nullable=True))
        batch_op.add_column(sa.Column("reload_asked", sa.String(length=64), server_default="", nullable=False))
