"""Reads a file, whatever its format, into text and structure.

The format is found by `detection.py`; its module in `formats/` does the work.
"""

from __future__ import annotations

from services.retrieval.ingest.document import ParsedDocument, ParseLimits

__all__ = ["parse"]


def parse(
    data: bytes, file_name: str, media_type: str = "", limits: ParseLimits | None = None
) -> ParsedDocument:
    """Reads `data`. The name's ending and `media_type` say what it is; clear content overrules.

    Raises `InvalidRequest` (field "file") whose message names what is wrong: the file is empty, too
    large, binary, encrypted, broken, a bomb, or of no format that is read.
    """
    raise NotImplementedError
