"""Training samples: texts cut into weighted segments, drawn from the world by a seeded mix.

A sample is a list of segments, each either one special token or a stretch of text, with the weight
its tokens carry in the loss. Knows the prompt format; knows nothing of the tokenizer or of any
model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from training.chat import DESCRIBE_REQUESTS, EXCHANGES, SYSTEM_PROMPTS
from training.names import Split
from training.prompt import (
    ANSWER,
    ASSISTANT,
    BOS,
    END,
    REFUSAL,
    ROLE_TOKENS,
    format_documents,
    format_question,
)
from training.questions import (
    Question,
    ask_absent_fact,
    ask_answered,
    ask_missing_passage,
    draw_passages,
)
from training.world import PRONOUN_SHARE, Passage, World


class Weight(IntEnum):
    """Index into `LOSS_WEIGHTS`: what predicting a token counts for in the loss."""

    NOTHING = 0
    CONTEXT = 1
    ANSWER = 2
    DECISION = 3


LOSS_WEIGHTS = (0.0, 0.2, 1.0, 2.0)


@dataclass(frozen=True)
class Segment:
    """A stretch of text or one special token; `first` is the weight of its first token."""

    text: str
    weight: Weight = Weight.CONTEXT
    first: Weight | None = None


Sample = list[Segment]


@dataclass(frozen=True)
class Mix:
    """What a stage of the curriculum is made of. Shares are probabilities."""

    passage_weights: tuple[float, ...]  # of 0, 1, 2, ... passages per context
    num_facts: tuple[int, int]
    questions: tuple[int, int]  # per context, lowest and highest
    absent_share: float
    missing_share: float
    free_text_share: float = 0.0
    chat_share: float = 0.0
    describe_share: float = 0.0
    long_share: float = 0.0  # contexts of up to about 1,000 tokens
    follow_up_share: float = 0.0  # next question on the same entity, by pronoun
    same_kind_share: float = 0.6  # contexts whose passages are on entities of one kind
    contrast_share: float = 0.0  # answered questions on a fact that other passages state too
    pronoun_share: float = PRONOUN_SHARE
    context_share: float = 1.0  # of the context's tokens, how many count in the loss


COPYING = Mix(
    passage_weights=(0, 1),
    num_facts=(2, 4),
    questions=(4, 6),
    absent_share=0.0,
    missing_share=0.0,
)
BINDING = Mix(
    passage_weights=(0.01, 0.06, 0.33, 0.6),
    num_facts=(2, 4),
    questions=(5, 7),
    absent_share=0.1,
    missing_share=0.08,
    free_text_share=0.02,
    chat_share=0.03,
    describe_share=0.02,
    long_share=0.02,
    follow_up_share=0.04,
    same_kind_share=0.95,
    contrast_share=0.8,
    pronoun_share=0.05,
    context_share=0.25,
)
FULL = Mix(
    passage_weights=(0.01, 0.22, 0.22, 0.5, 0.05),
    num_facts=(3, 5),
    questions=(4, 7),
    absent_share=0.24,
    missing_share=0.15,
    context_share=0.25,
    contrast_share=0.3,
    free_text_share=0.03,
    chat_share=0.05,
    describe_share=0.05,
    long_share=0.04,
    follow_up_share=0.08,
)


def samples(mix: Mix, seed: int, split: Split = Split.TRAIN) -> Iterator[Sample]:
    """An endless stream of samples, the same for the same arguments."""
    world = World(seed, split, mix.pronoun_share)
    while True:
        draw = world.rng.random()
        if draw < mix.free_text_share:
            yield _free_text(world)
        elif draw < mix.free_text_share + mix.chat_share:
            yield _small_talk(world)
        else:
            yield _document_chat(world, mix)


def _free_text(world: World) -> Sample:
    """Passages as running text, so that a bare beginning is continued fluently."""
    rng = world.rng
    passages = draw_passages(world, rng.randint(1, 3), (3, 7))
    if rng.random() < 0.5:
        text = "\n\n".join(passage.document.text for passage in passages)
    else:
        text = "\n\n".join(f"{p.document.title}\n{p.document.text}" for p in passages)
    return [Segment(BOS, Weight.NOTHING), Segment(text, Weight.ANSWER), Segment(END)]


def _small_talk(world: World) -> Sample:
    rng = world.rng
    sample = _opening(world, system_share=0.3)
    for asked, replies in rng.sample(EXCHANGES, rng.randint(2, 5)):
        sample += _turn("user", rng.choice(asked))
        sample += [Segment(ASSISTANT), Segment(rng.choice(replies), Weight.ANSWER)]
        sample.append(Segment(END, Weight.ANSWER))
    return sample


def _document_chat(world: World, mix: Mix) -> Sample:
    """Passages, then several questions on them, the way a conversation renders them."""
    rng = world.rng
    passages = _draw_context(world, mix)
    documents = [passage.document for passage in passages]
    questions = _draw_questions(world, mix, passages)
    in_system = bool(documents) and rng.random() < 0.08
    if in_system:
        sample = [Segment(BOS, Weight.NOTHING), *_turn("system", format_documents(documents))]
    else:
        sample = _opening(world, system_share=0.15)
    # A client renders earlier replies from their text, in which the marker is gone.
    marker_in_history = rng.random() < 0.75
    for number, question in enumerate(questions):
        is_first, is_last = number == 0, number == len(questions) - 1
        bare = not is_first and rng.random() < 0.5
        shown = documents if is_first and not in_system else []
        text = question.text if bare else format_question(shown, question.text)
        sample += _turn("user", text)
        sample += _reply(question.answer, with_marker=marker_in_history or is_last)
        if rng.random() < 0.03:
            asked, replies = rng.choice(EXCHANGES)
            sample += _turn("user", rng.choice(asked))
            sample += [Segment(ASSISTANT), Segment(rng.choice(replies), Weight.ANSWER)]
            sample.append(Segment(END, Weight.ANSWER))
    return sample


def _draw_context(world: World, mix: Mix) -> list[Passage]:
    rng = world.rng
    if rng.random() < mix.long_share:
        return draw_passages(world, rng.randint(3, 7), (4, 7), mix.same_kind_share)
    weights = mix.passage_weights
    num_passages = rng.choices(range(len(weights)), weights)[0]
    return draw_passages(world, num_passages, mix.num_facts, mix.same_kind_share)


@dataclass(frozen=True)
class _Asked:
    """What a turn needs of its question."""

    text: str
    answer: str | None


def _draw_questions(world: World, mix: Mix, passages: list[Passage]) -> list[_Asked]:
    """Questions in random order; an absent fact is often asked beside a stated one."""
    rng = world.rng
    asked: list[_Asked] = []
    previous: Passage | None = None
    for _ in range(rng.randint(*mix.questions)):
        if passages and rng.random() < mix.describe_share:
            asked.append(_describe(world, passages))
            previous = None
            continue
        follows = previous is not None and rng.random() < mix.follow_up_share
        stays = previous is not None and (follows or rng.random() < 0.3)
        passage = previous if stays else (rng.choice(passages) if passages else None)
        question = _ask(world, mix, passages, passage, by_pronoun=follows)
        about_passage = passage is not None and question.entity is passage.entity
        previous = passage if about_passage else None
        asked.append(_Asked(question.text, question.answer))
    return asked


def _ask(
    world: World, mix: Mix, passages: list[Passage], passage: Passage | None, *, by_pronoun: bool
) -> Question:
    draw = world.rng.random()
    if passage is None or (not by_pronoun and draw < mix.missing_share):
        return ask_missing_passage(world, passages)
    others = [other for other in passages if other is not passage]
    if draw < mix.missing_share + mix.absent_share:
        absent = ask_absent_fact(world, passage, others, by_pronoun=by_pronoun)
        if absent is not None:
            return absent
    return ask_answered(
        world, passage, others, contrast_share=mix.contrast_share, by_pronoun=by_pronoun
    )


def _describe(world: World, passages: list[Passage]) -> _Asked:
    """Ask for a description: the first sentences of the passage, or nothing known."""
    rng = world.rng
    passage = rng.choice(passages)
    if rng.random() < 0.3:
        missing = ask_missing_passage(world, passages).entity
        return _Asked(rng.choice(DESCRIBE_REQUESTS).replace("{s}", missing.subject), None)
    text = rng.choice(DESCRIBE_REQUESTS).replace("{s}", passage.entity.subject)
    sentences = passage.document.text.split(". ")
    return _Asked(text, ". ".join(sentences[:2]).removesuffix(".") + ".")


def _opening(world: World, system_share: float) -> Sample:
    sample = [Segment(BOS, Weight.NOTHING)]
    if world.rng.random() < system_share:
        sample += _turn("system", world.rng.choice(SYSTEM_PROMPTS))
    return sample


def _turn(role: str, text: str) -> Sample:
    return [Segment(ROLE_TOKENS[role]), Segment(text), Segment(END)]


def _reply(answer: str | None, *, with_marker: bool) -> Sample:
    if answer is None:
        reply = [Segment(REFUSAL, Weight.CONTEXT, first=Weight.DECISION)]
    elif with_marker:
        reply = [
            Segment(ANSWER, Weight.DECISION),
            Segment(answer, Weight.ANSWER, first=Weight.DECISION),
        ]
    else:
        reply = [Segment(answer, Weight.ANSWER, first=Weight.NOTHING)]
    return [Segment(ASSISTANT), *reply, Segment(END, Weight.ANSWER)]
