"""What a prompt style is: how passages and a question become a chat, and how a reply is read.

The seam between the pipeline and the habits of a model. Knows nothing of either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from services.rag.types import AnswerMode, AnswerText, Message, Passage, Turn

__all__ = ["REFUSAL", "AnswerPrompt", "AnswerReader", "Marker", "PromptStyle", "QueryPrompts"]

# What every abstention says, whoever says it: the words that the demo models were trained on.
REFUSAL = "The documents do not say."


@dataclass(frozen=True, slots=True)
class AnswerPrompt:
    """What a chat that asks for an answer is made of. Passages are numbered from 1."""

    question: str
    passages: tuple[Passage, ...]
    history: tuple[Turn, ...] = ()
    mode: AnswerMode = AnswerMode.STRICT
    chain_of_thought: bool = False


@dataclass(frozen=True, slots=True)
class Marker:
    """A model's own citation: at character `position` of the answer, of passages by number."""

    position: int
    numbers: tuple[int, ...]


class AnswerReader(Protocol):
    """Takes a reply as it is written and tells answer from reasoning and citations.

    The pieces that it returns, joined, are the whole answer and the whole reasoning.
    """

    @property
    def markers(self) -> Sequence[Marker]:
        """The model's own citations so far."""
        ...

    def feed(self, text: str) -> AnswerText:
        """What can be told of the reply with `text` added; the rest is held back."""
        ...

    def finish(self) -> AnswerText:
        """What was held back."""
        ...


class QueryPrompts(Protocol):
    """Chats that prepare a search; only models that follow instructions can be asked so."""

    def rewrite(self, question: str, history: Sequence[Turn]) -> list[Message]:
        """Asks for the question as one that needs no conversation to be understood."""
        ...

    def wordings(self, question: str, count: int) -> list[Message]:
        """Asks for `count` other wordings, one on each line."""
        ...

    def hypothetical(self, question: str) -> list[Message]:
        """Asks for a passage that would answer (Gao et al. 2022)."""
        ...


class PromptStyle(Protocol):
    """One way to ask."""

    @property
    def name(self) -> str: ...

    @property
    def max_passages(self) -> int:
        """Passages that are put before the model unless the question says otherwise."""
        ...

    @property
    def max_tokens(self) -> int:
        """Tokens of an answer unless the question says otherwise."""
        ...

    @property
    def is_brief(self) -> bool:
        """Whether an answer is a few words, so that waiting for its end costs little."""
        ...

    @property
    def query_prompts(self) -> QueryPrompts | None:
        """None: the model cannot prepare searches."""
        ...

    @property
    def reasons(self) -> bool:
        """Whether the model can be asked to reason first."""
        ...

    @property
    def confuses_names(self) -> bool:
        """Whether the model may answer from a passage on something of a like name.

        Then a passage supports an answer only if it has every name in the question.
        """
        ...

    def chat(self, prompt: AnswerPrompt) -> list[Message]:
        """The chat that asks for the answer."""
        ...

    def reader(self) -> AnswerReader:
        """Reads one reply."""
        ...

    def is_refusal(self, answer: str) -> bool:
        """Whether the model says that the passages do not tell."""
        ...
