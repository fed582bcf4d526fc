"""Questions about passages, answered and unanswered; the corpus and the evaluation share them.

Knows the world and nothing of tokens. `answer` is None where the documents do not say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from training.kinds import KINDS
from training.names import Split
from training.prompt import Document
from training.relations import Relation
from training.world import Entity, Passage, World


class QuestionType(Enum):
    """Whether the documents answer a question, and if not, why."""

    ANSWERED = "answered"
    PASSAGE_MISSING = "passage-missing"
    FACT_ABSENT = "fact-absent"


@dataclass(frozen=True)
class Question:
    """A question on some passages. `answer` is a literal piece of one of them, or None."""

    type: QuestionType
    entity: Entity
    relation: Relation
    text: str
    answer: str | None


@dataclass(frozen=True)
class Case:
    """A question of the evaluation with the documents it is asked of."""

    documents: tuple[Document, ...]
    question: Question


def draw_passages(
    world: World, num_passages: int, num_facts: tuple[int, int], same_kind_share: float = 0.6
) -> list[Passage]:
    """Passages on different entities, often of one kind and sometimes with confusable names."""
    rng = world.rng
    shared_kind = rng.choice(KINDS) if rng.random() < same_kind_share else None
    entities: list[Entity] = []
    while len(entities) < num_passages:
        if entities and rng.random() < 0.15:
            entity = world.near_miss(rng.choice(entities))
        else:
            entity = world.entity(shared_kind if rng.random() < 0.85 else None)
        if all(entity.name != other.name for other in entities):
            entities.append(entity)
    return [world.passage(entity, rng.randint(*num_facts)) for entity in entities]


def ask_answered(
    world: World,
    passage: Passage,
    others: Sequence[Passage] = (),
    *,
    contrast_share: float = 0.0,
    by_pronoun: bool = False,
) -> Question:
    """Ask for a fact that the passage states, and now and then `others` state too of theirs."""
    candidates = passage.stated
    if world.rng.random() < contrast_share:
        shared = tuple(r for r in candidates if any(r in other.stated for other in others))
        candidates = shared or candidates
    relation = world.rng.choice(candidates)
    text = passage.entity.ask(relation, world.rng, by_pronoun=by_pronoun)
    answer = passage.entity.facts[relation.name]
    return Question(QuestionType.ANSWERED, passage.entity, relation, text, answer)


def ask_absent_fact(
    world: World, passage: Passage, others: Sequence[Passage], *, by_pronoun: bool = False
) -> Question | None:
    """Ask for a fact of the passage's entity that no document states, if there is one.

    Most often a fact which another passage states of *its* entity, where one does.
    """
    rng = world.rng
    candidates = passage.unstated
    if not candidates:
        return None
    tempting = [r for r in candidates if any(r in other.stated for other in others)]
    relation = rng.choice(tempting if tempting and rng.random() < 0.6 else candidates)
    text = passage.entity.ask(relation, rng, by_pronoun=by_pronoun)
    return Question(QuestionType.FACT_ABSENT, passage.entity, relation, text, None)


def ask_missing_passage(world: World, passages: Sequence[Passage]) -> Question:
    """Ask about an entity that has no passage: a near-miss of one that has, or any other."""
    rng = world.rng
    taken = {passage.entity.name for passage in passages}
    while True:
        relation = None
        if passages and rng.random() < 0.75:
            passage = rng.choice(passages)
            near = rng.random() < 0.5
            entity = world.near_miss(passage.entity) if near else world.entity(passage.entity.kind)
            if rng.random() < 0.7:
                relation = rng.choice(passage.stated)
        else:
            entity = world.entity()
        if entity.name not in taken:
            break
    relation = relation or rng.choice(entity.kind.relations)
    text = entity.ask(relation, rng)
    return Question(QuestionType.PASSAGE_MISSING, entity, relation, text, None)


def held_out_cases(
    kind: QuestionType, count: int, *, num_passages: int = 3, seed: int = 2026
) -> list[Case]:
    """Evaluation questions on entities whose names never occur in training.

    Each asks one question of `num_passages` passages in random order, drawn as in training.
    """
    world = World(seed, Split.HELD_OUT)
    cases: list[Case] = []
    while len(cases) < count:
        passages = draw_passages(world, num_passages, (3, 6))
        question = _ask(world, kind, passages)
        if question is not None:
            cases.append(Case(tuple(passage.document for passage in passages), question))
    return cases


def _ask(world: World, kind: QuestionType, passages: list[Passage]) -> Question | None:
    if kind is QuestionType.PASSAGE_MISSING:
        return ask_missing_passage(world, passages)
    passage = world.rng.choice(passages)
    if kind is QuestionType.ANSWERED:
        return ask_answered(world, passage)
    return ask_absent_fact(world, passage, [p for p in passages if p is not passage])
