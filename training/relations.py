"""What a kind of entity is: its relations, and how each is stated and asked.

Knows nothing of passages, samples, tokens or models. In every phrase `{s}` is the subject and
`{v}` the value; a statement must contain the value literally and as a unit, because answers are
copied from it. Within one kind no fact follows from another, so that a question about an unstated
fact really has no answer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Relation:
    """One fact that entities of a kind can have, with its phrasings."""

    name: str
    value: str  # the kind of value, as `values.make_value` takes it
    statements: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of entity: how it is named, referred to and described."""

    name: str
    article: str  # "the " or ""
    relations: tuple[Relation, ...]
    filler: tuple[str, ...]  # sentences that state none of the relations


def relation(name: str, value: str, statements: str, questions: str) -> Relation:
    """Build a relation from phrasings separated by `|`."""
    return Relation(name, value, tuple(statements.split("|")), tuple(questions.split("|")))
