"""The load itself: rows made inside the database, secondary indexes built after them, and what a run adds taken out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from bench.datasets import Caller

_TABLES = ("account", "crm_contact")
# Words of three syllables, frequent ones first: about 8,000, chosen with a steep preference like words of a language.
_SYLLABLES = "ba bel cor dan del fen gar hol in jor kal lim mar nor ol pra quin ros sal tor ul ver wes yar zen ar bri cas do el"
_INDUSTRIES = "Software,Retail,Logistics,Healthcare,Energy,Finance,Education,Construction,Media,Agriculture"
_WORD = "(s[1 + n %% 20] || s[1 + n / 20 %% 20] || s[1 + n / 400 %% 20])"
_NUMBER = "floor(8000 * random() ^ 3)::int"

_ACCOUNTS = f"""
INSERT INTO account (tenant_id, id, name, name_norm, type, website, domain_norm, phone, phone_norm, industry,
                     owner_user_id, tags, health_score, created_at, created_by_id, updated_at, updated_by_id, version)
SELECT t.id, uuidv7(-g * interval '1 minute'), x.name, lower(x.name),
       (ARRAY['PROSPECT', 'CUSTOMER', 'PROSPECT', 'PROSPECT'])[1 + g %% 4],
       'https://www.' || x.domain, x.domain, '+49 30 ' || (1000000 + g), '+4930' || (1000000 + g),
       (string_to_array('{_INDUSTRIES}', ','))[1 + g %% 10], m.id, '{{}}', g %% 101,
       now() - g * interval '1 minute', m.id, now() - g * interval '1 minute', m.id, 1
FROM tenant t JOIN membership m ON m.tenant_id = t.id
CROSS JOIN LATERAL (SELECT g, string_to_array('{_SYLLABLES}', ' ') AS s, {_NUMBER} AS n, {_NUMBER} AS o
                    FROM generate_series(%(rows)s::int, 1, -1) g WHERE t.id IS NOT NULL) r
CROSS JOIN LATERAL (SELECT initcap({_WORD}) || ' ' || initcap({_WORD.replace("n", "o")})
                           || (ARRAY[' Group', ' Ltd', ' Group', ' Works'])[1 + g %% 4] AS name,
                           {_WORD} || g || '.example' AS domain) x
WHERE t.slug ~ ('^' || %(prefix)s || '[0-9]+$')"""

_CONTACTS = f"""
INSERT INTO crm_contact (tenant_id, id, name, name_norm, first_name, last_name, email, email_norm, phone, phone_norm,
                         job_title, is_primary, lifecycle, do_not_contact, consent_email, owner_user_id, tags,
                         created_at, created_by_id, updated_at, updated_by_id, version)
SELECT t.id, uuidv7(-g * interval '1 minute'), x.first || ' ' || x.last, lower(x.first || ' ' || x.last), x.first, x.last,
       x.email, x.email, '+49 40 ' || (1000000 + g), '+4940' || (1000000 + g), 'Director of Operations',
       false, 'LEAD', false, false, m.id, '{{}}',
       now() - g * interval '1 minute', m.id, now() - g * interval '1 minute', m.id, 1
FROM tenant t JOIN membership m ON m.tenant_id = t.id
CROSS JOIN LATERAL (SELECT g, string_to_array('{_SYLLABLES}', ' ') AS s, {_NUMBER} AS n, {_NUMBER} AS o
                    FROM generate_series(%(rows)s::int, 1, -1) g WHERE t.id IS NOT NULL) r
CROSS JOIN LATERAL (SELECT initcap({_WORD}) AS first, initcap({_WORD.replace("n", "o")}) AS last,
                           {_WORD} || g || '@' || {_WORD.replace("n", "o")} || '.example' AS email) x
WHERE t.slug ~ ('^' || %(prefix)s || '[0-9]+$')"""


def begin(connection: psycopg.Connection[Any]) -> None:
    """Prepare a session for loading: no checks of foreign keys, no secondary indexes."""
    connection.execute("SET session_replication_role = replica")
    connection.execute("SET synchronous_commit = off")
    connection.execute("SET maintenance_work_mem = '1GB'")
    connection.execute("SELECT setseed(0.42)")
    connection.execute("CREATE TEMP TABLE later (statement text)")
    for name, table, definition, constraint in connection.execute(_SECONDARY, [list(_TABLES)]).fetchall():
        if constraint:
            connection.execute(f'ALTER TABLE "{table}" DROP CONSTRAINT "{name}"')
            definition = f'ALTER TABLE "{table}" ADD CONSTRAINT "{name}" {constraint}'
        else:
            connection.execute(f'DROP INDEX "{name}"')
        connection.execute("INSERT INTO later VALUES (%s)", [definition])


def add_workspaces(connection: psycopg.Connection[Any], found: Sequence[Caller]) -> None:
    """Add tenants, each with one member and one key, as the product's own commands write them."""
    now = datetime.now(UTC)
    stamps = (now, now, 1)
    with connection.transaction(), connection.cursor() as cursor:
        _copy(
            cursor,
            "tenant (id, slug, name, status, timezone, currency, open_edit, created_at)",
            [(c.tenant_id, c.slug, c.slug.title(), "ACTIVE", "UTC", "USD", True, now) for c in found],
        )
        _copy(
            cursor,
            "app_user (id, email, email_norm, name, status, failed_count, created_at)",
            [(c.member_id, *[f"member@{c.slug}.example"] * 2, "Member", "ACTIVE", 0, now) for c in found],
        )
        _copy(
            cursor,
            "membership (tenant_id, id, name, email, role, capabilities, created_at, updated_at, version)",
            [(c.tenant_id, c.member_id, "Member", f"member@{c.slug}.example", "MEMBER", [], *stamps) for c in found],
        )
        _copy(
            cursor,
            "api_key (tenant_id, id, key_id, secret_hash, name, scopes, member_id, expires_at, created_at, updated_at, version)",
            [
                (c.tenant_id, c.member_id, *c.key_row, "bench", ["*"], c.member_id, now + timedelta(days=365), *stamps)
                for c in found
            ],
        )


def add_rows(connection: psycopg.Connection[Any], prefix: str, *, accounts: int, contacts: int) -> None:
    """Add as many accounts and contacts to each workspace of a group, a minute apart, the newest last."""
    for statement, rows in ((_ACCOUNTS, accounts), (_CONTACTS, contacts)):
        if rows:
            connection.execute(statement, {"rows": rows, "prefix": prefix})


def end(connection: psycopg.Connection[Any]) -> None:
    """Build the indexes and the statistics, and write everything to disk."""
    for (statement,) in connection.execute("SELECT statement FROM later").fetchall():
        connection.execute(statement)
    connection.execute("CREATE TABLE bench_loaded AS SELECT now() AS at")
    connection.execute("VACUUM (ANALYZE)")
    connection.execute("CHECKPOINT")


def is_changed(connection: psycopg.Connection[Any]) -> bool:
    """Return whether anything was written since the load; each write leaves an entry in the audit log."""
    row = connection.execute("SELECT EXISTS (SELECT FROM audit_entry)").fetchone()
    return bool(row and row[0])


def remove_created(connection: psycopg.Connection[Any]) -> None:
    """Delete what came after the load, and tidy the tables it came to."""
    connection.execute("SET session_replication_role = replica")
    tables = connection.execute(_WRITTEN).fetchall()
    for (table,) in tables:
        connection.execute(f'DELETE FROM "{table}" WHERE uuid_extract_timestamp(id) > (SELECT at FROM bench_loaded)')
    for (table,) in tables:
        connection.execute(f'VACUUM (ANALYZE) "{table}"')


def _copy(cursor: psycopg.Cursor[Any], target: str, rows: Sequence[tuple[Any, ...]]) -> None:
    with cursor.copy(f"COPY {target} FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


_SECONDARY = """
SELECT i.relname, t.relname, pg_get_indexdef(i.oid), pg_get_constraintdef(c.oid)
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
LEFT JOIN pg_constraint c ON c.conindid = i.oid AND c.contype IN ('u', 'x')
WHERE NOT x.indisprimary AND t.relname = ANY(%s) ORDER BY i.relname"""

# The tables a create writes to; ids are UUIDv7, so each says when its row came.
_WRITTEN = """
SELECT table_name FROM information_schema.columns
WHERE column_name = 'id' AND table_schema = 'public'
AND table_name IN ('account', 'crm_contact', 'audit_entry', 'outbox_event', 'search_posting') ORDER BY 1"""
