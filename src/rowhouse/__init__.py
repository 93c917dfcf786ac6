"""Rowhouse: a multi-tenant AI CRM platform on Partywall."""

__version__ = "0.1.0"
