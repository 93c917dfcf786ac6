"""Structured logs: one JSON object a line, with request id and tenant; readable lines on a terminal when asked."""

from __future__ import annotations

import logging
import sys

import structlog

from rowhouse.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Set up logging for the whole process, on standard error."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    # Local variables of a traceback hold credentials and other people's records; they are never written.
    tracebacks = structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False))
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if settings.log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([tracebacks] if settings.log_format == "json" else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(level, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
