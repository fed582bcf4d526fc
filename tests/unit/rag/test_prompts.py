"""How models are asked, and how their replies are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.rag.prompts.instruct import InstructReader, InstructStyle
from services.rag.prompts.orrery import OrreryStyle
from services.rag.prompts.passages import title_of
from services.rag.prompts.style import REFUSAL, AnswerPrompt, AnswerReader
from services.rag.types import AnswerMode, Message, Passage, Turn
from tests.fakes.rag_services import passage
from training.prompt import REFUSAL as TRAINED_REFUSAL
from training.prompt import Document, format_question

VELORIA = passage("The Veloria was launched in 1874.\nIts captain is Osker.", title="Veloria")
TOWN = passage("# Bramhaven\n\nBramhaven has 3416 people.", document="town", title="Bramhaven")
TURN = Turn("Who commands the Veloria?", "Osker")


def read(reader: AnswerReader, pieces: list[str]) -> tuple[str, str]:
    read = [*(reader.feed(piece) for piece in pieces), reader.finish()]
    return "".join(piece.text for piece in read), "".join(piece.reasoning for piece in read)


def test_orrery_prompt_is_the_one_that_the_demo_models_were_trained_on() -> None:
    chat = OrreryStyle().chat(AnswerPrompt("Who commands it?", (VELORIA, TOWN)))
    documents = [
        Document("Veloria", "The Veloria was launched in 1874. Its captain is Osker."),
        Document("Bramhaven", "Bramhaven has 3416 people."),
    ]
    assert chat == [Message("user", format_question(documents, "Who commands it?"))]
    assert REFUSAL == TRAINED_REFUSAL


def test_orrery_history_is_turns_with_the_passages_in_the_first() -> None:
    chat = OrreryStyle().chat(AnswerPrompt("And its length?", (VELORIA,), (TURN,)))
    assert [message.role for message in chat] == ["user", "assistant", "user"]
    assert chat[0].content.startswith("[1] Veloria\n")
    assert chat[0].content.endswith("Question: Who commands the Veloria?")
    assert [message.content for message in chat[1:]] == ["Osker", "Question: And its length?"]


def test_orrery_without_passages_asks_the_bare_question() -> None:
    chat = OrreryStyle().chat(AnswerPrompt("Who?", ()))
    assert chat == [Message("user", format_question([], "Who?"))]


def test_title_is_the_headings_or_else_the_documents() -> None:
    under = Passage("d#0", "d", "text", 0.5, document_title="Doc", title_path=("Doc", "Part"))
    assert title_of(under) == "Doc – Part"
    assert title_of(VELORIA) == "Veloria"


def test_passage_that_is_a_heading_alone_keeps_it() -> None:
    alone = passage("# Bramhaven", title="Bramhaven")
    chat = OrreryStyle().chat(AnswerPrompt("Who?", (alone,)))
    assert chat[0].content.startswith("[1] Bramhaven\n# Bramhaven\n")


def test_instruct_prompt_says_how_to_cite_to_refuse_and_to_reason() -> None:
    strict = InstructStyle().chat(AnswerPrompt("Who?", (VELORIA,), (TURN,), chain_of_thought=True))
    assert [message.role for message in strict] == ["system", "user", "assistant", "user"]
    assert REFUSAL in strict[0].content
    assert "<reasoning>" in strict[0].content
    assert "[1] Veloria\n" in strict[-1].content
    opened = InstructStyle().chat(AnswerPrompt("Who?", (), mode=AnswerMode.OPEN))
    assert REFUSAL not in opened[0].content


@pytest.mark.parametrize("reply", [REFUSAL, f'"{REFUSAL}"', "the documents do not say"])
def test_instruct_refusal_is_known_in_its_variants(reply: str) -> None:
    assert InstructStyle().is_refusal(reply)
    assert not InstructStyle().is_refusal(f"{reply} But Osker does.")


def test_orrery_reader_passes_all_but_the_white_space_around() -> None:
    assert read(OrreryStyle().reader(), [" ", "Tamir", " ", "Osker", " \n"]) == ("Tamir Osker", "")


def test_reader_takes_markers_out_and_notes_where_they_stood() -> None:
    reader = InstructReader()
    answer, reasoning = read(reader, ["Osker comm", "ands it [", "1]. It is old [2", ", 3]."])
    assert (answer, reasoning) == ("Osker commands it. It is old.", "")
    assert [(m.position, m.numbers) for m in reader.markers] == [(17, (1,)), (28, (2, 3))]


def test_reader_keeps_reasoning_apart() -> None:
    pieces = ["<reas", "oning>Two of th", "em.</reaso", "ning>\n\nOsker", " [1]"]
    reader = InstructReader()
    assert read(reader, pieces) == ("Osker", "Two of them.")
    assert [(m.position, m.numbers) for m in reader.markers] == [(5, (1,))]
    assert read(InstructReader(), ["<think>cut off"]) == ("", "cut off")


def test_reader_gives_back_what_only_looked_like_a_marker_or_a_tag() -> None:
    assert read(InstructReader(), ["a [x] b <reas"]) == ("a [x] b <reas", "")
    assert read(InstructReader(), ["a [1", " and so on"]) == ("a [1 and so on", "")


REPLY = st.lists(
    st.sampled_from(
        ["Osker", " ", "\n", "[1]", "[", "]", "[2, 3]", ".", "<think>", "</think>", "<", "1"]
    )
).map("".join)


@given(REPLY, st.lists(st.integers(1, 6)))
def test_reader_reads_the_same_however_the_reply_is_cut(reply: str, lengths: list[int]) -> None:
    pieces, rest = [], reply
    for length in lengths:
        pieces.append(rest[:length])
        rest = rest[length:]
    whole, cut = InstructReader(), InstructReader()
    assert read(cut, [*pieces, rest]) == read(whole, [reply])
    assert list(cut.markers) == list(whole.markers)
