"""Fits passages and earlier turns into a model's context. Nothing is cut: whole, or left out.

The prompt is counted by the generation service, as its chat template writes it. Where it is too
long, sizes of its parts are estimated by their share of the text, so that one more count is most
often enough; what is returned has always been counted. Every part that is left out has a notice.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from services.rag.prompts.style import AnswerPrompt, PromptStyle
from services.rag.services import Tokenized
from services.rag.types import AnswerMode, Message, Passage, Turn
from services.runtime.errors import ContextTooLong

__all__ = ["Packed", "Packing", "pack"]

Count = Callable[[Sequence[Message]], Awaitable[Tokenized]]


@dataclass(frozen=True, slots=True)
class Packing:
    """What should be packed, best passage and oldest turn first, and what room there must be."""

    style: PromptStyle
    question: str
    passages: Sequence[Passage]
    history: Sequence[Turn]
    max_passages: int
    max_tokens: int  # of the answer
    mode: AnswerMode = AnswerMode.STRICT
    chain_of_thought: bool = False


@dataclass(frozen=True, slots=True)
class Packed:
    """A prompt that fits. `used` are indexes into the passages, `max_tokens` fit behind it."""

    token_ids: tuple[int, ...]
    used: tuple[int, ...]
    num_turns: int
    notices: tuple[str, ...]


async def pack(packing: Packing, count: Count) -> Packed:
    """Chooses what goes into the prompt. Raises `ContextTooLong` if the question alone does not."""
    used = list(range(min(packing.max_passages, len(packing.passages))))
    history = list(packing.history)
    while True:
        chat = _chat(packing, used, history)
        counted = await count(chat)
        room = counted.max_model_len - packing.max_tokens
        excess = len(counted.token_ids) - room
        if excess <= 0:
            notices = _notices(packing, used, len(history), counted.max_model_len)
            return Packed(counted.token_ids, tuple(used), len(history), notices)
        if not used and not history:
            raise ContextTooLong(
                f"question: it takes {len(counted.token_ids)} tokens and the answer up to "
                f"{packing.max_tokens}; the model's context is {counted.max_model_len}",
                field="question",
            )
        tokens_per_byte = len(counted.token_ids) / max(1, _size(chat))
        used, history = _smaller(packing, used, history, excess / tokens_per_byte)


def _smaller(
    packing: Packing, used: list[int], history: list[Turn], excess_bytes: float
) -> tuple[list[int], list[Turn]]:
    """Leaves out at least one part: the oldest turns first, then the worst passages.

    A passage is kept where those better than it leave it room, so that one long passage does not
    cost the short ones after it.
    """
    kept_history = list(history)
    while kept_history and excess_bytes > 0:
        turn = kept_history.pop(0)
        excess_bytes -= len(turn.question.encode()) + len(turn.answer.encode())
    if excess_bytes <= 0 and len(kept_history) < len(history):
        return used, kept_history
    sizes = {index: len(packing.passages[index].text.encode()) for index in used}
    room = sum(sizes.values()) - excess_bytes
    kept: list[int] = []
    for index in used:
        if sizes[index] <= room:
            kept.append(index)
            room -= sizes[index]
    if len(kept) == len(used) and len(kept_history) == len(history):
        kept.pop()
    return kept, kept_history


def _chat(packing: Packing, used: Sequence[int], history: Sequence[Turn]) -> list[Message]:
    return packing.style.chat(
        AnswerPrompt(
            packing.question,
            tuple(packing.passages[index] for index in used),
            tuple(history),
            packing.mode,
            packing.chain_of_thought,
        )
    )


def _size(chat: Sequence[Message]) -> int:
    return sum(len(message.content.encode()) for message in chat)


def _notices(
    packing: Packing, used: Sequence[int], num_turns: int, max_model_len: int
) -> tuple[str, ...]:
    notices = []
    num_turns_out = len(packing.history) - num_turns
    if num_turns_out:
        notices.append(
            f"the {num_turns_out} oldest turns of the conversation were left out: they do not fit "
            f"the model's context of {max_model_len} tokens"
        )
    for index, passage in enumerate(packing.passages[: packing.max_passages]):
        if index not in used:
            notices.append(
                f"passage {passage.chunk_id} was left out: it does not fit the model's context of "
                f"{max_model_len} tokens"
            )
    num_beyond = len(packing.passages) - packing.max_passages
    if num_beyond > 0:
        notices.append(
            f"{num_beyond} passages were left out: at most {packing.max_passages} are put before "
            "the model"
        )
    return tuple(notices)
