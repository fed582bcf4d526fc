"""What is read out of each format: text, structure, titles, lines, pages, metadata."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieval.checks import check_metadata
from services.retrieval.ingest.document import BlockKind, ParsedDocument
from services.retrieval.ingest.parsing import parse


def outline(parsed: ParsedDocument) -> list[tuple[str, str]]:
    """Kind (with the level of headings) and text of each block."""
    return [
        (f"{block.kind}{block.level or ''}", parsed.text[block.start : block.end])
        for block in parsed.blocks
    ]


def lines(parsed: ParsedDocument) -> list[tuple[int, int]]:
    return [(block.line_start, block.line_end) for block in parsed.blocks]


MARKDOWN = """\
---
title: The fleet
tags: [ships, north]
year: 1874
day: 2026-01-02
nested: {a: 1}
---
# All *ships*, [listed](x)

One
paragraph.

- a

- b

```py
# no heading

x = 1
```

| a | b |
|---|---|
| 1 | 2 |

Below
-----

[ref]: http://nowhere
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_markdown_has_structure_and_lines_of_the_file(newline: str) -> None:
    source = MARKDOWN.replace("\n", newline)
    parsed = parse(source.encode(), "fleet.md")
    assert parsed.text == source
    assert parsed.text_is_file
    assert [(kind, text.replace(newline, "\n")) for kind, text in outline(parsed)] == [
        ("heading1", "# All *ships*, [listed](x)"),
        ("paragraph", "One\nparagraph."),
        ("paragraph", "- a\n\n- b"),
        ("code", "```py\n# no heading\n\nx = 1\n```"),
        ("table", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("heading2", "Below\n-----"),
        ("paragraph", "[ref]: http://nowhere"),
    ]
    assert lines(parsed) == [(8, 8), (10, 11), (13, 15), (17, 21), (23, 25), (27, 28), (30, 30)]
    assert parsed.blocks[0].title == "All ships, listed"
    assert parsed.title == "The fleet"
    assert parsed.metadata == {"tags": ("ships", "north"), "year": 1874.0, "day": "2026-01-02"}


@pytest.mark.parametrize(
    "matter", ["just: a: line", "a: [1", "x: &a {k: 1}\ny: {<<: [*a, *a]}", "no mapping"]
)
def test_front_matter_that_is_none_stays_text(matter: str) -> None:
    parsed = parse(f"---\n{matter}\n---\n\ntext\n".encode(), "a.md")
    assert not parsed.metadata
    assert matter in parsed.text[parsed.blocks[0].start : parsed.blocks[-1].end]


def test_markdown_title_is_the_first_heading_of_level_1() -> None:
    assert parse(b"## Two\n\n# One\n\n# Other\n", "a.md").title == "One"
    assert parse(b"just text\n", "a.md").title == ""
    assert parse(b"---\ntitle:\n---\n\n# Heading\n", "a.md").title == "Heading"


HTML = """\
<!DOCTYPE html>
<html><head><title>Fleet</title><style>p { color: red }</style></head>
<body>
<nav><a href="/">Home</a></nav>
<h1>The <em>fleet</em></h1>
<p>The Veloria was
launched   in&nbsp;1874.<br>A ship.</p>
<script>alert("x")</script>
<ul>
 <li>one
 <li>two <b>bold</b>
</ul>
<pre>
def f():
    return 1
</pre>
<table><tr><th>a<th>b</tr>
<tr><td>1<td>2</tr></table>
<p hidden>secret</p>
<div>Loose text<p>inside</p>after</div>
"""


def test_html_is_what_a_reader_sees_with_its_lines() -> None:
    parsed = parse(HTML.encode(), "fleet.html")
    assert outline(parsed) == [
        ("heading1", "The fleet"),
        ("paragraph", "The Veloria was launched in 1874.\nA ship."),
        ("paragraph", "- one"),
        ("paragraph", "- two bold"),
        ("code", "def f():\n    return 1"),
        ("table", "a | b\n1 | 2"),
        ("paragraph", "Loose text"),
        ("paragraph", "inside"),
        ("paragraph", "after"),
    ]
    assert lines(parsed)[:6] == [(5, 5), (6, 7), (10, 10), (11, 11), (13, 16), (17, 18)]
    assert (parsed.title, parsed.text_is_file) == ("Fleet", False)
    assert "- one\n- two bold" in parsed.text


def test_html_table_for_layout_is_read_as_a_page() -> None:
    page = b"<table><tr><td><h1>Title</h1><p>Text</p></td><td>Side</td></tr></table>"
    assert outline(parse(page, "a.html")) == [
        ("heading1", "Title"),
        ("paragraph", "Text"),
        ("paragraph", "Side"),
    ]


def test_html_encoding_is_the_one_it_declares() -> None:
    page = '<meta charset="koi8-r"><p>Привет, мир</p>'
    assert parse(page.encode("koi8-r"), "a.html").text == "Привет, мир"


def test_pdf_has_paragraphs_headings_and_pages(pdf_bytes: bytes) -> None:
    parsed = parse(pdf_bytes, "veloria.pdf")
    assert outline(parsed) == [
        ("heading1", "Veloria"),
        ("paragraph", "The Veloria is a ship of the north. Her cargo was salt at first, and then "
         "copper wire. She was launched in the year 1874 at Bramhaven."),
        ("paragraph", "The captain of the Veloria is Tamir Osker."),
        ("heading2", "Crew"),
        ("paragraph", "The crew numbers 20 people."),
    ]  # fmt: skip
    assert [block.page for block in parsed.blocks] == [1, 1, 1, 2, 2]
    assert parsed.title == "The Veloria"


def test_docx_has_headings_by_style_lists_and_tables(docx_bytes: bytes) -> None:
    parsed = parse(docx_bytes, "veloria.docx")
    assert outline(parsed) == [
        ("heading1", "Veloria"),
        ("paragraph", "The Veloria is a ship."),
        ("heading2", "Crew"),
        ("paragraph", "- a captain"),
        ("table", "name | age\nTamir | 41"),
    ]
    assert parsed.title == "Veloria"


CSV = (
    "Title,text,kind,year,open,code\r\n"
    'Veloria,"A ship, ""the"" ship.\r\nOf the north.",ship,1874,true,007\r\n'
    "\r\n"
    "Bramhaven,A town.,town,,FALSE,12\r\n"
    "Halvex,,tower,1600,true,1,extra\r\n"
)


def test_csv_rows_are_records_with_typed_metadata() -> None:
    parsed = parse(CSV.encode(), "world.csv")
    assert outline(parsed) == [
        ("record", 'A ship, "the" ship.\r\nOf the north.'),
        ("record", "A town."),
        ("record", "kind: tower\nyear: 1600\nopen: true\ncode: 1\ncolumn 7: extra"),
    ]
    assert lines(parsed) == [(2, 3), (5, 5), (6, 6)]
    assert [block.title for block in parsed.blocks] == ["Veloria", "Bramhaven", "Halvex"]
    assert parsed.blocks[0].metadata == {
        "kind": "ship", "year": 1874.0, "open": True, "code": "007",
    }  # fmt: skip
    assert parsed.blocks[1].metadata == {"kind": "town", "open": False, "code": "12"}


@pytest.mark.parametrize(("delimiter", "name"), [(";", "a.csv"), ("\t", "a.csv"), ("\t", "a.tsv")])
def test_csv_delimiter_is_found(delimiter: str, name: str) -> None:
    rows = [["x", "y, z"], ["1", "a, b, c"], ["2", "d"]]
    parsed = parse("\n".join(delimiter.join(row) for row in rows).encode(), name)
    assert outline(parsed) == [("record", "x: 1\ny, z: a, b, c"), ("record", "x: 2\ny, z: d")]


def test_jsonl_lines_are_records() -> None:
    source = (
        '{"title": "T", "content": "text", "meta": {"n": 1, "tags": ["a", "b"]}, "no": null}\n\n'
        '{"x": [1, 2], "big": 9007199254740993, "flag": true}\n'
    )
    parsed = parse(source.encode(), "a.jsonl")
    assert outline(parsed) == [
        ("record", "text"),
        ("record", "x: [1, 2]\nbig: 9007199254740993\nflag: true"),
    ]
    assert parsed.blocks[0].metadata == {"meta.n": 1.0, "meta.tags": ("a", "b")}
    assert parsed.blocks[1].metadata == {"big": "9007199254740993", "flag": True}
    assert lines(parsed) == [(1, 1), (3, 3)]


def test_json_list_is_records_and_other_json_is_text() -> None:
    parsed = parse(b'[{"text": "a\\ud800\\u0000"},\n {"text":\n "b"}]', "a.json")
    assert outline(parsed) == [("record", "a\ufffd\ufffd"), ("record", "b")]
    assert lines(parsed) == [(1, 1), (2, 3)]
    assert outline(parse(b'{"a": [1, 2]}', "a.json")) == [("code", '{"a": [1, 2]}')]
    assert outline(parse(b'{"text": "a"}\n{"text": "b"}', "a.json")) == [
        ("record", "a"),
        ("record", "b"),
    ]


def test_code_is_divided_at_top_level_definitions() -> None:
    source = "import x\n\ndef f():\n    a\n\n    b\n\n\n@d\nclass C:\n    pass\n\n)\n"
    parsed = parse(source.encode(), "a.py")
    assert outline(parsed) == [
        ("code", "import x"),
        ("code", "def f():\n    a\n\n    b"),
        ("code", "@d\nclass C:\n    pass\n\n)"),
    ]
    assert parsed.media_type == "text/x-python"


@pytest.mark.parametrize(
    ("name", "media_type", "expected"),
    [
        ("a.md", "text/plain", "text/markdown"),
        ("a", "text/markdown; charset=utf-8", "text/markdown"),
        ("A.MD", "application/octet-stream", "text/markdown"),
        ("../../etc/notes.md", "", "text/markdown"),
        ("a.unknown", "", "text/plain"),
        ("Makefile", "", "text/x-makefile"),
    ],
)
def test_format_is_the_media_types_or_the_endings(
    name: str, media_type: str, expected: str
) -> None:
    assert parse(b"text: of it\n", name, media_type).media_type == expected


def test_clear_content_overrules_the_name(pdf_bytes: bytes, docx_bytes: bytes) -> None:
    assert parse(pdf_bytes, "a.txt").media_type == "application/pdf"
    assert parse(docx_bytes, "a.pdf").title == "Veloria"
    assert parse(b"<!doctype HTML><p>x", "a.docx").media_type == "text/html"
    assert parse(b"<html><p>x", "a.txt").media_type == "text/html"
    assert parse(b"<html><p>x", "a.md").media_type == "text/markdown"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Grüße aus Köln, schöne Straße über die Brücke", "cp1252"),
        ("Le café est très agréable", "cp1252"),
        ("Привет, мир, как дела", "cp1251"),
        ("Grüße aus Köln", "utf-8-sig"),
        ("Grüße aus Köln", "utf-16"),
        ("Grüße aus Köln", "utf-32"),
        ("これは日本語の文章です。とても長い文章です。", "shift_jis"),
    ],
)
def test_text_is_decoded_whatever_its_encoding(text: str, encoding: str) -> None:
    parsed = parse(text.encode(encoding), "a.txt")
    assert parsed.text == text
    assert parsed.blocks[0].kind is BlockKind.PARAGRAPH


def test_text_has_paragraphs_and_lines() -> None:
    parsed = parse(b"\n a\nb\n \t\n\n\nc\n", "a.txt")
    assert outline(parsed) == [("paragraph", "a\nb"), ("paragraph", "c")]
    assert lines(parsed) == [(2, 3), (7, 7)]


@given(st.dictionaries(st.text(max_size=80), st.text(max_size=300) | st.booleans(), max_size=90))
def test_metadata_of_a_record_is_what_the_service_takes(members: dict[str, object]) -> None:
    line = json.dumps({"text": "body", **members}).encode()
    if not str(members.get("text", "body")).strip():
        return
    for block in parse(line, "a.jsonl").blocks:
        check_metadata(block.metadata, "metadata")


def test_members_that_cannot_be_filtered_by_are_kept_in_the_text() -> None:
    members = {
        "text": "body",
        "Unit price (EUR)": 3.5,
        "unit price": "a",
        "unit_price": "b",
        "2024": "c",
        "file_name": "d",
        "日本": "e",
        "long": "f" * 300,
    }
    (block,) = parse(json.dumps(members).encode(), "a.jsonl").blocks
    assert block.metadata == {
        "Unit_price_EUR": 3.5, "unit_price": "a", "_2024": "c", "file_name_": "d",
    }  # fmt: skip
    text = parse(json.dumps(members).encode(), "a.jsonl").text
    assert text == f"body\nunit_price: b\n日本: e\nlong: {'f' * 300}"
