"""What is done in the CRM, one file per thing it is done to. `provision` prepares a new tenant."""

from rowhouse.modules.crm.actions.pipelines import provision

__all__ = ["provision"]
