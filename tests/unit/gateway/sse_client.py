"""Reads an event stream the way the specification says, for assertions."""

from __future__ import annotations

import json
from typing import Any

DONE = "[DONE]"


def events_of(text: str) -> list[Any]:
    """The data of each event, parsed; `[DONE]` stays as it is."""
    assert text.endswith("\n\n")
    events = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        assert block.startswith("data: ")
        data = block.removeprefix("data: ")
        assert "\n" not in data
        events.append(data if data == DONE else json.loads(data))
    return events


def text_of(chunks: list[Any], index: int = 0) -> str:
    """The text of one choice of a streamed completion or chat."""
    pieces = [
        choice["text"] if "text" in choice else choice["delta"].get("content", "")
        for chunk in chunks
        if chunk != DONE
        for choice in chunk["choices"]
        if choice["index"] == index
    ]
    return "".join(pieces)
