"""Entities of the fictional world and the passages that state some of their facts.

Knows names, relations and values; knows nothing of samples, tokens or models.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from training.kinds import KINDS
from training.kinds_society import PERSON
from training.names import Namer, Split
from training.prompt import Document
from training.relations import Kind, Relation
from training.values import make_value

PRONOUN_SHARE = 0.15  # of the sentences after the first, how many use a pronoun for the subject
_AUXILIARIES = {"is", "was", "does", "did", "has", "can"}


@dataclass(frozen=True)
class Entity:
    """A thing of the world. `facts` maps the name of each relation of its kind to its value."""

    name: str
    kind: Kind
    pronouns: tuple[str, str]  # as subject, as object
    facts: dict[str, str] = field(hash=False)

    @property
    def subject(self) -> str:
        return f"{self.kind.article}{self.name}"

    def ask(self, relation: Relation, rng: random.Random, *, by_pronoun: bool = False) -> str:
        """A question about one fact, naming the entity or (in a follow-up) by pronoun."""
        phrase = rng.choice(relation.questions)
        if by_pronoun:
            return _with_pronoun(phrase, self.pronouns)
        return phrase.replace("{s}", self.subject)


@dataclass(frozen=True)
class Passage:
    """A text about one entity that states the facts named in `stated`, in that order."""

    entity: Entity
    stated: tuple[Relation, ...]
    document: Document

    @property
    def unstated(self) -> tuple[Relation, ...]:
        """The relations of the entity's kind on which the passage is silent."""
        return tuple(r for r in self.entity.kind.relations if r not in self.stated)


class World:
    """Draws entities and passages of one split from a seeded generator."""

    def __init__(self, seed: int, split: Split, pronoun_share: float = PRONOUN_SHARE) -> None:
        self.pronoun_share = pronoun_share
        self.rng = random.Random(f"{seed}-{split.value}")
        self.namer = Namer(self.rng, split)

    def entity(self, kind: Kind | None = None, name: str | None = None) -> Entity:
        """A fresh entity; of a random kind and with a new name unless given."""
        rng = self.rng
        kind = kind or rng.choice(KINDS)
        pronouns = ("it", "it")
        if kind is PERSON:
            pronouns = rng.choice((("she", "her"), ("he", "him")))
        facts = {r.name: make_value(r.value, rng, self.namer) for r in kind.relations}
        return Entity(name or self.namer.name(kind.name), kind, pronouns, facts)

    def near_miss(self, entity: Entity) -> Entity:
        """Another entity of the same kind whose name is easily confused."""
        return self.entity(entity.kind, self.namer.near_miss(entity.name, entity.kind.name))

    def passage(self, entity: Entity, num_facts: int, filler_share: float = 0.1) -> Passage:
        """Write a passage that states `num_facts` of the entity's facts in random order."""
        rng = self.rng
        relations = entity.kind.relations
        stated = tuple(rng.sample(relations, min(num_facts, len(relations))))
        sentences: list[str] = []
        for position, relation in enumerate(stated):
            phrase = rng.choice(relation.statements)
            if position and rng.random() < self.pronoun_share:
                phrase = _with_pronoun(phrase, entity.pronouns)
            phrase = phrase.replace("{s}", entity.subject)
            sentences.append(_capitalised(phrase.replace("{v}", entity.facts[relation.name])))
            if rng.random() < filler_share:
                sentences.append(rng.choice(entity.kind.filler))
        document = Document(title=entity.name, text=" ".join(sentences))
        return Passage(entity, stated, document)


def _with_pronoun(phrase: str, pronouns: tuple[str, str]) -> str:
    """Put a pronoun for `{s}`: the subject form at the start or after an auxiliary verb."""
    before = phrase.split("{s}")[0].split()
    is_subject = not before or before[-1] in _AUXILIARIES
    return phrase.replace("{s}", pronouns[0] if is_subject else pronouns[1])


def _capitalised(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
