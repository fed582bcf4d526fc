"""Documents as a caller hands them over: a text, a file's bytes, a path, or chunks of one's own.

Knows nothing of protobuf. A path is read when its turn comes, not before.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from orrery.results import MetadataValue

__all__ = ["Document", "DocumentChunk", "DocumentSource", "MetadataInput", "as_document"]

MetadataInput: TypeAlias = Mapping[str, MetadataValue | Sequence[str]]
"""Values that can be filtered by: texts, numbers, bools, lists of texts."""


@dataclass(frozen=True, slots=True)
class DocumentChunk:
    """A chunk that the caller made.

    Attributes:
        vector: Required in a collection without an embedding model, refused in one that has it.
        start: Its first character in the caller's source; by default the chunks stand one after
            another.
    """

    text: str
    vector: Sequence[float] | None = None
    start: int | None = None
    metadata: MetadataInput = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """A document to be put into a collection, where it replaces the one with the same id.

    Attributes:
        id: Chosen by the caller, 1 to 512 bytes.
        content: A text; a file's bytes; the path of a file; or chunks.
        title: By default what the file itself says, or its name.
        metadata: Can be filtered by; every chunk inherits it.
        file_name: Its ending says how bytes are read; by default the last part of the path or id.
        media_type: The same, where the name does not tell.
    """

    id: str
    content: str | bytes | os.PathLike[str] | Sequence[DocumentChunk]
    title: str = ""
    metadata: MetadataInput = field(default_factory=dict)
    file_name: str = ""
    media_type: str = ""


DocumentSource: TypeAlias = Document | os.PathLike[str]
"""A document, or the path of a file, which is then also its id."""


def as_document(source: DocumentSource) -> Document:
    """The document that a caller means.

    Raises:
        TypeError: It is neither a document nor a path.
    """
    if isinstance(source, Document):
        return source
    if isinstance(source, os.PathLike):
        return Document(Path(source).as_posix(), source)
    raise TypeError(
        f"documents: expected Document or a path, got {type(source).__name__} "
        "(a text or bytes need an id: Document(id, content))"
    )
