"""the pace of senders; priorities of looks and deliveries"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_OPEN = sa.text("workflow_id IS NULL AND generation > settled_generation")
_PACED = sa.text("pace <> ''")
_FREE = sa.text("workflow_id IS NULL AND due_at IS NOT NULL")


def upgrade() -> None:
    op.add_column("study", sa.Column("pace", sa.String(length=8), server_default="", nullable=False))
    op.add_column("study", sa.Column("paced_by", sa.String(length=16), server_default="", nullable=False))
    op.add_column("study", sa.Column("priority", sa.Integer(), server_default="5", nullable=False))
    op.add_column("delivery", sa.Column("priority", sa.Integer(), server_default="5", nullable=False))
    op.execute("UPDATE study SET priority = rule_priority WHERE rule_priority <> 5")
    # What still has to go, as it was ordered before: images after results.
    op.execute("UPDATE delivery SET priority = 105 WHERE instance_id IS NOT NULL AND due_at IS NOT NULL")
    op.create_index("ix_study_urgent", "study", ["priority", "due_at"], sqlite_where=_OPEN, postgresql_where=_OPEN)
    op.create_index("ix_study_paced", "study", ["pace", "first_instance_at", "paced_by"], sqlite_where=_PACED, postgresql_where=_PACED)
    op.create_index("ix_delivery_free", "delivery", ["destination", "priority", "id"], sqlite_where=_FREE, postgresql_where=_FREE)
