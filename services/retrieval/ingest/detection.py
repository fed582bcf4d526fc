"""Which format a file has, by its media type, its name's ending, and what it begins with.

The first bytes overrule the name where they are unmistakable. Knows nothing of how formats are
read.
"""

from __future__ import annotations

import io
import re
import zipfile
from enum import StrEnum

from services.retrieval.ingest.document import unreadable

__all__ = ["Format", "detect", "media_type_of"]


class Format(StrEnum):
    TEXT = "text"
    MARKDOWN = "markdown"
    HTML = "html"
    PDF = "pdf"
    DOCX = "docx"
    CSV = "csv"
    JSON = "json"
    JSON_LINES = "jsonl"
    CODE = "code"


_DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_TSV = "text/tab-separated-values"
_MEDIA_TYPES = {
    "text/markdown": Format.MARKDOWN,
    "text/x-markdown": Format.MARKDOWN,
    "text/html": Format.HTML,
    "application/xhtml+xml": Format.HTML,
    "application/pdf": Format.PDF,
    _DOCX: Format.DOCX,
    "text/csv": Format.CSV,
    _TSV: Format.CSV,
    "application/json": Format.JSON,
    "application/jsonl": Format.JSON_LINES,
    "application/x-jsonlines": Format.JSON_LINES,
    "application/x-ndjson": Format.JSON_LINES,
}
_ENDINGS = {
    Format.TEXT: "txt text log rst adoc org tex srt vtt",
    Format.MARKDOWN: "md markdown mdown mkd mdx",
    Format.HTML: "html htm xhtml",
    Format.PDF: "pdf",
    Format.DOCX: "docx",
    Format.CSV: "csv tsv tab",
    Format.JSON: "json",
    Format.JSON_LINES: "jsonl ndjson",
}
# Ending -> what the media type calls the language.
_LANGUAGES = {
    "py": "python", "pyi": "python", "js": "javascript", "mjs": "javascript", "cjs": "javascript",
    "jsx": "javascript", "ts": "typescript", "tsx": "typescript", "java": "java", "kt": "kotlin",
    "kts": "kotlin", "scala": "scala", "c": "c", "h": "c", "cc": "c++", "cpp": "c++", "cxx": "c++",
    "hh": "c++", "hpp": "c++", "cs": "csharp", "go": "go", "rs": "rust", "rb": "ruby", "php": "php",
    "swift": "swift", "m": "objective-c", "r": "r", "jl": "julia", "lua": "lua", "pl": "perl",
    "sh": "shell", "bash": "shell", "zsh": "shell", "ps1": "powershell", "sql": "sql",
    "hs": "haskell", "ml": "ocaml", "ex": "elixir", "exs": "elixir", "erl": "erlang",
    "clj": "clojure", "dart": "dart", "zig": "zig", "proto": "protobuf", "graphql": "graphql",
    "css": "css", "scss": "scss", "vue": "vue", "svelte": "svelte", "xml": "xml", "yaml": "yaml",
    "yml": "yaml", "toml": "toml", "ini": "ini", "cfg": "ini", "conf": "ini", "tf": "terraform",
    "cmake": "cmake", "dockerfile": "dockerfile", "makefile": "makefile", "mk": "makefile",
}  # fmt: skip
_FORMATS = dict.fromkeys(_LANGUAGES, Format.CODE) | {
    ending: kind for kind, endings in _ENDINGS.items() for ending in endings.split()
}
# What a file of another format begins with, and what it is then called.
_FOREIGN = (
    (b"\x89PNG", "a PNG image"), (b"\xff\xd8\xff", "a JPEG image"), (b"GIF8", "a GIF image"),
    (b"RIFF", "audio, video or an image"), (b"\x1f\x8b", "packed by gzip"),
    (b"BZh", "packed by bzip2"), (b"\xfd7zXZ", "packed by xz"), (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"), (b"\x7fELF", "a program"), (b"{\\rtf", "Rich Text (RTF)"),
    (b"SQLite format 3", "a database"), (b"%!PS", "PostScript"), (b"OggS", "audio or video"),
    (b"ID3", "audio"), (b"\x28\xb5\x2f\xfd", "packed by zstd"),
)  # fmt: skip
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ENCRYPTED_OFFICE = "EncryptedPackage".encode("utf-16-le")
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]{0,256}>\s*)?(?:<!--.{0,1024}?-->\s*)?<(?:!doctype\s+html|html)\b",
    re.IGNORECASE | re.DOTALL,
)
_PDF_WITHIN = 1024  # bytes; readers take a PDF that begins with a little of something else
# Where HTML is what a file was called by mistake: a saved error page, a "Word" file of a website.
_HTML_OVERRULES = frozenset(Format) - {Format.CODE, Format.MARKDOWN}


def detect(data: bytes, file_name: str, media_type: str) -> Format:
    """The format of a file that is not empty.

    Raises `InvalidRequest` when it is one that is not read, or not what its name says.
    """
    named = _named(file_name, media_type)
    mark = data[:_PDF_WITHIN].find(b"%PDF-")
    if mark == 0 or (mark > 0 and named is Format.PDF):
        return Format.PDF
    if data.startswith(b"PK\x03\x04"):
        return _zip(data)
    _refuse_foreign(data)
    mark_free = data.removeprefix(b"\xef\xbb\xbf")
    if _HTML.match(mark_free[:4096]) and named in _HTML_OVERRULES:
        return Format.HTML
    if named in (Format.PDF, Format.DOCX):
        raise unreadable(f"the file is no {named.upper()}, though its name or type says so")
    return named


def media_type_of(kind: Format, file_name: str, media_type: str) -> str:
    """The media type of a text file; a format has several where it has languages or delimiters."""
    ending = _ending(file_name)
    if kind is Format.CODE:
        return f"text/x-{_LANGUAGES[ending]}"
    if kind is Format.CSV:
        is_tabbed = media_type.startswith(_TSV) or ending in ("tsv", "tab")
        return _TSV if is_tabbed else "text/csv"
    return next((name for name, named in _MEDIA_TYPES.items() if named is kind), "text/plain")


def _named(file_name: str, media_type: str) -> Format:
    """What name and media type say: a telling media type first, plain text if neither tells."""
    base = media_type.split(";")[0].strip().lower()
    return _MEDIA_TYPES.get(base) or _FORMATS.get(_ending(file_name), Format.TEXT)


def _ending(file_name: str) -> str:
    """What follows the last dot of a file's name, or the whole name where there is none."""
    base = re.split(r"[/\\]", file_name)[-1].lower()
    return base.rsplit(".", 1)[-1]


def _zip(data: bytes) -> Format:
    """DOCX, unless the archive holds something else."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        raise unreadable("the file is a broken zip archive, or a cut off DOCX") from None
    if "word/document.xml" in names:
        return Format.DOCX
    if "xl/workbook.xml" in names:
        raise unreadable("Excel files are not read; save the sheets as CSV")
    if "ppt/presentation.xml" in names:
        raise unreadable("PowerPoint files are not read; save it as PDF")
    raise unreadable("zip archives are not read; send the files inside one by one")


def _refuse_foreign(data: bytes) -> None:
    if data.startswith(_OLE):
        if _ENCRYPTED_OFFICE in data:
            raise unreadable("the file is encrypted; a password is needed")
        raise unreadable("old Office files (.doc, .xls, .ppt) are not read; save it as DOCX or PDF")
    for mark, name in _FOREIGN:
        if data.startswith(mark):
            raise unreadable(f"the file is {name}, which is not read")
