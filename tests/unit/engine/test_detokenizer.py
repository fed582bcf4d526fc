"""Incremental text against whole decoding: never half a character, never a stop string."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from services.engine.detokenizer import DetokenizedDelta, IncrementalDetokenizer
from services.engine.request import SamplingParams
from services.engine.tokenizer import Tokenizer
from tests.unit.engine import tokenizer_cases as cases

REPLACEMENT = "\ufffd"

texts = st.text(max_size=40) | st.sampled_from([*cases.TEXTS, " ", "  x", "a<s>b", "two words"])


@pytest.fixture(scope="module", params=["byte_level", "byte_fallback"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    special = {"bos_token": cases.BOS, "eos_token": cases.EOS}
    return Tokenizer(getattr(cases, request.param)(), special)


def deltas(
    tokenizer: Tokenizer,
    prompt: Sequence[int],
    output: Sequence[int],
    params: SamplingParams | None = None,
) -> tuple[list[str], str | None]:
    """The text of each token and of the flush, up to a stop string, and that stop string."""
    detokenizer = IncrementalDetokenizer(tokenizer, prompt, params or SamplingParams())
    pieces = []
    for token_id in output:
        delta = detokenizer.push(token_id)
        pieces.append(delta.text)
        if delta.stop_string is not None:
            return pieces, delta.stop_string
    return [*pieces, detokenizer.flush()], None


def unfinished_bytes(data: bytes) -> int:
    """How many bytes at the end begin a character and lack its rest."""
    for count in range(1, min(len(data), 3) + 1):
        try:
            data[-count:].decode("utf-8")
        except UnicodeDecodeError as error:
            if error.start == 0 and error.reason == "unexpected end of data":
                return count
    return 0


def whole_characters(tokenizer: Tokenizer, token_ids: Sequence[int], skip: bool) -> str:
    """The decoded tokens without a character that is unfinished at the end."""
    shown = [i for i in token_ids if not (skip and i in tokenizer.special_token_ids)]
    data = b"".join(map(tokenizer.token_bytes, shown))
    text = data[: len(data) - unfinished_bytes(data)].decode("utf-8", "replace")
    for _ in range(tokenizer.num_leading_spaces):
        text = text.removeprefix(" ")
    return text


@settings(max_examples=100, deadline=None)
@given(text=texts)
def test_deltas_of_a_text_add_up_to_it(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    pieces, _ = deltas(tokenizer, ids[:1], ids[1:])
    assert "".join(pieces) == tokenizer.decode(ids)
    if REPLACEMENT not in text:
        assert not any(REPLACEMENT in piece for piece in pieces)


@settings(max_examples=100, deadline=None)
@given(data=st.data(), skip=st.booleans())
def test_deltas_of_random_ids_add_up_to_the_whole_decoding(
    tokenizer: Tokenizer, data: st.DataObject, skip: bool
) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=15))
    pieces, _ = deltas(tokenizer, [], ids, SamplingParams(skip_special_tokens=skip))
    assert "".join(pieces) == whole_characters(tokenizer, ids, skip)
    whole = tokenizer.decode(ids, skip_special_tokens=skip)
    assert whole.removesuffix(REPLACEMENT).startswith("".join(pieces).removesuffix(REPLACEMENT))


@settings(max_examples=100, deadline=None)
@given(text=texts, data=st.data(), skip=st.booleans())
def test_output_continues_the_prompt_wherever_it_was_cut(
    tokenizer: Tokenizer, text: str, data: st.DataObject, skip: bool
) -> None:
    """Also within a character, and with a leading space that is real once there is a prompt."""
    ids = tokenizer.encode(text)
    cut = data.draw(st.integers(0, len(ids)))
    pieces, _ = deltas(tokenizer, ids[:cut], ids[cut:], SamplingParams(skip_special_tokens=skip))
    begun = whole_characters(tokenizer, ids[:cut], skip)
    assert begun + "".join(pieces) == whole_characters(tokenizer, ids, skip)


@pytest.fixture(scope="module")
def broken_characters(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Random ids, most of them bytes of characters of several bytes, so that few fit together."""
    every = list(range(tokenizer.vocab_size))
    parts = [i for i in every if len(b := tokenizer.token_bytes(i)) == 1 and b[0] >= 0x80]
    spaces = [i for i in every if tokenizer.token_bytes(i) == b" "]
    return st.lists(st.sampled_from(parts) | st.sampled_from([*spaces, *every]), max_size=8)


def test_half_of_a_surrogate_is_no_beginning_of_a_character() -> None:
    tokenizer = Tokenizer(cases.byte_level())
    id_of = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size)}
    half = [id_of[b"\xed"], id_of[b"\xa1"]]
    assert deltas(tokenizer, [], half) == (["", "\ufffd\ufffd", ""], None)
    assert deltas(tokenizer, half, [half[1]]) == (["\ufffd", ""], None)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_output_continues_a_prompt_that_ends_inside_a_character(
    tokenizer: Tokenizer, broken_characters: st.SearchStrategy[list[int]], data: st.DataObject
) -> None:
    ids = data.draw(broken_characters)
    cut = data.draw(st.integers(0, len(ids)))
    pieces, _ = deltas(tokenizer, ids[:cut], ids[cut:])
    told = tokenizer.decode(ids[:cut])
    whole = whole_characters(tokenizer, ids, skip=True)
    if whole.startswith(told):
        assert told + "".join(pieces) == whole
    else:  # the output finishes the prompt's last character, or leaves it unfinished
        assert told.endswith(REPLACEMENT)
        assert told.removesuffix(REPLACEMENT) + "".join(pieces) == whole


def test_a_space_after_a_prompt_of_half_a_character_is_no_leading_space() -> None:
    backend = cases.byte_fallback()
    tokenizer = Tokenizer(backend)
    half, space = backend.token_to_id("<0xE2>"), backend.token_to_id("<0x20>")
    assert tokenizer.decode([half, space]) == "\ufffd "
    assert deltas(tokenizer, [half], [space]) == ([" ", ""], None)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_deltas_of_broken_characters_add_up_to_the_whole_decoding(
    tokenizer: Tokenizer, broken_characters: st.SearchStrategy[list[int]], data: st.DataObject
) -> None:
    ids = data.draw(broken_characters)
    pieces, _ = deltas(tokenizer, [], ids)
    assert "".join(pieces) == whole_characters(tokenizer, ids, skip=True)


def test_a_character_of_several_tokens_comes_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("😀", add_special_tokens=False)
    pieces, _ = deltas(tokenizer, [tokenizer.encode("x")[-1]], ids)
    assert len(ids) > 1
    assert [piece for piece in pieces if piece][-1].endswith("😀")
    assert pieces[-2].endswith("😀")


def test_an_unfinished_character_at_the_end_is_dropped(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("ab😀", add_special_tokens=False)
    pieces, _ = deltas(tokenizer, [], ids[:-1])
    assert "".join(pieces) == "ab"


def test_special_tokens_are_shown_on_request_only(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a<|end|>b", add_special_tokens=False)
    prompt = tokenizer.encode("x")
    hidden, _ = deltas(tokenizer, prompt, ids)
    shown, _ = deltas(tokenizer, prompt, ids, SamplingParams(skip_special_tokens=False))
    assert "<|end|>" not in "".join(hidden)
    assert "<|end|>" in "".join(shown)


@settings(max_examples=100, deadline=None)
@given(text=texts, data=st.data(), include=st.booleans())
def test_a_stop_string_is_never_emitted_however_it_is_split(
    tokenizer: Tokenizer, text: str, data: st.DataObject, include: bool
) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    whole = tokenizer.decode(ids)
    assume(whole)
    starts = data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3))
    stops = [whole[i : i + data.draw(st.integers(1, 6))] for i in starts]
    params = SamplingParams(stop=tuple(stops), include_stop_in_output=include)
    pieces, stop = deltas(tokenizer, [], ids, params)
    emitted = "".join(pieces)
    assert stop in stops
    assert whole.startswith(emitted)
    if include:
        assert emitted.endswith(stop)
        assert not any(s in emitted[:-1] for s in stops)
    else:
        assert not any(s in emitted for s in stops)
        assert whole[len(emitted) :].startswith(stop)
    # One token at a time gives what the text as one piece would give.
    first_end = min(whole.find(s) + len(s) for s in stops)
    assert len(emitted) == first_end - (0 if include else len(stop))


def test_a_stop_string_inside_one_token_cuts_the_token() -> None:
    backend = cases.byte_level()
    backend.add_tokens(["before STOP after"])
    ours = Tokenizer(backend)
    (token_id,) = ours.encode("before STOP after", add_special_tokens=False)
    assert deltas(ours, [], [token_id], SamplingParams(stop=("STOP",))) == (["before "], "STOP")
    params = SamplingParams(stop=("STOP",), include_stop_in_output=True)
    assert deltas(ours, [], [token_id], params) == (["before STOP"], "STOP")


def test_text_held_back_for_a_stop_string_comes_when_it_cannot_be_one() -> None:
    tokenizer = Tokenizer(cases.byte_level())
    ids = [tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "xENEND"]
    params = SamplingParams(stop=("END",))
    assert deltas(tokenizer, [], ids, params) == (["x", "", "", "EN", "", ""], "END")
    assert deltas(tokenizer, [], ids[:3], params) == (["x", "", "", "EN"], None)


@pytest.mark.parametrize(("min_tokens", "emitted"), [(0, ""), (2, ""), (3, "ab"), (7, "ababab")])
def test_stop_strings_wait_for_min_tokens(min_tokens: int, emitted: str) -> None:
    tokenizer = Tokenizer(cases.byte_level())
    ids = [tokenizer.encode(letter, add_special_tokens=False)[0] for letter in "ababab"]
    params = SamplingParams(stop=("ab",), min_tokens=min_tokens)
    pieces, stop = deltas(tokenizer, [], ids, params)
    assert "".join(pieces) == emitted
    assert stop == (None if min_tokens == 7 else "ab")


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_forks_are_independent(tokenizer: Tokenizer, data: st.DataObject) -> None:
    some_ids = st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=8)
    prompt, trunk, *ways = (data.draw(some_ids) for _ in range(4))
    params = SamplingParams(stop=("e", " th"), min_tokens=2)
    first = IncrementalDetokenizer(tokenizer, prompt, params)
    begun = [first.push(i) for i in trunk]
    assume(not any(delta.stop_string for delta in begun))
    second = first.fork()
    for subject, way in zip((first, second), ways, strict=True):
        alone = IncrementalDetokenizer(tokenizer, prompt, params)
        for token_id in trunk:
            alone.push(token_id)
        assert pushes(subject, way) == pushes(alone, way)


def pushes(detokenizer: IncrementalDetokenizer, ids: list[int]) -> list[DetokenizedDelta | str]:
    seen: list[DetokenizedDelta | str] = []
    for token_id in ids:
        delta = detokenizer.push(token_id)
        seen.append(delta)
        if delta.stop_string is not None:
            return seen
    return [*seen, detokenizer.flush()]
