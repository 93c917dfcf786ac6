"""People and workspaces: tenants, memberships, domains, sessions, keys, and the look-ups that place a request.

The identity role alone reads people, sessions and tenants. Memberships, invitations, domains and personal keys belong
to a tenant: they carry the policy like every other tenant table, and the identity role reads them before a tenant is
known. A tenant's own session sees the name and address its members bear there, never the people table.
"""
