"""Prompts in their three forms, and how each becomes token ids within the service's limits.

Knows nothing of gRPC or protobuf.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.engine.errors import InvalidRequestError
from services.generation.backend import Backend
from services.generation.config import RequestLimitsConfig
from services.runtime.offload import offload_if_large

__all__ = ["ChatPrompt", "PromptEncoder", "PromptInput", "TextPrompt", "TokenPrompt"]


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Text, tokenized with the model's special tokens unless told otherwise."""

    text: str


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids, taken as they are."""

    token_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Messages with `role`, `content` and perhaps `name`, for the model's chat template."""

    messages: Sequence[Mapping[str, str]]
    add_generation_prompt: bool = True


PromptInput = TextPrompt | TokenPrompt | ChatPrompt


class PromptEncoder:
    """Turns prompts into token ids; refuses what is empty, too large or out of range.

    Sizes are checked before any tokenizing. Long texts are tokenized in a thread, where the
    tokenizer lets go of the interpreter lock, so that the event loop goes on.
    """

    def __init__(self, backend: Backend, limits: RequestLimitsConfig) -> None:
        self._backend = backend
        self._limits = limits
        self._vocab_size = backend.info.vocab_size

    async def encode(
        self, prompt: PromptInput, *, field: str = "prompt", add_special_tokens: bool = True
    ) -> list[int]:
        """Token ids of a prompt. Raises `InvalidRequestError` naming `field`."""
        match prompt:
            case TextPrompt(text):
                return await self._encode_text(text, field, add_special_tokens)
            case TokenPrompt(token_ids):
                if not token_ids:
                    raise InvalidRequestError(field, "expected at least one token id")
                self.check_token_ids(token_ids, field)
                return list(token_ids)
            case ChatPrompt():
                return await self._encode_chat(prompt, field)

    async def _encode_text(self, text: str, field: str, add_special_tokens: bool) -> list[int]:
        if not text:
            raise InvalidRequestError(field, "expected a text that is not empty")
        self._check_size(text, field)
        token_ids = await offload_if_large(
            len(text), lambda: self._backend.encode(text, add_special_tokens)
        )
        if not token_ids:
            raise InvalidRequestError(field, "the text has no tokens")
        return token_ids

    async def _encode_chat(self, prompt: ChatPrompt, field: str) -> list[int]:
        if not prompt.messages:
            raise InvalidRequestError(field, "expected at least one message")
        limit = self._limits.max_chat_messages
        if len(prompt.messages) > limit:
            raise InvalidRequestError(
                field, f"expected at most {limit} messages, got {len(prompt.messages)}"
            )
        self._check_size("".join(message["content"] for message in prompt.messages), field)
        num_chars = sum(len(message["content"]) for message in prompt.messages)
        return await offload_if_large(
            num_chars,
            lambda: self._backend.encode_chat(prompt.messages, prompt.add_generation_prompt),
        )

    def check_token_ids(self, token_ids: Sequence[int], field: str) -> None:
        """Raises `InvalidRequestError` unless every id is in the vocabulary."""
        highest = max(token_ids, default=0)
        lowest = min(token_ids, default=0)
        if highest >= self._vocab_size or lowest < 0:
            wrong = highest if highest >= self._vocab_size else lowest
            raise InvalidRequestError(
                field, f"expected token ids from 0 to {self._vocab_size - 1}, got {wrong}"
            )

    def _check_size(self, text: str, field: str) -> None:
        limit = self._limits.max_prompt_bytes
        # A character has at most four bytes: most texts need no encoding to be judged.
        if len(text) * 4 > limit and len(text.encode()) > limit:
            raise InvalidRequestError(field, f"expected at most {limit} bytes of UTF-8")
