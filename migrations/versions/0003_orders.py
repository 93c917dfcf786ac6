"""Indexes that lists are read along.

Revision: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ORDERS = (
    ("account", "created_at"),
    ("account", "name"),
    ("crm_contact", "created_at"),
    ("crm_contact", "name"),
    ("opportunity", "created_at"),
    ("opportunity", "name"),
    ("opportunity_stage_history", "changed_at"),
    ("crm_activity", "created_at"),
    ("crm_activity", "due_at"),
)


def upgrade() -> None:
    for table, column in _ORDERS:
        op.create_index(f"ix_{table}_{column}_order", table, ["tenant_id", column, "id"])


def downgrade() -> None:
    for table, column in reversed(_ORDERS):
        op.drop_index(f"ix_{table}_{column}_order", table)
