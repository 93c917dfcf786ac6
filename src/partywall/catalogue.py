"""What `verify` asks the catalogue: each rule is one query for what breaks it.

A rule gives a table's oid or 0, the name that an exemption may match or NULL, and a message. It may use `:scoped` (oids of
the tenant tables), `:roles` (names of the three) and `:app`. The f-strings put together constants only.
"""

from __future__ import annotations

from partywall.tables import TENANT_COLUMN

_OURS = "n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'"
_IS_TENANT = f"SELECT FROM pg_attribute a WHERE a.attname = '{TENANT_COLUMN}' AND a.attrelid"
_KEY = "SELECT indrelid, NULL, indexrelid::regclass || ' does not start with the tenant' FROM pg_index WHERE"
_LED = f"EXISTS ({_IS_TENANT} = indrelid AND a.attnum = indkey[0])"
_FOREIGN = "SELECT conrelid, NULL, conname ||"
_OF_FOREIGN = "FROM pg_constraint WHERE contype = 'f' AND conrelid = ANY (:scoped) AND"
_ROLE = "FROM pg_roles r WHERE rolname = ANY (:roles) AND"

# A table of another schema than public is written with it, so that it is undeclared unless a pattern says why.
RELATIONS = f"""
SELECT c.oid, CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname AS name, c.relkind::text AS kind,
       coalesce(c.reloptions::text ~ 'security_invoker=(true|on|1)', false) AS invoker
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE relkind NOT IN ('i', 'I', 't', 'c') AND {_OURS} ORDER BY 2"""  # noqa: S608

POLICIES = """
SELECT polrelid AS table, polname AS name, polcmd::text AS command, polpermissive AS permissive,
       ARRAY(SELECT CASE r WHEN 0 THEN 'public' ELSE pg_get_userbyid(r)::text END FROM unnest(polroles) r) AS roles,
       pg_get_expr(polqual, polrelid) AS uses, pg_get_expr(polwithcheck, polrelid) AS checks FROM pg_policy"""

GRANTS = """
SELECT held.table, held.column, a.privilege_type AS privilege,
       CASE a.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(a.grantee)::text END AS grantee
FROM (SELECT oid AS table, '' AS column, relowner AS owner, relacl AS acl FROM pg_class
      UNION ALL SELECT c.oid, t.attname, c.relowner, t.attacl FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid) held,
     aclexplode(held.acl) a WHERE a.grantee <> held.owner"""

RULES = {
    "tenant_column": f"""
        SELECT t, NULL, '{TENANT_COLUMN} uuid NOT NULL is missing' FROM unnest(:scoped) t
        WHERE NOT EXISTS ({_IS_TENANT} = t AND a.attnotnull AND a.atttypid = 'uuid'::regtype)""",  # noqa: S608
    "primary_key": f"""
        {_KEY} indisprimary AND indrelid = ANY (:scoped) AND NOT {_LED}
        UNION ALL SELECT t, NULL, 'there is no primary key' FROM unnest(:scoped) t
        WHERE NOT EXISTS (SELECT FROM pg_index WHERE indrelid = t AND indisprimary)""",  # noqa: S608
    "unique_key": f"""
        {_KEY} (indisunique OR indisexclusion) AND NOT indisprimary AND indrelid = ANY (:scoped) AND NOT {_LED}""",
    "foreign_key": f"""
        {_FOREIGN} ' to ' || confrelid::regclass || ' does not carry the tenant' {_OF_FOREIGN}
            confrelid = ANY (:scoped) AND NOT EXISTS (
            SELECT FROM unnest(conkey, confkey) AS k (here, there) WHERE EXISTS ({_IS_TENANT} = conrelid AND a.attnum = here)
            AND EXISTS ({_IS_TENANT} = confrelid AND a.attnum = there))""",
    "foreign_key_action": f"""
        {_FOREIGN} ' uses SET NULL or SET DEFAULT, which clears the tenant' {_OF_FOREIGN}
            (confdeltype IN ('n', 'd') OR confupdtype IN ('n', 'd'))""",
    "foreign_key_not_valid": f"""
        {_FOREIGN} ' was never validated, so old rows may break it' {_OF_FOREIGN} NOT convalidated""",
    "row_security": """
        SELECT oid, NULL, 'row-level security is not both enabled and forced'
        FROM pg_class WHERE oid = ANY (:scoped) AND NOT (relrowsecurity AND relforcerowsecurity)""",
    "role_setting": """
        SELECT 0, NULL, 'a default of ' || coalesce(r.rolname, 'the database') || ' sets ' || c
        FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
        WHERE (r.rolname = ANY (:roles) OR s.setrole = 0)
            AND s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
            AND c ~ '^(app[.]|row_security=|role=|session_authorization=|search_path=)'""",
    "trigger": """
        SELECT tgrelid, NULL, 'trigger ' || tgname || ' runs beside every statement'
        FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = ANY (:scoped)
        UNION ALL SELECT ev_class, NULL, 'rule ' || rulename || ' rewrites statements'
        FROM pg_rewrite WHERE ev_class = ANY (:scoped)""",
    "security_definer": f"""
        SELECT 0, proname::text, 'routine ' || proname || ' runs as its owner'
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prosecdef AND {_OURS}""",  # noqa: S608
    "set_config": """
        SELECT 0, 'set_config', :app || ' may call set_config and so switch tenants' FROM pg_roles
        WHERE rolname = :app AND has_function_privilege(oid, 'pg_catalog.set_config(text, text, boolean)', 'EXECUTE')""",
    "role": f"""
        SELECT 0, NULL, 'role ' || name || ' does not exist' FROM unnest(CAST(:roles AS text[])) name
        WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
        UNION ALL SELECT 0, NULL, 'role ' || rolname || ' is superuser or has BYPASSRLS, REPLICATION or a CREATE right' {_ROLE}
            (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)""",  # noqa: S608
    "role_owns": f"""
        SELECT 0, NULL, 'role ' || rolname || ' owns objects' {_ROLE} EXISTS (
            SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = r.oid AND deptype = 'o')""",  # noqa: S608
    "role_member": f"""
        SELECT 0, NULL, 'role ' || rolname || ' is a member of another role' {_ROLE} EXISTS (
            SELECT FROM pg_auth_members WHERE member = r.oid)""",  # noqa: S608
    "role_creates": f"""
        SELECT 0, NULL, 'role ' || rolname || ' may create what shadows a table' {_ROLE} (
            has_database_privilege(r.oid, current_database(), 'CREATE, TEMP')
            OR EXISTS (SELECT FROM pg_namespace n WHERE {_OURS} AND has_schema_privilege(r.oid, n.oid, 'CREATE')))""",  # noqa: S608
}
