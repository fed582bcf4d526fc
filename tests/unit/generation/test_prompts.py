"""Prompts to token ids, within limits."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from services.engine.errors import InvalidRequestError
from services.generation.config import RequestLimitsConfig
from services.generation.prompts import (
    ChatPrompt,
    PromptEncoder,
    PromptInput,
    TextPrompt,
    TokenPrompt,
)
from tests.fakes.toy_backend import BOS, VOCAB_SIZE, ToyBackend

LIMITS = RequestLimitsConfig(max_prompt_bytes=10_000, max_chat_messages=3)


@pytest.fixture
def encoder() -> PromptEncoder:
    return PromptEncoder(ToyBackend(), LIMITS)


async def test_text_gets_special_tokens_unless_told_otherwise(encoder: PromptEncoder) -> None:
    assert await encoder.encode(TextPrompt("a")) == [BOS, 97]
    assert await encoder.encode(TextPrompt("a"), add_special_tokens=False) == [97]


async def test_token_ids_are_taken_as_they_are(encoder: PromptEncoder) -> None:
    assert await encoder.encode(TokenPrompt((3, 2, 1))) == [3, 2, 1]


@pytest.mark.parametrize(
    "prompt",
    [
        TextPrompt(""),
        TokenPrompt([]),
        ChatPrompt([]),
        TokenPrompt([0, VOCAB_SIZE]),
        TokenPrompt([-1]),
        TextPrompt("x" * 10_001),
        TextPrompt("é" * 5_001),
        ChatPrompt([{"role": "user", "content": "x" * 5_001}] * 2),
        ChatPrompt([{"role": "user", "content": "x"}] * 4),
    ],
)
async def test_prompt_out_of_bounds_is_refused_by_field(
    encoder: PromptEncoder, prompt: PromptInput
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await encoder.encode(prompt, field="context")
    assert caught.value.field == "context"


async def test_size_counts_bytes_not_characters(encoder: PromptEncoder) -> None:
    assert len(await encoder.encode(TextPrompt("é" * 5_000))) == 10_001


async def test_large_text_leaves_the_event_loop_free() -> None:
    release = threading.Event()

    class SlowTokenizer(ToyBackend):
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            assert release.wait(10)
            return super().encode(text, add_special_tokens)

    encoder = PromptEncoder(SlowTokenizer(), RequestLimitsConfig())
    task = asyncio.create_task(encoder.encode(TextPrompt("x" * 100_000)))
    await asyncio.sleep(0.01)
    release.set()  # reached in time only because the tokenizer waits in another thread
    assert len(await task) == 100_001


async def test_chat_goes_through_the_template(encoder: PromptEncoder) -> None:
    turns: Sequence[dict[str, str]] = [{"role": "user", "content": "hi"}]
    backend = ToyBackend()
    assert await encoder.encode(ChatPrompt(turns)) == backend.encode("<user>hi\n<assistant>", True)
    assert await encoder.encode(ChatPrompt(turns, False)) == backend.encode("<user>hi\n", True)
