"""Rows and objects as records: small documents with a title, a text and metadata of their own.

Shared by CSV, JSONL and JSON. A record's text is its member `text` or `content`; where it has
neither, a line `name: value` for each member.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from services.retrieval.ingest.document import BlockKind, ParseLimits, Stopwatch, unreadable
from services.retrieval.ingest.extracted import TextBuilder, clean
from services.retrieval.ingest.values import filterable

__all__ = ["RecordBuilder"]

_LONGEST_PREFIX = 256  # characters of the names of objects in objects
_TITLES = ("title", "name")
_TEXTS = ("text", "content")


class RecordBuilder:
    """Adds records to a document, one block each."""

    def __init__(self, limits: ParseLimits) -> None:
        self.text = TextBuilder(limits)
        self._limits = limits
        self._stopwatch = Stopwatch(limits.max_seconds)

    def add(self, members: Mapping[str, object], lines: tuple[int, int]) -> None:
        """Adds a record, by the names of its members. Raises `InvalidRequest`."""
        self._stopwatch.check()
        members = _flat(members)
        if len(members) > self._limits.max_fields:
            raise unreadable(
                f"line {lines[0]}: {len(members)} fields; expected at most "
                f"{self._limits.max_fields}"
            )
        title = _member(members, _TITLES)
        text = _member(members, _TEXTS)
        body = "" if text is None else str(members[text])
        rest = {
            clean(name): _cleaned(value)
            for name, value in members.items()
            if value is not None and value != "" and name not in (title, text)
        }
        metadata, others = filterable(rest)
        shown = rest if text is None else others
        described = [f"{name}: {_shown(rest[name])}" for name in shown]
        name = "" if title is None else " ".join(str(members[title]).split())
        self.text.add(
            BlockKind.RECORD,
            "\n".join(filter(None, [body.strip(), *described])) or name,
            title=name,
            lines=lines,
            metadata=metadata,
        )


def _member(members: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    """The first member called one of `names`, in any case, that has a text in it."""
    for wanted in names:
        for name, value in members.items():
            if name.strip().lower() == wanted and isinstance(value, str) and value.strip():
                return name
    return None


def _flat(members: Mapping[str, object]) -> dict[str, object]:
    """The members of objects inside as `outer.inner`."""
    flat: dict[str, object] = {}
    pending = [("", members)]
    while pending:
        prefix, inner = pending.pop()
        for name, value in inner.items():
            if isinstance(value, dict) and value and len(prefix) < _LONGEST_PREFIX:
                pending.append((f"{prefix}{name}.", value))
            else:
                flat[f"{prefix}{name}"] = value
    return flat


def _cleaned(value: object) -> object:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean(item) if isinstance(item, str) else item for item in value]
    return value


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)
