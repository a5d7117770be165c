"""Logs of the daemons: text on a terminal, JSON elsewhere."""

from __future__ import annotations

import os
import sys

import structlog

LEVELS = ("debug", "info", "warning", "error")


def configure_log(*extra: structlog.typing.Processor) -> None:
    """Set up structlog once, at start. `extra` processors see each event before it is rendered.

    BAYPLAN_LOG names the level: debug, info (default), warning, error. Exits with words on another.
    """
    level = os.environ.get("BAYPLAN_LOG") or "info"
    if level not in LEVELS:
        sys.exit(f"BAYPLAN_LOG is {level!r}, not one of {', '.join(LEVELS)}")
    is_terminal = sys.stdout.isatty()
    rendering: list[structlog.typing.Processor] = (
        # Its own way of showing an exception prints local variables, passwords among them.
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if is_terminal
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *extra,
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
