"""The documents and questions of the demo folder: entities whose names no training text has.

Draws a small part of the world with confusable names in it, and makes sure that each question has
one answer in the whole folder, or none. Knows nothing of files and their formats.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from training.kinds import KINDS
from training.kinds_society import FESTIVAL, ORGANISATION, PERSON, TOWN
from training.kinds_things import ANIMAL, BOOK, BUILDING, INSTRUMENT, SHIP
from training.names import Split
from training.relations import Relation
from training.world import Entity, Passage, World

__all__ = ["DemoWorld", "QuestionKind", "WorldQuestion", "draw_world"]

# How many documents there are on each kind.
NUM_ENTITIES = {
    PERSON: 34, TOWN: 26, SHIP: 26, ORGANISATION: 24, BUILDING: 20, INSTRUMENT: 20, BOOK: 18,
    ANIMAL: 18, FESTIVAL: 16,
}  # fmt: skip
NUM_ANSWERABLE, NUM_MISSING_ENTITY, NUM_MISSING_FACT = 252, 84, 84
NUM_FACTS = (3, 6)  # in a document: what the models were evaluated on
_NEAR_MISS_SHARE = 0.15  # of the entities, how many have a name like another's
_PER_ENTITY = 2  # answerable questions on one entity at most


class QuestionKind(StrEnum):
    """Whether the documents answer a question, and if not, why."""

    ANSWERABLE = "answerable"
    MISSING_ENTITY = "missing-entity"
    MISSING_FACT = "missing-fact"


@dataclass(frozen=True)
class WorldQuestion:
    """A question. `passage` is the one on its entity, None where there is none."""

    kind: QuestionKind
    text: str
    answer: str | None
    entity: str
    relation: Relation
    passage: Passage | None


@dataclass(frozen=True)
class DemoWorld:
    """What the folder says, and what is asked of it."""

    passages: tuple[Passage, ...]
    questions: tuple[WorldQuestion, ...]


def draw_world(seed: int) -> DemoWorld:
    """The passages in order of kind and the questions in random order, the same for one seed."""
    world = World(seed, Split.HELD_OUT)
    passages = tuple(_passages(world))
    questions = [
        *_answerable(world.rng, passages),
        *_missing_entity(world, passages),
        *_missing_fact(world.rng, passages),
    ]
    world.rng.shuffle(questions)
    return DemoWorld(passages, tuple(questions))


def _passages(world: World) -> Iterator[Passage]:
    written: list[str] = []
    for kind in KINDS:
        entities: list[Entity] = []
        while len(entities) < NUM_ENTITIES[kind]:
            near = entities and world.rng.random() < _NEAR_MISS_SHARE
            entity = world.near_miss(world.rng.choice(entities)) if near else world.entity(kind)
            passage = world.passage(entity, world.rng.randint(*NUM_FACTS))
            if _is_unmistakable(passage, written):
                entities.append(entity)
                written += [entity.name, passage.document.text]
                yield passage


def _is_unmistakable(passage: Passage, written: Sequence[str]) -> bool:
    """Whether neither the name occurs in what has been written, nor the other way round."""
    name, text = passage.entity.name, passage.document.text
    return not any(_mentions(other, name) or _mentions(text, other) for other in written)


def _mentions(text: str, name: str) -> bool:
    """Whether a name stands in a text as whole words."""
    start = text.find(name)
    while start >= 0:
        around = text[max(0, start - 1) : start] + text[start + len(name) : start + len(name) + 1]
        if not any(character.isalnum() for character in around):
            return True
        start = text.find(name, start + 1)
    return False


def _answerable(rng: random.Random, passages: Sequence[Passage]) -> Iterator[WorldQuestion]:
    """Every document is asked once before any is asked twice."""
    asked = [
        rng.sample(passage.stated, min(_PER_ENTITY, len(passage.stated))) for passage in passages
    ]
    pairs = [
        (passage, relations[turn])
        for turn in range(_PER_ENTITY)
        for passage, relations in rng.sample(list(zip(passages, asked, strict=True)), len(passages))
        if turn < len(relations)
    ]
    for passage, relation in pairs[:NUM_ANSWERABLE]:
        entity = passage.entity
        text, answer = entity.ask(relation, rng), entity.facts[relation.name]
        yield WorldQuestion(QuestionKind.ANSWERABLE, text, answer, entity.name, relation, passage)


def _missing_entity(world: World, passages: Sequence[Passage]) -> Iterator[WorldQuestion]:
    """Asks about names that no document has; half of them look like one that a document has."""
    rng = world.rng
    written = [
        text for passage in passages for text in (passage.entity.name, passage.document.text)
    ]
    count = 0
    while count < NUM_MISSING_ENTITY:
        passage = rng.choice(passages)
        is_near = count % 2 == 0
        entity = world.near_miss(passage.entity) if is_near else world.entity(passage.entity.kind)
        if any(_mentions(text, entity.name) or _mentions(entity.name, text) for text in written):
            continue
        written.append(entity.name)
        relation = rng.choice(passage.stated)
        yield WorldQuestion(
            QuestionKind.MISSING_ENTITY,
            entity.ask(relation, rng),
            None,
            entity.name,
            relation,
            None,
        )
        count += 1


def _missing_fact(rng: random.Random, passages: Sequence[Passage]) -> Iterator[WorldQuestion]:
    """Asks what a document does not say of its entity."""
    silent = [passage for passage in passages if passage.unstated]
    for passage in rng.sample(silent, NUM_MISSING_FACT):
        relation = rng.choice(passage.unstated)
        text = passage.entity.ask(relation, rng)
        yield WorldQuestion(
            QuestionKind.MISSING_FACT, text, None, passage.entity.name, relation, passage
        )
