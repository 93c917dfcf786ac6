"""What the CRM can tell: each report reads at most three statements, whatever the size of the workspace."""
