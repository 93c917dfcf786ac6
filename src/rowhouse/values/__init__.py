"""Pure functions over plain values: no tenant, no session, no clock."""
