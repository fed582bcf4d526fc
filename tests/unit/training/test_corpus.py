"""The corpus: no name leaks over the split, seeds repeat, answers are where they should be."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from training.corpus import COPYING, FULL, Weight, samples
from training.kinds import KINDS
from training.names import Namer, Split, split_of, stems_of
from training.prompt import ANSWER, REFUSAL, SPECIAL_TOKENS
from training.questions import Case, QuestionType, held_out_cases
from training.world import World

NUM_CASES = 150
CAPITALISED = re.compile(r"[A-Z][a-z]+")


def text_of(sample: list) -> str:
    return "".join(segment.text for segment in sample)


@pytest.fixture(scope="module", params=list(QuestionType), ids=lambda kind: kind.value)
def cases(request: pytest.FixtureRequest) -> list[Case]:
    return held_out_cases(request.param, NUM_CASES)


def test_relations_are_at_least_forty_with_several_phrasings_each() -> None:
    relations = [relation for kind in KINDS for relation in kind.relations]
    assert len(relations) >= 40
    for relation in relations:
        assert len(set(relation.statements)) >= 3
        assert len(set(relation.questions)) >= 3
        assert all("{s}" in phrase and "{v}" in phrase for phrase in relation.statements)
        assert all("{s}" in phrase and "{v}" not in phrase for phrase in relation.questions)


def test_names_of_a_split_have_all_their_stems_in_it() -> None:
    for split in Split:
        world = World(3, split)
        for kind in KINDS:
            for _ in range(40):
                entity = world.entity(kind)
                near = world.near_miss(entity)
                for name in (entity.name, near.name):
                    assert {split_of(stem) for stem in stems_of(name)} == {split}


def test_held_out_stems_never_occur_in_training_text() -> None:
    training_words: set[str] = set()
    for mix in (FULL, COPYING):
        for sample in islice(samples(mix, seed=5), 1500):
            training_words |= set(CAPITALISED.findall(text_of(sample)))
    held_out = World(9, Split.HELD_OUT).namer
    names = [held_out.name(kind.name) for kind in KINDS for _ in range(300)]
    stems = {stem for name in names for stem in stems_of(name)}
    assert len(stems) > 1000
    assert not stems & training_words


def test_near_miss_differs_and_shares_a_word_or_syllable() -> None:
    world = World(4, Split.TRAIN)
    namer: Namer = world.namer
    for kind in KINDS:
        for _ in range(50):
            name = namer.name(kind.name)
            assert namer.near_miss(name, kind.name) != name


def test_samples_repeat_for_the_same_seed_and_differ_for_another() -> None:
    first = [text_of(sample) for sample in islice(samples(FULL, seed=1), 40)]
    again = [text_of(sample) for sample in islice(samples(FULL, seed=1), 40)]
    other = [text_of(sample) for sample in islice(samples(FULL, seed=2), 40)]
    assert first == again
    assert first != other


def test_cases_repeat_for_the_same_seed(cases: list[Case]) -> None:
    again = held_out_cases(cases[0].question.type, NUM_CASES)
    assert [(c.documents, c.question.text) for c in cases] == [
        (c.documents, c.question.text) for c in again
    ]


def test_answer_is_literally_in_the_right_passage_only_when_answered(cases: list[Case]) -> None:
    for case in cases:
        question = case.question
        about = [d for d in case.documents if d.title == question.entity.name]
        if question.type is QuestionType.ANSWERED:
            assert len(about) == 1
            assert question.answer is not None
            assert question.answer in about[0].text
        else:
            assert question.answer is None
            assert len(about) == (question.type is QuestionType.FACT_ABSENT)


def test_unanswered_fact_is_stated_in_no_phrasing(cases: list[Case]) -> None:
    for case in cases:
        question = case.question
        if question.type is QuestionType.ANSWERED:
            continue
        text = " ".join(document.text for document in case.documents)
        for phrase in question.relation.statements:
            before, after = re.split(r"\{v\}", phrase)
            pattern = re.escape(before) + "(?!the year )[^.]+" + re.escape(after)
            pattern = pattern.replace(re.escape("{s}"), re.escape(question.entity.subject))
            assert not re.search(pattern, text, flags=re.IGNORECASE)


def test_passages_of_a_case_are_about_different_entities(cases: list[Case]) -> None:
    for case in cases:
        assert len({document.title for document in case.documents}) == len(case.documents) == 3


def test_marked_answers_are_in_the_context_and_refusals_decide_on_their_first_token() -> None:
    num_refusals = num_answers = 0
    for sample in islice(samples(FULL, seed=6), 300):
        for position, segment in enumerate(sample):
            if segment.text == REFUSAL:
                num_refusals += 1
                assert segment.first is Weight.DECISION
            if segment.text == ANSWER:
                num_answers += 1
                assert sample[position + 1].text in text_of(sample[:position])
    share = num_refusals / (num_refusals + num_answers)
    assert 0.3 < share < 0.5


def test_special_tokens_are_segments_of_their_own() -> None:
    for sample in islice(samples(FULL, seed=8), 200):
        for segment in sample:
            if segment.text not in SPECIAL_TOKENS:
                assert "<|" not in segment.text
