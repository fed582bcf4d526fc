"""The stages of the answer: the model writes it once or several times, and the samples vote.

Knows nothing of how passages were found.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from services.rag.planning import Plan
from services.rag.prompts.style import AnswerReader, Marker
from services.rag.services import Piece, Services
from services.rag.timeline import Timeline
from services.rag.types import AnswerText, GenerationTiming, GenerationUsage
from services.rag.voting import vote

__all__ = ["Writer", "Written"]


@dataclass(slots=True)
class _Reply:
    """One sample."""

    reader: AnswerReader
    text: str = ""
    reasoning: str = ""
    truncated: bool = False

    def add(self, piece: AnswerText) -> AnswerText:
        self.text += piece.text
        self.reasoning += piece.reasoning
        return piece


@dataclass(frozen=True, slots=True)
class Written:
    """The answer as the model gave it."""

    text: str
    reasoning: str
    markers: Sequence[Marker]
    agreement: float
    truncated: bool


@dataclass(slots=True)
class Writer:
    """Has one answer written. `written` is there once `write` has ended."""

    plan: Plan
    services: Services
    timeline: Timeline
    model: str = ""
    usage: GenerationUsage = field(default_factory=GenerationUsage)
    timing: GenerationTiming = field(default_factory=GenerationTiming)
    written: Written | None = None

    async def write(self, token_ids: Sequence[int]) -> AsyncGenerator[AnswerText, None]:
        """The answer as it is written; of several samples the one that wins, at once."""
        replies = [_Reply(self.plan.style.reader()) for _ in range(self.plan.sampling.num_samples)]
        several = len(replies) > 1
        with self.timeline.stage("generate") as stage:
            pieces = self.services.generate(
                self.plan.application, token_ids, self.plan.sampling, stage.caller
            )
            async with aclosing(pieces):
                while (piece := await stage.run(anext(pieces, None))) is not None:
                    delta = self._take(replies, piece)
                    if not several and (delta.text or delta.reasoning):
                        yield delta
            for reply in replies:
                delta = reply.add(reply.reader.finish())
                if not several and (delta.text or delta.reasoning):
                    yield delta
            usage = self.usage
            stage.detail = (
                f"{usage.prompt_tokens} prompt tokens, {usage.completion_tokens} generated"
            )
        self.written = self._chosen(replies)
        if several:
            yield AnswerText(self.written.text, self.written.reasoning)

    def _take(self, replies: list[_Reply], piece: Piece) -> AnswerText:
        self.model = piece.model
        self.usage = piece.usage
        self.timing = piece.timing
        reply = replies[piece.index]
        reply.truncated = reply.truncated or piece.truncated
        return reply.add(reply.reader.feed(piece.text))

    def _chosen(self, replies: list[_Reply]) -> Written:
        winner, agreement = 0, 1.0
        if len(replies) > 1:
            with self.timeline.stage("vote") as stage:
                result = vote([reply.text for reply in replies])
                winner, agreement = result.winner, result.agreement
                stage.detail = f"{agreement:.0%} of {len(replies)} samples"
        reply = replies[winner]
        return Written(
            reply.text,
            reply.reasoning.strip(),
            reply.reader.markers,
            agreement,
            reply.truncated,
        )
