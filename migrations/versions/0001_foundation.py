"""The whole schema of the foundation.

Revision: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "app_user",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("email_norm", sa.String(length=254), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("password_hash", sa.String(length=200), nullable=True),
        sa.Column("email_proven_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("failed_count", sa.Integer(), nullable=False),
        sa.Column("locked_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_login_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_app_user")),
        sa.UniqueConstraint("email_norm", name=op.f("uq_app_user_email_norm")),
    )
    op.protect_table("app_user", "identity")
    op.create_table(
        "login_attempt",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subject", sa.String(length=100), nullable=False),
        sa.Column("window_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_login_attempt")),
        sa.UniqueConstraint("subject", name=op.f("uq_login_attempt_subject")),
    )
    op.protect_table("login_attempt", "identity")
    op.create_table(
        "service_key",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.String(length=24), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_key")),
        sa.UniqueConstraint("key_id", name=op.f("uq_service_key_key_id")),
    )
    op.protect_table("service_key", "identity")
    op.create_table(
        "tenant",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.String(length=50), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("suspension_reason", sa.String(length=500), nullable=True),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("open_edit", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenant")),
        sa.UniqueConstraint("slug", name=op.f("uq_tenant_slug")),
    )
    op.protect_table("tenant", "identity")
    op.create_table(
        "api_key",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("key_id", sa.String(length=24), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("member_id", sa.Uuid(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_by_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_api_key_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_api_key")),
    )
    op.protect_table("api_key", "tenant", identity_access=("SELECT", "UPDATE"))
    op.create_index("ix_api_key_key_id", "api_key", ["key_id"], unique=False)
    op.create_index("ix_api_key_member", "api_key", ["tenant_id", "member_id"], unique=False)
    op.create_table(
        "audit_entry",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("operation", sa.String(length=100), nullable=False),
        sa.Column("verb", sa.String(length=20), nullable=False),
        sa.Column("entity", sa.String(length=63), nullable=False),
        sa.Column("entity_id", sa.Uuid(), nullable=True),
        sa.Column("changes", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("actor_kind", sa.String(length=20), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("credential_id", sa.Uuid(), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("ip", sa.String(length=45), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("batch_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_audit_entry_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_audit_entry")),
    )
    op.protect_table("audit_entry", "tenant", append_only=True)
    op.create_index(
        "ix_audit_entry_batch",
        "audit_entry",
        ["tenant_id", "batch_id", "id"],
        unique=False,
        postgresql_where="batch_id IS NOT NULL",
    )
    op.create_index("ix_audit_entry_created", "audit_entry", ["tenant_id", "created_at", "id"], unique=False)
    op.create_index("ix_audit_entry_entity", "audit_entry", ["tenant_id", "entity_id", "id"], unique=False)
    op.create_table(
        "exchange_rate",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("as_of", sa.Date(), nullable=False),
        sa.Column("rate", sa.Numeric(precision=20, scale=10), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_by_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint("rate > 0", name=op.f("ck_exchange_rate_rate_range")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_exchange_rate_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_exchange_rate")),
        sa.UniqueConstraint("tenant_id", "currency", "as_of", name=op.f("uq_exchange_rate_tenant_id_currency_as_of")),
    )
    op.protect_table("exchange_rate", "tenant")
    op.create_table(
        "idempotency_key",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("request_hash", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_idempotency_key_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_idempotency_key")),
        sa.UniqueConstraint("tenant_id", "subject_id", "key", name=op.f("uq_idempotency_key_tenant_id_subject_id_key")),
    )
    op.protect_table("idempotency_key", "tenant")
    op.create_table(
        "import_batch",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("resource_name", sa.String(length=63), nullable=False),
        sa.Column("filename", sa.String(length=255), nullable=False),
        sa.Column("mode", sa.String(length=10), nullable=False),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("created_count", sa.Integer(), nullable=False),
        sa.Column("updated_count", sa.Integer(), nullable=False),
        sa.Column("unchanged_count", sa.Integer(), nullable=False),
        sa.Column("failed_count", sa.Integer(), nullable=False),
        sa.Column("errors", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_by_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_import_batch_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_import_batch")),
    )
    op.protect_table("import_batch", "tenant")
    op.create_index("ix_import_batch_started", "import_batch", ["tenant_id", "started_at"], unique=False)
    op.create_table(
        "invitation",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("email_norm", sa.String(length=254), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("role", sa.String(length=40), nullable=False),
        sa.Column("capabilities", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_by_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_invitation_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_invitation")),
    )
    op.protect_table("invitation", "tenant", identity_access=("SELECT", "UPDATE"))
    op.create_index("ix_invitation_token", "invitation", ["token_hash"], unique=False)
    op.create_index(
        "uq_invitation_tenant_id_email_norm",
        "invitation",
        ["tenant_id", "email_norm"],
        unique=True,
        postgresql_where="accepted_at IS NULL AND archived_at IS NULL",
    )
    op.create_table(
        "job",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("task", sa.String(length=200), nullable=False),
        sa.Column("args", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("key", sa.String(length=300), nullable=True),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("progress_pct", sa.SmallInteger(), nullable=False),
        sa.Column("message", sa.String(length=500), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("result", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.String(length=500), nullable=True),
        sa.Column("acting_for_id", sa.Uuid(), nullable=True),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_by_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_job_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_job")),
        sa.UniqueConstraint("tenant_id", "key", name=op.f("uq_job_tenant_id_key")),
    )
    op.protect_table("job", "tenant")
    op.create_index("ix_job_status", "job", ["tenant_id", "status", "created_at"], unique=False)
    op.create_index("ix_job_waiting", "job", ["tenant_id", "created_at"], unique=False, postgresql_where="dispatched_at IS NULL")
    op.create_table(
        "membership",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("role", sa.String(length=40), nullable=False),
        sa.Column("capabilities", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("title", sa.String(length=100), nullable=True),
        sa.Column("external_id", sa.String(length=100), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_by_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_membership_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_membership")),
    )
    op.protect_table("membership", "tenant", identity_access=("SELECT", "INSERT", "UPDATE"))
    op.create_index("ix_membership_person", "membership", ["id"], unique=False)
    op.create_table(
        "merge_log",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("target_id", sa.Uuid(), nullable=False),
        sa.Column("source_ids", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("choices", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("snapshots", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("moved", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("dropped", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("undo_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("undone_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("undone_by_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_merge_log_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_merge_log")),
    )
    op.protect_table("merge_log", "tenant")
    op.create_index("ix_merge_log_target", "merge_log", ["tenant_id", "kind", "target_id"], unique=False)
    op.create_table(
        "outbox_event",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("payload", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dispatched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_outbox_event_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_outbox_event")),
    )
    op.protect_table("outbox_event", "tenant")
    op.create_index(
        "ix_outbox_event_waiting",
        "outbox_event",
        ["tenant_id", "created_at"],
        unique=False,
        postgresql_where="dispatched_at IS NULL",
    )
    op.create_table(
        "pipeline",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("description", sa.String(length=2000), nullable=True),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_by_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint("is_active OR NOT is_default", name=op.f("ck_pipeline_is_default_active")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_pipeline_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_pipeline")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_pipeline_tenant_id_name")),
    )
    op.protect_table("pipeline", "tenant")
    op.create_index("uq_pipeline_default", "pipeline", ["tenant_id"], unique=True, postgresql_where="is_default")
    op.create_table(
        "platform_audit",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("operation", sa.String(length=100), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("about", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.CheckConstraint("length(reason) >= 3", name=op.f("ck_platform_audit_reason_given")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_platform_audit_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_platform_audit")),
    )
    op.protect_table("platform_audit", "operator")
    op.create_table(
        "service_key_grant",
        sa.Column("service_key_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.String(length=40), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["service_key_id"], ["service_key.id"], name=op.f("fk_service_key_grant_service_key_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_service_key_grant_tenant_id")),
        sa.PrimaryKeyConstraint("service_key_id", "tenant_id", name=op.f("pk_service_key_grant")),
    )
    op.protect_table("service_key_grant", "identity")
    op.create_table(
        "tenant_counter",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=50), nullable=False),
        sa.Column("next", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_tenant_counter_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_tenant_counter")),
        sa.UniqueConstraint("tenant_id", "kind", name=op.f("uq_tenant_counter_tenant_id_kind")),
    )
    op.protect_table("tenant_counter", "tenant")
    op.create_table(
        "tenant_domain",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("domain", sa.String(length=253), nullable=False),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("is_primary", sa.Boolean(), nullable=False),
        sa.Column("verify_token", sa.String(length=64), nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("check_failures", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_by_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_tenant_domain_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_tenant_domain")),
        sa.UniqueConstraint("tenant_id", "domain", name=op.f("uq_tenant_domain_tenant_id_domain")),
    )
    op.protect_table("tenant_domain", "tenant", identity_access=("SELECT", "UPDATE"))
    op.create_index("ix_tenant_domain_domain", "tenant_domain", ["domain"], unique=False)
    op.create_table(
        "user_session",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ip", sa.String(length=45), nullable=False),
        sa.Column("user_agent", sa.String(length=300), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_user_session_tenant_id")),
        sa.ForeignKeyConstraint(["user_id"], ["app_user.id"], name=op.f("fk_user_session_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_user_session")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_user_session_secret_hash")),
    )
    op.protect_table("user_session", "identity")
    op.create_index("ix_user_session_user", "user_session", ["user_id"], unique=False)
    op.create_table(
        "verified_domain",
        sa.Column("domain", sa.String(length=253), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_verified_domain_tenant_id")),
        sa.PrimaryKeyConstraint("domain", name=op.f("pk_verified_domain")),
    )
    op.protect_table("verified_domain", "identity")
    op.create_table(
        "account",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("name_norm", sa.String(length=200), nullable=False),
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("website", sa.String(length=2048), nullable=True),
        sa.Column("domain_norm", sa.String(length=253), nullable=True),
        sa.Column("phone", sa.String(length=50), nullable=True),
        sa.Column("phone_norm", sa.String(length=50), nullable=True),
        sa.Column("industry", sa.String(length=100), nullable=True),
        sa.Column("employee_band", sa.String(length=40), nullable=True),
        sa.Column("employee_count", sa.Integer(), nullable=True),
        sa.Column("annual_revenue_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.Column("billing_address", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("shipping_address", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("description", sa.String(length=10000), nullable=True),
        sa.Column("founded_year", sa.Integer(), nullable=True),
        sa.Column("parent_account_id", sa.Uuid(), nullable=True),
        sa.Column("owner_user_id", sa.Uuid(), nullable=True),
        sa.Column("external_id", sa.String(length=200), nullable=True),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("health_score", sa.SmallInteger(), nullable=True),
        sa.Column("engagement_score", sa.SmallInteger(), nullable=True),
        sa.Column("churn_risk", sa.Numeric(precision=5, scale=4), nullable=True),
        sa.Column("last_activity_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_activity_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("merged_into_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_by_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "merged_into_id"], ["account.tenant_id", "account.id"], name=op.f("fk_account_tenant_id_merged_into_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "owner_user_id"],
            ["membership.tenant_id", "membership.id"],
            name=op.f("fk_account_tenant_id_owner_user_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "parent_account_id"],
            ["account.tenant_id", "account.id"],
            name=op.f("fk_account_tenant_id_parent_account_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_account_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_account")),
        sa.UniqueConstraint("tenant_id", "external_id", name=op.f("uq_account_tenant_id_external_id")),
    )
    op.protect_table("account", "tenant")
    op.create_index("ix_account_domain_norm", "account", ["tenant_id", "domain_norm"], unique=False)
    op.create_index("ix_account_merged_into", "account", ["tenant_id", "merged_into_id"], unique=False)
    op.create_index("ix_account_name_norm", "account", ["tenant_id", "name_norm"], unique=False)
    op.create_index("ix_account_owner", "account", ["tenant_id", "owner_user_id"], unique=False)
    op.create_index("ix_account_parent", "account", ["tenant_id", "parent_account_id"], unique=False)
    op.create_index("ix_account_phone_norm", "account", ["tenant_id", "phone_norm"], unique=False)
    op.create_index("ix_account_type", "account", ["tenant_id", "type"], unique=False)
    op.create_table(
        "pipeline_stage",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("pipeline_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("description", sa.String(length=2000), nullable=True),
        sa.Column("color", sa.String(length=20), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("probability", sa.SmallInteger(), nullable=False),
        sa.Column("forecast_category", sa.String(length=40), nullable=False),
        sa.Column("rotten_days", sa.Integer(), nullable=True),
        sa.Column("required_fields", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("type <> 'LOST' OR probability = 0", name=op.f("ck_pipeline_stage_probability_lost")),
        sa.CheckConstraint("type <> 'WON' OR probability = 100", name=op.f("ck_pipeline_stage_probability_won")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "pipeline_id"],
            ["pipeline.tenant_id", "pipeline.id"],
            name=op.f("fk_pipeline_stage_tenant_id_pipeline_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_pipeline_stage_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_pipeline_stage")),
        sa.UniqueConstraint("tenant_id", "pipeline_id", "id", name=op.f("uq_pipeline_stage_tenant_id_pipeline_id_id")),
        sa.UniqueConstraint("tenant_id", "pipeline_id", "name", name=op.f("uq_pipeline_stage_tenant_id_pipeline_id_name")),
        sa.UniqueConstraint(
            "tenant_id",
            "pipeline_id",
            "position",
            deferrable=True,
            initially="DEFERRED",
            name=op.f("uq_pipeline_stage_tenant_id_pipeline_id_position"),
        ),
    )
    op.protect_table("pipeline_stage", "tenant")
    op.create_table(
        "crm_contact",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=254), nullable=False),
        sa.Column("name_norm", sa.String(length=254), nullable=False),
        sa.Column("first_name", sa.String(length=100), nullable=True),
        sa.Column("last_name", sa.String(length=100), nullable=True),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("email_norm", sa.String(length=254), nullable=True),
        sa.Column("phone", sa.String(length=50), nullable=True),
        sa.Column("phone_norm", sa.String(length=50), nullable=True),
        sa.Column("mobile", sa.String(length=50), nullable=True),
        sa.Column("job_title", sa.String(length=100), nullable=True),
        sa.Column("department", sa.String(length=100), nullable=True),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.Column("is_primary", sa.Boolean(), nullable=False),
        sa.Column("lifecycle", sa.String(length=40), nullable=False),
        sa.Column("lead_source", sa.String(length=40), nullable=True),
        sa.Column("lead_score", sa.SmallInteger(), nullable=True),
        sa.Column("lead_score_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("do_not_contact", sa.Boolean(), nullable=False),
        sa.Column("consent_email", sa.Boolean(), nullable=False),
        sa.Column("consent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("consent_source", sa.String(length=100), nullable=True),
        sa.Column("linkedin_url", sa.String(length=2048), nullable=True),
        sa.Column("twitter_url", sa.String(length=2048), nullable=True),
        sa.Column("address", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("description", sa.String(length=10000), nullable=True),
        sa.Column("owner_user_id", sa.Uuid(), nullable=True),
        sa.Column("external_id", sa.String(length=200), nullable=True),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("last_activity_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_activity_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("merged_into_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_by_id", sa.Uuid(), nullable=True),
        postgresql.ExcludeConstraint(
            (sa.column("tenant_id"), "="),
            (sa.column("account_id"), "="),
            where=sa.text("is_primary AND archived_at IS NULL"),
            deferrable="True",
            initially="DEFERRED",
            using="btree",
            name="ex_crm_contact_primary",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "account_id"], ["account.tenant_id", "account.id"], name=op.f("fk_crm_contact_tenant_id_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "merged_into_id"],
            ["crm_contact.tenant_id", "crm_contact.id"],
            name=op.f("fk_crm_contact_tenant_id_merged_into_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "owner_user_id"],
            ["membership.tenant_id", "membership.id"],
            name=op.f("fk_crm_contact_tenant_id_owner_user_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_crm_contact_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_crm_contact")),
        sa.UniqueConstraint("tenant_id", "external_id", name=op.f("uq_crm_contact_tenant_id_external_id")),
    )
    op.protect_table("crm_contact", "tenant")
    op.create_index("ix_crm_contact_account", "crm_contact", ["tenant_id", "account_id"], unique=False)
    op.create_index("ix_crm_contact_lifecycle", "crm_contact", ["tenant_id", "lifecycle"], unique=False)
    op.create_index("ix_crm_contact_merged_into", "crm_contact", ["tenant_id", "merged_into_id"], unique=False)
    op.create_index("ix_crm_contact_name_norm", "crm_contact", ["tenant_id", "name_norm"], unique=False)
    op.create_index("ix_crm_contact_owner", "crm_contact", ["tenant_id", "owner_user_id"], unique=False)
    op.create_index("ix_crm_contact_phone_norm", "crm_contact", ["tenant_id", "phone_norm"], unique=False)
    op.create_index(
        "uq_crm_contact_email_norm",
        "crm_contact",
        ["tenant_id", "email_norm"],
        unique=True,
        postgresql_where="archived_at IS NULL",
    )
    op.create_table(
        "opportunity",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.Column("pipeline_id", sa.Uuid(), nullable=False),
        sa.Column("stage_id", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("amount_source", sa.String(length=40), nullable=False),
        sa.Column("amount_base_minor", sa.BigInteger(), nullable=True),
        sa.Column("probability", sa.SmallInteger(), nullable=False),
        sa.Column("probability_overridden", sa.Boolean(), nullable=False),
        sa.Column("weighted_minor", sa.BigInteger(), nullable=False),
        sa.Column("forecast_category", sa.String(length=40), nullable=False),
        sa.Column("expected_close_date", sa.Date(), nullable=True),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("stage_entered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("lead_source", sa.String(length=40), nullable=True),
        sa.Column("lost_reason", sa.String(length=100), nullable=True),
        sa.Column("lost_detail", sa.String(length=2000), nullable=True),
        sa.Column("competitor_account_id", sa.Uuid(), nullable=True),
        sa.Column("next_step", sa.String(length=500), nullable=True),
        sa.Column("next_step_due_on", sa.Date(), nullable=True),
        sa.Column("description", sa.String(length=10000), nullable=True),
        sa.Column("board_rank", sa.String(length=200, collation="C"), nullable=False),
        sa.Column("owner_user_id", sa.Uuid(), nullable=True),
        sa.Column("external_id", sa.String(length=200), nullable=True),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("last_activity_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_activity_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_by_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint("(status = 'OPEN') = (closed_at IS NULL)", name=op.f("ck_opportunity_closed_at_status")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "account_id"],
            ["account.tenant_id", "account.id"],
            name=op.f("fk_opportunity_tenant_id_account_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "competitor_account_id"],
            ["account.tenant_id", "account.id"],
            name=op.f("fk_opportunity_tenant_id_competitor_account_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "owner_user_id"],
            ["membership.tenant_id", "membership.id"],
            name=op.f("fk_opportunity_tenant_id_owner_user_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "pipeline_id", "stage_id"],
            ["pipeline_stage.tenant_id", "pipeline_stage.pipeline_id", "pipeline_stage.id"],
            name=op.f("fk_opportunity_tenant_id_pipeline_id_stage_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "pipeline_id"],
            ["pipeline.tenant_id", "pipeline.id"],
            name=op.f("fk_opportunity_tenant_id_pipeline_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_opportunity_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_opportunity")),
        sa.UniqueConstraint("tenant_id", "external_id", name=op.f("uq_opportunity_tenant_id_external_id")),
        sa.UniqueConstraint("tenant_id", "number", name=op.f("uq_opportunity_tenant_id_number")),
    )
    op.protect_table("opportunity", "tenant")
    op.create_index("ix_opportunity_account", "opportunity", ["tenant_id", "account_id", "status"], unique=False)
    op.create_index("ix_opportunity_closed", "opportunity", ["tenant_id", "status", "closed_at"], unique=False)
    op.create_index("ix_opportunity_competitor", "opportunity", ["tenant_id", "competitor_account_id"], unique=False)
    op.create_index(
        "ix_opportunity_due",
        "opportunity",
        ["tenant_id", "expected_close_date"],
        unique=False,
        postgresql_where="status = 'OPEN'",
    )
    op.create_index("ix_opportunity_owner", "opportunity", ["tenant_id", "owner_user_id", "status"], unique=False)
    op.create_index("ix_opportunity_stage", "opportunity", ["tenant_id", "pipeline_id", "stage_id", "board_rank"], unique=False)
    op.create_table(
        "crm_activity",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=True),
        sa.Column("description", sa.String(length=10000), nullable=True),
        sa.Column("outcome", sa.String(length=2000), nullable=True),
        sa.Column("account_id", sa.Uuid(), nullable=True),
        sa.Column("contact_id", sa.Uuid(), nullable=True),
        sa.Column("opportunity_id", sa.Uuid(), nullable=True),
        sa.Column("direction", sa.String(length=40), nullable=True),
        sa.Column("status", sa.String(length=40), nullable=False),
        sa.Column("priority", sa.String(length=40), nullable=False),
        sa.Column("scheduled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("duration_minutes", sa.Integer(), nullable=True),
        sa.Column("owner_user_id", sa.Uuid(), nullable=True),
        sa.Column("external_source", sa.String(length=100), nullable=True),
        sa.Column("external_id", sa.String(length=200), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("archived_by_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "(status = 'COMPLETED') = (completed_at IS NOT NULL)", name=op.f("ck_crm_activity_completed_at_status")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "account_id"], ["account.tenant_id", "account.id"], name=op.f("fk_crm_activity_tenant_id_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "contact_id"],
            ["crm_contact.tenant_id", "crm_contact.id"],
            name=op.f("fk_crm_activity_tenant_id_contact_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "opportunity_id"],
            ["opportunity.tenant_id", "opportunity.id"],
            name=op.f("fk_crm_activity_tenant_id_opportunity_id"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "owner_user_id"],
            ["membership.tenant_id", "membership.id"],
            name=op.f("fk_crm_activity_tenant_id_owner_user_id"),
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_crm_activity_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_crm_activity")),
        sa.UniqueConstraint(
            "tenant_id", "external_source", "external_id", name=op.f("uq_crm_activity_tenant_id_external_source_external_id")
        ),
    )
    op.protect_table("crm_activity", "tenant")
    op.create_index("ix_crm_activity_account", "crm_activity", ["tenant_id", "account_id", "status"], unique=False)
    op.create_index("ix_crm_activity_contact", "crm_activity", ["tenant_id", "contact_id", "status"], unique=False)
    op.create_index("ix_crm_activity_opportunity", "crm_activity", ["tenant_id", "opportunity_id", "status"], unique=False)
    op.create_index("ix_crm_activity_owner", "crm_activity", ["tenant_id", "owner_user_id", "status", "due_at"], unique=False)
    op.create_table(
        "opportunity_contact",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("opportunity_id", sa.Uuid(), nullable=False),
        sa.Column("contact_id", sa.Uuid(), nullable=False),
        sa.Column("role", sa.String(length=40), nullable=False),
        sa.Column("role_note", sa.String(length=200), nullable=True),
        sa.Column("is_primary", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        postgresql.ExcludeConstraint(
            (sa.column("tenant_id"), "="),
            (sa.column("opportunity_id"), "="),
            where=sa.text("is_primary"),
            deferrable="True",
            initially="DEFERRED",
            using="btree",
            name="ex_opportunity_contact_primary",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "contact_id"],
            ["crm_contact.tenant_id", "crm_contact.id"],
            name=op.f("fk_opportunity_contact_tenant_id_contact_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "opportunity_id"],
            ["opportunity.tenant_id", "opportunity.id"],
            name=op.f("fk_opportunity_contact_tenant_id_opportunity_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_opportunity_contact_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_opportunity_contact")),
        sa.UniqueConstraint(
            "tenant_id", "opportunity_id", "contact_id", name=op.f("uq_opportunity_contact_tenant_id_opportunity_id_contact_id")
        ),
    )
    op.protect_table("opportunity_contact", "tenant")
    op.create_index("ix_opportunity_contact_contact", "opportunity_contact", ["tenant_id", "contact_id"], unique=False)
    op.create_table(
        "opportunity_line_item",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("opportunity_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("product_code", sa.String(length=100), nullable=True),
        sa.Column("description", sa.String(length=2000), nullable=True),
        sa.Column("quantity", sa.Numeric(precision=12, scale=3), nullable=False),
        sa.Column("unit_price_minor", sa.BigInteger(), nullable=False),
        sa.Column("discount_percent", sa.Numeric(precision=5, scale=2), nullable=False),
        sa.Column("discount_minor", sa.BigInteger(), nullable=False),
        sa.Column("tax_percent", sa.Numeric(precision=5, scale=2), nullable=False),
        sa.Column("recurrence", sa.String(length=40), nullable=False),
        sa.Column("term_months", sa.Integer(), nullable=True),
        sa.Column("net_minor", sa.BigInteger(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_by_id", sa.Uuid(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("discount_percent BETWEEN 0 AND 100", name=op.f("ck_opportunity_line_item_discount_percent_range")),
        sa.CheckConstraint("quantity > 0", name=op.f("ck_opportunity_line_item_quantity_range")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "opportunity_id"],
            ["opportunity.tenant_id", "opportunity.id"],
            name=op.f("fk_opportunity_line_item_tenant_id_opportunity_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_opportunity_line_item_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_opportunity_line_item")),
    )
    op.protect_table("opportunity_line_item", "tenant")
    op.create_index(
        "ix_opportunity_line_item_deal", "opportunity_line_item", ["tenant_id", "opportunity_id", "position"], unique=False
    )
    op.create_table(
        "opportunity_stage_history",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("opportunity_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("from_stage_id", sa.Uuid(), nullable=True),
        sa.Column("to_stage_id", sa.Uuid(), nullable=False),
        sa.Column("from_probability", sa.SmallInteger(), nullable=True),
        sa.Column("to_probability", sa.SmallInteger(), nullable=False),
        sa.Column("amount_at", sa.BigInteger(), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("changed_by_id", sa.Uuid(), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seconds_in_previous", sa.Integer(), nullable=True),
        sa.Column("note", sa.String(length=2000), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "from_stage_id"],
            ["pipeline_stage.tenant_id", "pipeline_stage.id"],
            name=op.f("fk_opportunity_stage_history_tenant_id_from_stage_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "opportunity_id"],
            ["opportunity.tenant_id", "opportunity.id"],
            name=op.f("fk_opportunity_stage_history_tenant_id_opportunity_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "to_stage_id"],
            ["pipeline_stage.tenant_id", "pipeline_stage.id"],
            name=op.f("fk_opportunity_stage_history_tenant_id_to_stage_id"),
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name=op.f("fk_opportunity_stage_history_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_opportunity_stage_history")),
    )
    op.protect_table("opportunity_stage_history", "tenant", append_only=True)
    op.create_index(
        "ix_opportunity_stage_history_deal",
        "opportunity_stage_history",
        ["tenant_id", "opportunity_id", "changed_at"],
        unique=False,
    )
    op.create_index(
        "ix_opportunity_stage_history_from", "opportunity_stage_history", ["tenant_id", "from_stage_id"], unique=False
    )
    op.create_index(
        "ix_opportunity_stage_history_to", "opportunity_stage_history", ["tenant_id", "to_stage_id", "changed_at"], unique=False
    )


def downgrade() -> None:
    op.drop_index("ix_opportunity_stage_history_to", table_name="opportunity_stage_history")
    op.drop_index("ix_opportunity_stage_history_from", table_name="opportunity_stage_history")
    op.drop_index("ix_opportunity_stage_history_deal", table_name="opportunity_stage_history")
    op.drop_table("opportunity_stage_history")
    op.drop_index("ix_opportunity_line_item_deal", table_name="opportunity_line_item")
    op.drop_table("opportunity_line_item")
    op.drop_index("ix_opportunity_contact_contact", table_name="opportunity_contact")
    op.drop_table("opportunity_contact")
    op.drop_index("ix_crm_activity_owner", table_name="crm_activity")
    op.drop_index("ix_crm_activity_opportunity", table_name="crm_activity")
    op.drop_index("ix_crm_activity_contact", table_name="crm_activity")
    op.drop_index("ix_crm_activity_account", table_name="crm_activity")
    op.drop_table("crm_activity")
    op.drop_index("ix_opportunity_stage", table_name="opportunity")
    op.drop_index("ix_opportunity_owner", table_name="opportunity")
    op.drop_index("ix_opportunity_due", table_name="opportunity", postgresql_where="status = 'OPEN'")
    op.drop_index("ix_opportunity_competitor", table_name="opportunity")
    op.drop_index("ix_opportunity_closed", table_name="opportunity")
    op.drop_index("ix_opportunity_account", table_name="opportunity")
    op.drop_table("opportunity")
    op.drop_index("uq_crm_contact_email_norm", table_name="crm_contact", postgresql_where="archived_at IS NULL")
    op.drop_index("ix_crm_contact_phone_norm", table_name="crm_contact")
    op.drop_index("ix_crm_contact_owner", table_name="crm_contact")
    op.drop_index("ix_crm_contact_name_norm", table_name="crm_contact")
    op.drop_index("ix_crm_contact_merged_into", table_name="crm_contact")
    op.drop_index("ix_crm_contact_lifecycle", table_name="crm_contact")
    op.drop_index("ix_crm_contact_account", table_name="crm_contact")
    op.drop_table("crm_contact")
    op.drop_table("pipeline_stage")
    op.drop_index("ix_account_type", table_name="account")
    op.drop_index("ix_account_phone_norm", table_name="account")
    op.drop_index("ix_account_parent", table_name="account")
    op.drop_index("ix_account_owner", table_name="account")
    op.drop_index("ix_account_name_norm", table_name="account")
    op.drop_index("ix_account_merged_into", table_name="account")
    op.drop_index("ix_account_domain_norm", table_name="account")
    op.drop_table("account")
    op.drop_table("verified_domain")
    op.drop_index("ix_user_session_user", table_name="user_session")
    op.drop_table("user_session")
    op.drop_index("ix_tenant_domain_domain", table_name="tenant_domain")
    op.drop_table("tenant_domain")
    op.drop_table("tenant_counter")
    op.drop_table("service_key_grant")
    op.drop_table("platform_audit")
    op.drop_index("uq_pipeline_default", table_name="pipeline", postgresql_where="is_default")
    op.drop_table("pipeline")
    op.drop_index("ix_outbox_event_waiting", table_name="outbox_event", postgresql_where="dispatched_at IS NULL")
    op.drop_table("outbox_event")
    op.drop_index("ix_merge_log_target", table_name="merge_log")
    op.drop_table("merge_log")
    op.drop_index("ix_membership_person", table_name="membership")
    op.drop_table("membership")
    op.drop_index("ix_job_waiting", table_name="job", postgresql_where="dispatched_at IS NULL")
    op.drop_index("ix_job_status", table_name="job")
    op.drop_table("job")
    op.drop_index(
        "uq_invitation_tenant_id_email_norm",
        table_name="invitation",
        postgresql_where="accepted_at IS NULL AND archived_at IS NULL",
    )
    op.drop_index("ix_invitation_token", table_name="invitation")
    op.drop_table("invitation")
    op.drop_index("ix_import_batch_started", table_name="import_batch")
    op.drop_table("import_batch")
    op.drop_table("idempotency_key")
    op.drop_table("exchange_rate")
    op.drop_index("ix_audit_entry_entity", table_name="audit_entry")
    op.drop_index("ix_audit_entry_created", table_name="audit_entry")
    op.drop_index("ix_audit_entry_batch", table_name="audit_entry", postgresql_where="batch_id IS NOT NULL")
    op.drop_table("audit_entry")
    op.drop_index("ix_api_key_member", table_name="api_key")
    op.drop_index("ix_api_key_key_id", table_name="api_key")
    op.drop_table("api_key")
    op.drop_table("tenant")
    op.drop_table("service_key")
    op.drop_table("login_attempt")
    op.drop_table("app_user")
