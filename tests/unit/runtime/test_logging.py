"""How a log line looks."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from services.runtime.logging import configure_logging


@pytest.fixture(autouse=True)
def _restored_logger() -> Iterator[None]:
    logger = logging.getLogger("orrery")
    before = (logger.handlers, logger.level, logger.propagate)
    yield
    logger.handlers, logger.level, logger.propagate = before


def test_json_line_has_event_level_logger_and_extra() -> None:
    stream = io.StringIO()
    configure_logging("INFO", "json", stream)
    logging.getLogger("orrery.rpc").info("rpc", extra={"request_id": "r-1"})
    line = json.loads(stream.getvalue())
    assert line["event"] == "rpc"
    assert line["level"] == "info"
    assert line["logger"] == "orrery.rpc"
    assert line["request_id"] == "r-1"
    assert line["timestamp"].endswith("Z")


def test_json_line_of_an_exception_holds_its_traceback() -> None:
    stream = io.StringIO()
    configure_logging("INFO", "json", stream)
    logging.getLogger("orrery.x").error("failed", exc_info=ValueError("why"))
    assert "ValueError: why" in json.loads(stream.getvalue())["exception"]


def test_level_drops_what_is_below_and_repeating_does_not_double() -> None:
    stream = io.StringIO()
    configure_logging("WARNING", "text", stream)
    configure_logging("WARNING", "text", stream)
    logging.getLogger("orrery.x").info("quiet")
    logging.getLogger("orrery.x").warning("loud")
    assert stream.getvalue().count("loud") == 1
    assert "quiet" not in stream.getvalue()
