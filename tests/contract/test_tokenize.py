"""Tokenize and Detokenize, GetModel and GetLoad."""

from __future__ import annotations

import hashlib

import pytest

from orrery.v1 import generation_pb2 as pb
from tests.contract.served import Served, chat, greedy, is_idle, text


@pytest.mark.parametrize(
    "value",
    [
        "The lamp keeper.",
        "  two  spaces ",
        "line\nbreak\ttab",
        "naïve — ünïcode ✓",
        "日本語 🙂",
        "a" * 3000,
    ],
)
async def test_what_goes_in_comes_back(served: Served, value: str) -> None:
    tokenized = await served.stub.Tokenize(
        pb.TokenizeRequest(prompt=text(value), add_special_tokens=False), metadata=served.metadata
    )
    assert len(tokenized.tokens) == len(tokenized.token_ids)
    assert tokenized.usage.prompt_tokens == len(tokenized.token_ids)
    back = await served.stub.Detokenize(
        pb.DetokenizeRequest(token_ids=tokenized.token_ids), metadata=served.metadata
    )
    assert back.text == value


async def test_special_tokens_come_and_go_by_request(served: Served) -> None:
    async def ids(special: bool) -> list[int]:
        response = await served.stub.Tokenize(
            pb.TokenizeRequest(prompt=text("a lamp"), add_special_tokens=special),
            metadata=served.metadata,
        )
        return list(response.token_ids)

    assert (await ids(True))[-len(await ids(False)) :] == await ids(False)


async def test_chat_is_tokenized_by_its_template_with_special_tokens(served: Served) -> None:
    response = await served.stub.Tokenize(
        pb.TokenizeRequest(prompt=chat("Hello")), metadata=served.metadata
    )
    whole, plain = [
        (
            await served.stub.Detokenize(
                pb.DetokenizeRequest(token_ids=response.token_ids, skip_special_tokens=skip),
                metadata=served.metadata,
            )
        ).text
        for skip in (False, True)
    ]
    assert "Hello" in plain
    assert len(whole) > len(plain)


async def test_a_text_longer_than_the_context_is_still_counted(served: Served) -> None:
    response = await served.stub.Tokenize(
        pb.TokenizeRequest(prompt=text("lamp " * 20_000)), metadata=served.metadata
    )
    assert len(response.token_ids) > response.max_model_len


async def test_model_tells_its_shape_and_limits(served: Served) -> None:
    info = await served.info()
    assert (info.model, info.family, info.backend) == (served.model, "llama", "native")
    assert info.hidden_size == info.num_heads * info.head_dim
    assert info.num_heads % info.num_kv_heads == 0
    assert info.num_parameters > 100_000
    assert len(bytes.fromhex(info.weight_hash)) == hashlib.sha256().digest_size
    assert info.has_chat_template
    assert info.max_model_len >= 1024
    element = 4 if info.dtype == "float32" else 2
    per_token = 2 * info.num_layers * info.num_kv_heads * info.head_dim * element
    assert info.cache.bytes_per_block == per_token * info.cache.block_size
    assert info.cache.num_blocks * info.cache.block_size >= info.max_model_len
    assert min(info.limits.max_running, info.limits.max_n, info.limits.max_batch_prompts) > 0
    assert info.created > 1_700_000_000


async def test_load_is_idle_and_says_which_process_serves(served: Served) -> None:
    load = await served.wait_until_idle(limit_s=5.0)
    assert is_idle(load)
    assert load.model == served.model
    assert load.process_id > 0
    assert load.resident_bytes > 50 << 20


async def test_load_counts_the_tokens_of_every_request(served: Served) -> None:
    before = await served.wait_until_idle(limit_s=5.0)
    request = pb.GenerateRequest(prompt=text("a lamp"), sampling=greedy(max_tokens=7))
    usage = (await served.generate(request))[-1].usage
    after = await served.wait_until_idle(limit_s=5.0)
    assert after.num_finished == before.num_finished + 1
    assert after.num_prompt_tokens == before.num_prompt_tokens + usage.prompt_tokens
    assert after.num_cached_tokens == before.num_cached_tokens + usage.cached_tokens
    assert after.num_completion_tokens == before.num_completion_tokens + 7
