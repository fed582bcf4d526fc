"""Files that are broken or mean harm: each is refused by name, soon, and without much memory."""

from __future__ import annotations

import io
import random
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from pypdf import PdfWriter

from services.retrieval.ingest.document import ParseLimits
from services.retrieval.ingest.parsing import parse
from services.runtime.errors import InvalidRequest

# A parser that hangs is stopped by this, and fails the test.
pytestmark = pytest.mark.timeout(60)

LIMITS = ParseLimits(max_seconds=50)
_MB = 10**6


def refused(data: bytes, name: str, limits: ParseLimits = LIMITS) -> str:
    """The reason for which a file is refused."""
    with pytest.raises(InvalidRequest) as caught:
        parse(data, name, "", limits)
    assert caught.value.field == "file"
    return caught.value.message


def read_or_refused(data: bytes, name: str, limits: ParseLimits = LIMITS) -> str:
    """Why a file is refused; "" when it is read instead."""
    try:
        assert parse(data, name, "", limits).blocks
    except InvalidRequest as error:
        return error.message
    return ""


@contextmanager
def at_most(num_bytes: int) -> Iterator[None]:
    """Fails when more than so much memory is taken inside."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < num_bytes


# --- empty, binary, too large -----------------------------------------------------------------


@pytest.mark.parametrize("ending", ["txt", "md", "html", "pdf", "docx", "csv", "jsonl", "py"])
@pytest.mark.parametrize("data", [b"", b" \n\t\r\n", b"\xef\xbb\xbf \n"])
def test_empty_file_is_refused_whatever_its_ending(data: bytes, ending: str) -> None:
    reason = refused(data, f"a.{ending}")
    assert "empty" in reason or (ending in ("pdf", "docx") and f"no {ending.upper()}" in reason)


@pytest.mark.parametrize("ending", ["txt", "md", "html", "csv", "jsonl", "json", "py"])
def test_nul_and_random_bytes_are_refused_as_binary(ending: str) -> None:
    assert "binary" in refused(b"text\0text\n" * 10, f"a.{ending}")
    assert "binary" in refused(random.Random(0).randbytes(100_000), f"a.{ending}")
    assert "binary" in refused(bytes(range(1, 32)) * 10, f"a.{ending}")


def test_file_beyond_a_limit_is_refused_with_its_size() -> None:
    assert "100000000 bytes" in refused(b"a" * 100 * _MB, "a.txt")
    assert "1001 characters" in refused(b"a" * 1001, "a.txt", ParseLimits(max_characters=1000))
    few = ParseLimits(max_blocks=10)
    for name, data in [
        ("a.txt", b"a\n\n" * 20),
        ("a.md", b"# a\n" * 20),
        ("a.py", b"a\n\n" * 20),
        ("a.html", b"<p>a" * 20),
        ("a.csv", b"a\n" * 20),
        ("a.jsonl", b'{"a":1}\n' * 20),
    ]:
        assert "more than 10" in refused(data, name, few)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x89PNG\r\n\x1a\n" + b"x" * 99, "PNG"),
        (b"\x1f\x8b\x08" + b"x" * 99, "gzip"),
        (b"{\\rtf1 hello}", "RTF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "old Office"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le"), "encrypted"),
    ],
)
def test_foreign_format_is_refused_by_name(data: bytes, reason: str) -> None:
    assert reason in refused(data, "a.txt")


def test_text_under_a_binary_formats_name_is_refused() -> None:
    assert "no PDF" in refused(b"hello", "a.pdf")
    assert "no DOCX" in refused(b"hello", "a.docx")


def test_text_cut_off_inside_a_character_is_refused() -> None:
    assert "cut off" in refused("Grüße".encode() + "ü".encode()[:1], "a.txt")
    assert "broken" in refused("Grüße".encode("utf-16")[:-1], "a.txt")


def test_reading_stops_when_its_time_is_over() -> None:
    hurry = ParseLimits(max_seconds=0)
    for name, data in [
        ("a.md", b"# a\n\ntext"),
        ("a.html", b"<p>text"),
        ("a.csv", b"a,b\n1,2\n"),
        ("a.jsonl", b'{"a":1}'),
    ]:
        assert "more than 0 s" in refused(data, name, hurry)


# --- text formats -----------------------------------------------------------------------------

_LONG = 100_000


@pytest.mark.parametrize(
    "text",
    [
        "> " * _LONG, "- " * _LONG, "[" * _LONG, "*a " * _LONG, "`" * _LONG, "a\n" * _LONG,
        "# a\n" * _LONG, "1. a\n" * _LONG, "|a|b|\n|-|-|\n" + "|a|b|\n" * _LONG,
        "# " + "*a **b" * _LONG, "[a]: b\n" * _LONG, "a\n-\n" * _LONG, "<!--" * _LONG,
    ],
    ids=lambda text: repr(text[:8]),
)  # fmt: skip
def test_markdown_of_any_shape_is_read_or_refused_in_time(text: str) -> None:
    reason = read_or_refused(text.encode(), "a.md", ParseLimits(max_seconds=2))
    assert not reason or "took more than" in reason or "more than 200000" in reason


@pytest.mark.parametrize("tag", ["<div>", "<b>", "<ul><li>", "<table><tr><td>", "<blockquote>"])
def test_html_that_nests_too_deep_is_refused(tag: str) -> None:
    assert "nests more than 200" in refused((tag * 100_000 + "x").encode(), "a.html")


def test_html_without_text_is_refused() -> None:
    assert "no text" in refused(b"<html><script>var x</script></html>", "a.html")


def test_broken_rows_are_named_by_line() -> None:
    assert refused(b'a,b\n1,2\n3,"x\n4,5\n', "a.csv").startswith("line 3:")
    assert refused(b'a,b\n"x"y,2\n', "a.csv").startswith("line 2:")
    assert refused(b"a,b\n" + b"x" * 200_000 + b",1\n", "a.csv").startswith("line 2:")
    assert refused(b"a" + b"," * 1000 + b"\n1,2\n", "a.csv").startswith("line 1: 1001 fields")
    assert "no rows" in refused(b"a,b\n", "a.csv")


@pytest.mark.parametrize(
    "line",
    ['{"a": 1', "[1]", '"x"', '{"a": NaN}', '{"a":' * _LONG, "[" * _LONG,
     '{"a": ' + "9" * 5000 + "}", "{" + ",".join(f'"k{i}":1' for i in range(600)) + "}"],
    ids=lambda line: line[:8],
)  # fmt: skip
def test_broken_json_lines_are_named(line: str) -> None:
    assert refused(f'{{"a": 1}}\n\n{line}\n'.encode(), "a.jsonl").startswith("line 3:")


def test_json_that_nests_too_deep_is_refused() -> None:
    assert "too deep" in refused(b"[" * _LONG, "a.json")
    assert "line 2" in refused(b'[{"a": 1},\n nonsense]', "a.json")


# --- DOCX -------------------------------------------------------------------------------------


def with_part(docx_bytes: bytes, name: str, edit: Callable[[bytes], bytes]) -> bytes:
    """The archive with one part changed, or added."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(docx_bytes)) as source:
        parts = {entry: source.read(entry) for entry in source.namelist()}
    parts[name] = edit(parts.get(name, b""))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for entry, content in parts.items():
            target.writestr(entry, content)
    return file.getvalue()


def test_docx_bombs_are_refused_before_they_are_opened(docx_bytes: bytes) -> None:
    inflated = with_part(docx_bytes, "word/media/a.bin", lambda _: b"\0" * 200 * _MB)
    with at_most(20 * _MB):
        assert "unpacks to" in refused(inflated, "a.docx")
    tight = with_part(docx_bytes, "word/media/a.bin", lambda _: b"\0" * 20 * _MB)
    assert "zip bomb" in refused(tight, "a.docx")
    assert "parts" in refused(docx_bytes, "a.docx", ParseLimits(max_archive_entries=3))


def test_docx_that_lies_about_its_size_gives_no_more_than_it_declares(docx_bytes: bytes) -> None:
    bomb = with_part(docx_bytes, "word/document.xml", lambda part: part + b" " * 100 * _MB)
    with zipfile.ZipFile(io.BytesIO(bomb)) as archive:
        size = archive.getinfo("word/document.xml").file_size
    lying = bomb.replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    assert "broken" in refused(lying, "a.docx")


def test_docx_with_entities_is_refused(docx_bytes: bytes) -> None:
    laughs = b'<!DOCTYPE x [<!ENTITY a "ha">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9)
    ) + b"]>"  # fmt: skip
    bomb = with_part(docx_bytes, "word/document.xml", lambda part: laughs + part)
    assert "entities" in refused(bomb, "a.docx")
    wide = with_part(docx_bytes, "word/styles.xml", lambda _: "<!DOCTYPE x>".encode("utf-16"))
    assert "entities" in refused(wide, "a.docx")


def test_docx_that_nests_too_deep_is_refused(docx_bytes: bytes) -> None:
    def deep(part: bytes) -> bytes:
        return part.replace(b"<w:body>", b"<w:body>" + b"<w:sdt>" * 5_000)

    assert "broken" in refused(with_part(docx_bytes, "word/document.xml", deep), "a.docx")


def test_other_archives_are_refused_by_name(docx_bytes: bytes) -> None:
    sheet = io.BytesIO()
    with zipfile.ZipFile(sheet, "w") as archive:
        archive.writestr("xl/workbook.xml", "x")
    assert "Excel" in refused(sheet.getvalue(), "a.docx")
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("../../a.txt", "x")
    assert "zip archives" in refused(plain.getvalue(), "a.zip")


# --- PDF --------------------------------------------------------------------------------------


def pdf_of(objects: list[bytes], trailer: bytes = b"") -> bytes:
    """A PDF of objects 1, 2...; the first is the catalogue."""
    out, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    return out + b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<</Size %d/Root 1 0 R%s>>\n" % (
        size, table, size, trailer,
    ) + b"startxref\n%d\n%%%%EOF" % len(out)  # fmt: skip


_CATALOGUE = b"<</Type/Catalog/Pages 2 0 R>>"
_PAGES = b"<</Type/Pages/Kids[3 0 R]/Count 1>>"
_SHOW = b"BT /F1 12 Tf 50 700 Td (Hello there) Tj ET\n"


def page_of(content: bytes, filters: bytes = b"") -> bytes:
    """A PDF of one page with a content stream."""
    return pdf_of(
        [
            _CATALOGUE,
            _PAGES,
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents 4 0 R"
            b"/Resources<</Font<</F1 5 0 R>>/XObject<</X 4 0 R>>>>>>",
            b"<</Type/XObject/Subtype/Form/Length %d %s>>stream\n%s\nendstream"
            % (len(content), filters, content),
            b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        ]
    )


def test_pdf_made_here_is_read() -> None:
    assert parse(page_of(_SHOW), "a.pdf").text == "Hello there"


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_encrypted_pdf_is_refused_and_read_when_no_password_is_needed(
    pdf_bytes: bytes, algorithm: str
) -> None:
    def encrypted(user_password: str) -> bytes:
        writer, file = PdfWriter(clone_from=io.BytesIO(pdf_bytes)), io.BytesIO()
        writer.encrypt(user_password, owner_password="owner", algorithm=algorithm)
        writer.write(file)
        return file.getvalue()

    assert "encrypted" in refused(encrypted("secret"), "a.pdf")
    assert parse(encrypted(""), "a.pdf").title == "The Veloria"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (page_of(_SHOW * 25_000), "limit"),
        (page_of(b"q " * 250_000), "limit"),
        (page_of(b"/X Do " * 5), "no text"),
        (pdf_of([_CATALOGUE, b"<</Type/Pages/Kids[2 0 R 2 0 R]/Count 1>>"]), "broken"),
        (pdf_of([_CATALOGUE, b"<</Type/Pages/Kids[" + b"3 0 R " * 50_000 + b"]/Count 50000>>",
                 b"<</Type/Page/Parent 2 0 R>>"]), "limit"),
        (pdf_of([_CATALOGUE, _PAGES, b"<</Type/Page/Parent 2 0 R>>", *[b"null"] * 30_000]),
         "no text"),
        (b"%PDF-1.4\n" + b"1 0 obj\nnull\nendobj\n" * 30_000, "broken"),
        (pdf_of([_CATALOGUE, b"[" * _LONG]), "broken"),
        (page_of(b"BT (" + b"(" * _LONG), "broken"),
        (b"%PDF-1.4\n" + b"%" * 4 * _MB, "broken"),
        (b"%PDF-1.4\n" + random.Random(1).randbytes(_MB), "broken"),
        (page_of(b"0 0 m"), "no text"),
    ],
    ids=["operations", "saves", "form in itself", "pages in themselves", "pages", "objects",
         "no table", "arrays", "strings", "comment", "noise", "no text"],
)  # fmt: skip
def test_hostile_pdf_is_refused(data: bytes, reason: str) -> None:
    assert reason in refused(data, "a.pdf")


def test_pdf_bomb_is_refused_without_unpacking_it(pdf_bytes: bytes) -> None:
    bomb = page_of(zlib.compress(_SHOW * 4_000_000, 9), b"/Filter/FlateDecode")
    with at_most(200 * _MB):
        assert "limit" in refused(bomb, "a.pdf")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
def test_cut_off_files_are_refused_as_broken(
    pdf_bytes: bytes, docx_bytes: bytes, share: float
) -> None:
    assert "broken or cut off" in refused(pdf_bytes[: int(share * len(pdf_bytes))], "a.pdf")
    assert "broken" in refused(docx_bytes[: int(share * len(docx_bytes))], "a.docx")


def test_damaged_files_are_read_or_refused_but_never_fail_otherwise(
    pdf_bytes: bytes, docx_bytes: bytes
) -> None:
    rng = random.Random(7)
    for original, name in ((pdf_bytes, "a.pdf"), (docx_bytes, "a.docx")) * 60:
        damaged = bytearray(original)
        for _ in range(rng.randint(1, 30)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        read_or_refused(bytes(damaged), name)  # raises whatever is no InvalidRequest
