"""How the demo models are asked; the format is described in models/README.md.

They were trained to copy a value out of numbered passages or to refuse in fixed words, and on
nothing else: no instructions, no wordings of their own, no reasoning.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.rag.prompts.passages import joined_lines, numbered
from services.rag.prompts.style import REFUSAL, AnswerPrompt, Marker
from services.rag.types import AnswerText, Message

__all__ = ["OrreryStyle"]


class OrreryStyle:
    """Passages stand in the first user message, whichever turn they are for."""

    name = "orrery"
    max_passages = 3
    max_tokens = 48
    is_brief = True
    query_prompts = None
    reasons = False
    confuses_names = True

    def chat(self, prompt: AnswerPrompt) -> list[Message]:
        """Earlier turns as turns, the passages before the first of them."""
        messages: list[Message] = []
        for turn in prompt.history:
            messages.append(Message("user", f"Question: {joined_lines(turn.question)}"))
            messages.append(Message("assistant", turn.answer))
        messages.append(Message("user", f"Question: {joined_lines(prompt.question)}"))
        if prompt.passages:
            first = messages[0]
            messages[0] = Message("user", f"{numbered(prompt.passages)}\n\n{first.content}")
        return messages

    def reader(self) -> PlainReader:
        """Everything that it writes is the answer."""
        return PlainReader()

    def is_refusal(self, answer: str) -> bool:
        """It refuses in the words that it was trained on."""
        return answer.strip() == REFUSAL


class PlainReader:
    """Leaves out white space around the reply, and holds back what may be such."""

    def __init__(self) -> None:
        self._held = ""
        self._begun = False

    @property
    def markers(self) -> Sequence[Marker]:
        return ()

    def feed(self, text: str) -> AnswerText:
        """The reply up to its last visible character."""
        whole = self._held + text
        if not self._begun:
            whole = whole.lstrip()
        visible = whole.rstrip()
        self._begun = self._begun or bool(visible)
        self._held = whole[len(visible) :]
        return AnswerText(visible)

    def finish(self) -> AnswerText:
        """Nothing: only white space was held back."""
        return AnswerText()
