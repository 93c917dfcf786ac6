"""The closed sets of words of the CRM: each is stored as text and checked by the database."""

from __future__ import annotations

from enum import StrEnum


class AccountType(StrEnum):
    """What a company is to us."""

    PROSPECT = "PROSPECT"
    CUSTOMER = "CUSTOMER"
    PARTNER = "PARTNER"
    COMPETITOR = "COMPETITOR"
    CHURNED = "CHURNED"
    OTHER = "OTHER"


class EmployeeBand(StrEnum):
    """How many people work there: 1, 2-9, 10-49, 50-249, 250-999, 1,000 and more."""

    SOLO = "SOLO"
    MICRO = "MICRO"
    SMALL = "SMALL"
    MEDIUM = "MEDIUM"
    LARGE = "LARGE"
    ENTERPRISE = "ENTERPRISE"


class Lifecycle(StrEnum):
    """How far a person has come, earliest first."""

    LEAD = "LEAD"
    MQL = "MQL"
    SQL = "SQL"
    OPPORTUNITY = "OPPORTUNITY"
    CUSTOMER = "CUSTOMER"
    EVANGELIST = "EVANGELIST"
    CHURNED = "CHURNED"


class LeadSource(StrEnum):
    """Where a person or a deal came from."""

    WEBSITE = "WEBSITE"
    REFERRAL = "REFERRAL"
    LINKEDIN = "LINKEDIN"
    COLD_CALL = "COLD_CALL"
    COLD_EMAIL = "COLD_EMAIL"
    EVENT = "EVENT"
    PARTNER = "PARTNER"
    INBOUND = "INBOUND"
    OUTBOUND = "OUTBOUND"
    OTHER = "OTHER"


class StageType(StrEnum):
    """What standing in a stage means for a deal; a deal's status has the same values."""

    OPEN = "OPEN"
    WON = "WON"
    LOST = "LOST"


class ForecastCategory(StrEnum):
    """How sure a deal is, for the forecast."""

    OMITTED = "OMITTED"
    PIPELINE = "PIPELINE"
    BEST_CASE = "BEST_CASE"
    COMMIT = "COMMIT"
    CLOSED = "CLOSED"


class AmountSource(StrEnum):
    """Who says what a deal is worth: a person, or its lines."""

    MANUAL = "MANUAL"
    LINE_ITEMS = "LINE_ITEMS"


class ContactRole(StrEnum):
    """What a person is in a deal."""

    DECISION_MAKER = "DECISION_MAKER"
    ECONOMIC_BUYER = "ECONOMIC_BUYER"
    CHAMPION = "CHAMPION"
    INFLUENCER = "INFLUENCER"
    EVALUATOR = "EVALUATOR"
    BLOCKER = "BLOCKER"
    USER = "USER"
    OTHER = "OTHER"


class Recurrence(StrEnum):
    """How often a line is charged."""

    ONE_TIME = "ONE_TIME"
    MONTHLY = "MONTHLY"
    QUARTERLY = "QUARTERLY"
    YEARLY = "YEARLY"


class StageChange(StrEnum):
    """What a line of a deal's history tells."""

    CREATED = "CREATED"
    MOVED = "MOVED"
    WON = "WON"
    LOST = "LOST"
    REOPENED = "REOPENED"
    PIPELINE_CHANGED = "PIPELINE_CHANGED"


class ActivityType(StrEnum):
    """What was or will be done."""

    CALL = "CALL"
    EMAIL = "EMAIL"
    MEETING = "MEETING"
    TASK = "TASK"
    NOTE = "NOTE"
    SMS = "SMS"
    LINKEDIN_MESSAGE = "LINKEDIN_MESSAGE"
    CHAT = "CHAT"
    DEMO = "DEMO"
    PROPOSAL = "PROPOSAL"
    CONTRACT = "CONTRACT"
    OTHER = "OTHER"


class ActivityStatus(StrEnum):
    """Where an activity stands."""

    PLANNED = "PLANNED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    NO_SHOW = "NO_SHOW"


class Direction(StrEnum):
    """Who began it: they or we."""

    INBOUND = "INBOUND"
    OUTBOUND = "OUTBOUND"


class Priority(StrEnum):
    """How pressing an activity is."""

    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"
    URGENT = "URGENT"


class MergedKind(StrEnum):
    """What was merged."""

    ACCOUNT = "ACCOUNT"
    CONTACT = "CONTACT"
