"""The search index: words of records, and each tenant's vocabulary. `rowhouse reindex` fills them.

Revision: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "search_posting",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("token", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("entity", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("weight", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "token", "entity", "weight", "id", name=op.f("pk_search_posting")),
    )
    op.protect_table("search_posting", "tenant")
    op.create_table(
        "search_word",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("variant", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("word", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "variant", "word", "id", name=op.f("pk_search_word")),
    )
    op.protect_table("search_word", "tenant")


def downgrade() -> None:
    op.drop_table("search_word")
    op.drop_table("search_posting")
