"""Sets up the standard library's logging for one process: JSON lines, or text for people.

Modules log with `logging.getLogger(...)` and put what varies into `extra`; nothing else decides
how a line looks. Prompts, completions and keys are never logged.
"""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

import structlog

__all__ = ["LogFormat", "configure_logging"]

LogFormat = Literal["json", "text"]


def configure_logging(level: str, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Routes the `orrery` loggers to one stream (default: standard error). Repeatable."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False)
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.ExtraAdder(),
        ],
    )
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger("orrery")
    logger.handlers = [handler]
    logger.setLevel(level)
    # Ray's own handlers on the root logger would print each line a second time.
    logger.propagate = False
