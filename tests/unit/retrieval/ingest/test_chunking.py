"""Chunks: what they promise of any document, and where structure puts their ends."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from services.retrieval.ingest.chunking import chunk
from services.retrieval.ingest.document import BlockKind, ParsedDocument
from services.retrieval.ingest.parsing import parse
from services.retrieval.ingest.tokens import count_tokens
from services.retrieval.types import Chunk, ChunkingConfig
from services.runtime.errors import InvalidRequest

SMALL = ChunkingConfig(max_tokens=24, overlap_tokens=8)


def check(
    parsed: ParsedDocument, chunks: list[Chunk], config: ChunkingConfig, tok: Tokenizer
) -> None:
    """What holds of the chunks of any document."""
    text = parsed.text
    assert all(chunk.text == text[chunk.start : chunk.end] for chunk in chunks)
    assert all(chunk.text == chunk.text.strip() != "" for chunk in chunks)
    starts = [chunk.start for chunk in chunks]
    assert starts == sorted(set(starts))
    assert all(size <= config.max_tokens for size in count_tokens([c.text for c in chunks], tok))
    covered = bytearray(len(text))
    for piece in chunks:
        covered[piece.start : piece.end] = b"\1" * (piece.end - piece.start)
    titles = {title for piece in chunks for title in piece.title_path}
    for block in parsed.blocks:
        if block.kind is BlockKind.HEADING and block.title in titles:
            continue
        missing = [at for at in range(block.start, block.end) if not covered[at]]
        assert not [at for at in missing if not text[at].isspace()]


_WORDS = st.text(alphabet="abcdefgh ABC.,!?é漢🙂\u0301'-_/", min_size=1, max_size=60)
_MARKDOWN = st.lists(
    st.one_of(
        _WORDS,
        st.builds("{} {}".format, st.sampled_from(["#", "##", "###", "####"]), _WORDS),
        st.builds("- {}\n- {}".format, _WORDS, _WORDS),
        st.builds("```\n{}\n\n  {}\n```".format, _WORDS, _WORDS),
        st.builds("| a | b |\n|---|---|\n| {} | 1 |".format, _WORDS.map(lambda w: w.strip())),
        st.builds(lambda word, times: word * times, _WORDS, st.integers(1, 60)),
        st.sampled_from(["x" * 900, "\t \n", "---", "> a\n> b", "漢字" * 40]),
    ),
    min_size=1,
    max_size=14,
).map("\n\n".join)


@settings(max_examples=150, deadline=None)
@given(
    text=_MARKDOWN,
    ending=st.sampled_from(["md", "txt", "py"]),
    sizes=st.sampled_from([(16, 0), (16, 8), (24, 8), (60, 10), (200, 32)]),
)
def test_chunks_cover_the_text_within_the_limits(
    tokenizer: Tokenizer, text: str, ending: str, sizes: tuple[int, int]
) -> None:
    try:
        parsed = parse(text.encode(), f"a.{ending}")
    except InvalidRequest:
        assert not text.strip()
        return
    config = ChunkingConfig(max_tokens=sizes[0], overlap_tokens=sizes[1])
    chunks = chunk(parsed, config, tokenizer)
    check(parsed, chunks, config, tokenizer)
    for piece in chunks:
        assert piece.line_start == parsed.text.count("\n", 0, piece.start) + 1
        assert piece.line_end == parsed.text.count("\n", 0, piece.end) + 1


def chunks_of(
    text: str, tok: Tokenizer, config: ChunkingConfig = SMALL, name: str = "a.md"
) -> list[Chunk]:
    parsed = parse(text.encode(), name)
    chunks = chunk(parsed, config, tok)
    check(parsed, chunks, config, tok)
    return chunks


def test_short_document_is_one_chunk_without_its_own_heading(tokenizer: Tokenizer) -> None:
    (only,) = chunks_of("# Veloria\n\nIt is a ship.\n\n## Crew\n\nIt has 20.\n", tokenizer)
    assert only.title_path == ("Veloria",)
    assert only.text == "It is a ship.\n\n## Crew\n\nIt has 20."
    assert (only.line_start, only.line_end) == (3, 7)


def test_heading_with_nothing_under_it_is_kept(tokenizer: Tokenizer) -> None:
    (only,) = chunks_of("# Veloria\n", tokenizer)
    assert (only.text, only.title_path) == ("# Veloria", ())


SECTION = "one two three four five six seven eight nine ten eleven twelve"


def test_sections_of_some_size_stay_by_themselves(tokenizer: Tokenizer) -> None:
    text = f"# A\n\n## B\n\n{SECTION}\n\n## C\n\n{SECTION}\n\n### D\n\n{SECTION}\n"
    chunks = chunks_of(text, tokenizer)
    assert [piece.title_path for piece in chunks] == [("A", "B"), ("A", "C"), ("A", "C", "D")]
    assert {piece.text for piece in chunks} == {SECTION}


def test_small_sections_side_by_side_share_a_chunk(tokenizer: Tokenizer) -> None:
    text = f"# A\n\n## B\n\nb\n\n## C\n\nc\n\n## D\n\n{SECTION} {SECTION[:40]}\n"
    chunks = chunks_of(text, tokenizer)
    assert [piece.title_path for piece in chunks] == [("A",), ("A", "D")]
    assert chunks[0].text == "## B\n\nb\n\n## C\n\nc"


def test_title_stands_above_headings_of_lower_levels_only(tokenizer: Tokenizer) -> None:
    text = f"---\ntitle: The file\n---\n\n## B\n\n{SECTION}\n\n## C\n\n{SECTION}\n"
    paths = [piece.title_path for piece in chunks_of(text, tokenizer)]
    assert paths == [("The file", "B"), ("The file", "C")]


def test_paragraphs_that_fit_are_kept_whole(tokenizer: Tokenizer) -> None:
    paragraphs = [f"{SECTION} {number}." for number in range(6)]
    chunks = chunks_of("\n\n".join(paragraphs), tokenizer, name="a.txt")
    assert [piece.text for piece in chunks] == paragraphs


def test_long_prose_is_cut_at_sentences_and_overlaps_by_whole_ones(tokenizer: Tokenizer) -> None:
    text = " ".join(f"This is sentence {number}." for number in range(20))
    chunks = chunks_of(text, tokenizer, name="a.txt")
    assert len(chunks) > 3
    assert all(piece.text.startswith("This is") and piece.text.endswith(".") for piece in chunks)
    for above, below in pairwise(chunks):
        shared = text[below.start : above.end]
        assert shared.count("sentence") == 1


def test_overlap_stays_within_a_section(tokenizer: Tokenizer) -> None:
    long = " ".join(f"This is sentence {number}." for number in range(10))
    chunks = chunks_of(f"# A\n\n{long}\n\n# B\n\n{long}\n", tokenizer)
    sides = [piece.title_path for piece in chunks]
    first_of_b = sides.index(("B",))
    assert chunks[first_of_b].start >= chunks[first_of_b - 1].end


def test_code_is_cut_at_lines(tokenizer: Tokenizer) -> None:
    body = "".join(f"    value_{number} = {number}\n" for number in range(30))
    chunks = chunks_of(f"def f():\n{body}", tokenizer, name="a.py")
    assert len(chunks) > 3
    assert all(piece.text.startswith(("def", "value_")) for piece in chunks)


def test_records_never_share_a_chunk(tokenizer: Tokenizer) -> None:
    long = " ".join(f"This is sentence {number}." for number in range(10))
    table = f"title,text,kind\nA,a,x\nB,{long},y\nC,c,x\n"
    chunks = chunks_of(table, tokenizer, name="a.csv")
    assert [piece.title_path for piece in chunks][:2] == [("A",), ("B",)]
    assert chunks[-1].title_path == ("C",)
    assert [piece.metadata for piece in chunks[1:-1]] == [{"kind": "y"}] * (len(chunks) - 2)
    assert [piece.line_start for piece in (chunks[0], chunks[1], chunks[-1])] == [2, 3, 4]


def test_pages_and_lines_of_extracted_text_are_the_blocks(
    tokenizer: Tokenizer, pdf_bytes: bytes
) -> None:
    parsed = parse(pdf_bytes, "a.pdf")
    config = ChunkingConfig(max_tokens=40, overlap_tokens=0)
    chunks = chunk(parsed, config, tokenizer)
    check(parsed, chunks, config, tokenizer)
    assert [piece.page for piece in chunks][0::2] == [1, 2]
    assert chunks[-1].title_path == ("Veloria", "Crew")


def test_run_of_letters_or_spaces_does_not_make_a_huge_chunk(tokenizer: Tokenizer) -> None:
    for text in ("x" * 50_000, "a" + " " * 50_000 + "b"):
        chunks = chunks_of(text, tokenizer, name="a.txt")
        assert max(len(piece.text) for piece in chunks) <= 16 * SMALL.max_tokens


def test_overlap_beyond_half_a_chunk_is_refused(tokenizer: Tokenizer) -> None:
    parsed = parse(b"text", "a.txt")
    with pytest.raises(InvalidRequest) as caught:
        chunk(parsed, ChunkingConfig(max_tokens=20, overlap_tokens=11), tokenizer)
    assert caught.value.field == "overlap_tokens"
