"""CRM core."""
