"""Bytes to text: which encoding a file is in, and whether it is text at all.

Knows nothing of formats.
"""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes
from charset_normalizer.constant import IANA_SUPPORTED

from services.retrieval.ingest.document import unreadable

__all__ = ["decode"]

# The longer ones first: UTF-32's mark begins with UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")
_MAX_CONTROL_SHARE = 0.002
_SAMPLE_BYTES = 64 * 1024  # of which the encoding is guessed
_SURE = 0.1  # coherence of letters with those of a language, by charset-normalizer
# Encodings of old machines, which explain anything; UTF-16 and 32 have a mark or are not meant.
_NEVER_GUESSED = [
    name
    for name in IANA_SUPPORTED
    if name.startswith(("mac_", "hp_", "utf_16", "utf_32"))
    or name in ("cp037", "cp424", "cp437", "cp500", "cp1006", "cp1026", "cp1140", "ptcp154")
]
_ASCII_LETTER = re.compile(rb"[A-Za-z]")
_FOREIGN = re.compile(rb"[\x80-\xff]")
_LONGEST_CHARACTER = 4  # bytes, in UTF-8


def decode(data: bytes, max_characters: int, declared: str | None = None) -> str:
    """The text of a file, without a byte order mark; line ends stay as they are.

    By the byte order mark, else UTF-8, else the `declared` encoding, else a guess that
    charset-normalizer is sure of. Raises `InvalidRequest` when the file is empty, binary, or too
    long.
    """
    text = _decode(data, declared)
    if len(text) > max_characters:
        raise unreadable(f"the file has {len(text)} characters; expected at most {max_characters}")
    if not text.strip():
        raise unreadable("the file is empty")
    if "\0" in text or len(_CONTROL.findall(text)) > _MAX_CONTROL_SHARE * len(text):
        raise unreadable("the file is binary, not text")
    return text


def _decode(data: bytes, declared: str | None) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _strictly(data[len(mark) :], encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise unreadable("the file is binary, not text") from None
        if _is_cut_short(data, error):
            raise unreadable("the file is cut off in the middle of a character") from None
        first_foreign = error.start
    if declared is not None and _is_known(declared):
        return _strictly(data, declared)
    return _strictly(data, _guess(data, first_foreign))


def _is_cut_short(data: bytes, error: UnicodeDecodeError) -> bool:
    """Whether all is UTF-8, and not just ASCII, but for the last bytes."""
    is_at_end = len(data) - error.start < _LONGEST_CHARACTER
    is_unfinished = error.reason == "unexpected end of data"
    return is_at_end and is_unfinished and not data[: error.start].isascii()


def _strictly(data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
        text.encode("utf-8")  # a decoder may let lone surrogates through
    except UnicodeError:
        raise unreadable(f"the file begins as {encoding} text but is broken") from None
    return text


def _is_known(encoding: str) -> bool:
    try:
        return codecs.lookup(encoding)._is_text_encoding
    except LookupError:
        return False


def _guess(data: bytes, first_foreign: int) -> str:
    """The encoding of what is no UTF-8, from a sample around its first foreign byte."""
    start = max(0, first_foreign - _SAMPLE_BYTES // 2)
    start = data.find(b"\n", start, first_foreign) + 1 or start
    end = start + _SAMPLE_BYTES
    if end < len(data):
        end = data.rfind(b"\n", first_foreign, end) + 1 or end
    sample = data[start:end]
    best = from_bytes(sample, cp_exclusion=_NEVER_GUESSED).best()
    if best is None:
        raise unreadable("the file is binary, or text in an unknown encoding")
    if best.coherence < _SURE and _looks_western(sample):
        return "cp1252"
    return best.encoding


def _looks_western(sample: bytes) -> bool:
    """Whether it is ASCII letters with a few others between, and possible in Windows-1252."""
    try:
        sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    return len(_FOREIGN.findall(sample)) <= len(_ASCII_LETTER.findall(sample))
