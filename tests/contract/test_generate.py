"""Generate and GenerateBatch: what a caller may rely on."""

from __future__ import annotations

import pytest

from orrery.v1 import common_pb2
from orrery.v1 import generation_pb2 as pb
from tests.contract.served import Served, chat, ends, greedy, joined, text, token_ids, tokens

PROMPT = "The observatory of"


async def test_stream_carries_text_ids_usage_timing_and_one_end(served: Served) -> None:
    request = pb.GenerateRequest(prompt=text(PROMPT), sampling=greedy(max_tokens=12))
    messages = await served.generate(request)
    prompt_ids = list(messages[0].prompt_token_ids)
    assert len(messages) > 1, "the first message must not wait for the last token"
    assert ends(messages) == {0: pb.FINISH_REASON_LENGTH}
    assert len(token_ids(messages)) == 12
    assert all(not message.prompt_token_ids for message in messages[1:])
    for message in messages:
        assert message.request_id == messages[0].request_id != ""
        assert message.model == served.model
        assert message.usage.prompt_tokens == len(prompt_ids)
        assert message.timing.total_ns > 0
    counts = [message.usage.completion_tokens for message in messages]
    assert counts == sorted(counts)
    assert counts[-1] == 12
    last = messages[-1].timing
    assert last.prefill_ns > 0
    assert last.decode_ns > 0
    assert last.queue_ns + last.prefill_ns + last.decode_ns <= last.total_ns


async def test_text_is_what_the_token_ids_say(served: Served) -> None:
    request = pb.GenerateRequest(prompt=text(PROMPT), sampling=greedy(max_tokens=24))
    messages = await served.generate(request)
    whole = [*messages[0].prompt_token_ids, *token_ids(messages)]
    decoded = await served.stub.Detokenize(
        pb.DetokenizeRequest(token_ids=whole, skip_special_tokens=True), metadata=served.metadata
    )
    assert decoded.text.endswith(joined(messages))


async def test_the_three_forms_of_a_prompt_agree(served: Served) -> None:
    as_text = await served.generate(
        pb.GenerateRequest(prompt=text(PROMPT), sampling=greedy(max_tokens=8))
    )
    ids = list(as_text[0].prompt_token_ids)
    as_ids = await served.generate(
        pb.GenerateRequest(prompt=tokens(ids), sampling=greedy(max_tokens=8))
    )
    assert token_ids(as_ids) == token_ids(as_text)

    as_chat = await served.generate(
        pb.GenerateRequest(prompt=chat("Hello"), sampling=greedy(max_tokens=8))
    )
    tokenized = await served.stub.Tokenize(
        pb.TokenizeRequest(prompt=chat("Hello")), metadata=served.metadata
    )
    assert list(as_chat[0].prompt_token_ids) == list(tokenized.token_ids)


async def test_chat_takes_system_and_history(served: Served) -> None:
    turns = [
        common_pb2.ChatMessage(role=common_pb2.ROLE_SYSTEM, content="Answer briefly."),
        common_pb2.ChatMessage(role=common_pb2.ROLE_USER, content="Hello"),
        common_pb2.ChatMessage(role=common_pb2.ROLE_ASSISTANT, content="Hello."),
        common_pb2.ChatMessage(role=common_pb2.ROLE_USER, content="Who are you?"),
    ]
    prompt = common_pb2.Prompt(chat=common_pb2.ChatMessages(messages=turns))
    messages = await served.generate(
        pb.GenerateRequest(prompt=prompt, sampling=pb.SamplingParams(max_tokens=48, temperature=0))
    )
    assert joined(messages).strip()
    assert len(ends(messages)) == 1


async def test_n_choices_are_different_and_each_ends_once(served: Served) -> None:
    sampling = pb.SamplingParams(max_tokens=16, n=4, seed=7, temperature=1.5, ignore_eos=True)
    messages = await served.generate(pb.GenerateRequest(prompt=text(PROMPT), sampling=sampling))
    assert ends(messages) == dict.fromkeys(range(4), pb.FINISH_REASON_LENGTH)
    choices = [tuple(token_ids(messages, index)) for index in range(4)]
    assert all(len(choice) == 16 for choice in choices)
    assert len(set(choices)) == 4
    assert messages[-1].usage.completion_tokens == 64


async def test_best_of_returns_the_n_most_likely(served: Served) -> None:
    sampling = pb.SamplingParams(
        max_tokens=6, n=1, best_of=4, seed=3, temperature=1.5, ignore_eos=True
    )
    messages = await served.generate(pb.GenerateRequest(prompt=text(PROMPT), sampling=sampling))
    assert list(ends(messages)) == [0]
    all_four = pb.SamplingParams(
        max_tokens=6, n=4, seed=3, temperature=1.5, ignore_eos=True, logprobs=0
    )
    everything = await served.generate(pb.GenerateRequest(prompt=text(PROMPT), sampling=all_four))
    scores = {
        delta.index: delta.cumulative_logprob
        for message in everything
        for delta in message.choices
        if delta.HasField("cumulative_logprob")
    }
    best = max(scores, key=lambda index: scores[index])
    assert token_ids(messages) == token_ids(everything, best)


async def test_same_seed_same_tokens_other_seed_others(served: Served) -> None:
    async def run(seed: int) -> list[int]:
        sampling = pb.SamplingParams(max_tokens=16, seed=seed, temperature=1.5, ignore_eos=True)
        return token_ids(
            await served.generate(pb.GenerateRequest(prompt=text(PROMPT), sampling=sampling))
        )

    assert await run(11) == await run(11)
    assert await run(11) != await run(12)


async def test_stop_string_is_cut_and_named(served: Served) -> None:
    free = joined(
        await served.generate(
            pb.GenerateRequest(prompt=text(PROMPT), sampling=greedy(max_tokens=32))
        )
    )
    stop = free[len(free) // 2 :][:4]
    expected = free[: free.index(stop)]
    cut = await served.generate(
        pb.GenerateRequest(prompt=text(PROMPT), sampling=greedy(max_tokens=32, stop=[stop]))
    )
    assert joined(cut) == expected
    last = cut[-1].choices[0]
    assert last.finish_reason == pb.FINISH_REASON_STOP
    assert last.stop_string == stop
    kept = await served.generate(
        pb.GenerateRequest(
            prompt=text(PROMPT),
            sampling=greedy(max_tokens=32, stop=[stop], include_stop_in_output=True),
        )
    )
    assert joined(kept) == expected + stop


async def test_stop_token_ends_and_is_named(served: Served) -> None:
    request = pb.GenerateRequest(prompt=text(PROMPT), sampling=greedy(max_tokens=16))
    free = token_ids(await served.generate(request))
    stop = free[8]
    stopped = await served.generate(
        pb.GenerateRequest(
            prompt=text(PROMPT), sampling=greedy(max_tokens=16, stop_token_ids=[stop])
        )
    )
    assert token_ids(stopped)[: free.index(stop)] == free[: free.index(stop)]
    assert stopped[-1].choices[0].stop_token_id == stop


async def test_logprobs_have_one_entry_per_token_best_first(served: Served) -> None:
    sampling = greedy(max_tokens=8, logprobs=3, prompt_logprobs=2)
    messages = await served.generate(pb.GenerateRequest(prompt=text(PROMPT), sampling=sampling))
    entries = [
        entry for message in messages for delta in message.choices for entry in delta.logprobs
    ]
    assert [entry.chosen.token_id for entry in entries] == token_ids(messages)
    for entry in entries:
        assert entry.chosen.rank == 1, "greedy takes the most likely"
        assert len(entry.top) == 3
        assert entry.top[0].token_id == entry.chosen.token_id
        assert [c.logprob for c in entry.top] == sorted(
            (c.logprob for c in entry.top), reverse=True
        )
    first = messages[0]
    assert len(first.prompt_logprobs) == len(first.prompt_token_ids)
    assert not first.prompt_logprobs[0].HasField("chosen")
    total = sum(entry.chosen.logprob for entry in entries)
    assert messages[-1].choices[0].cumulative_logprob == pytest.approx(total, abs=1e-3)


async def test_beam_search_returns_its_best_beams(served: Served) -> None:
    sampling = pb.SamplingParams(max_tokens=8, beam_width=4, n=2)
    messages = await served.generate(pb.GenerateRequest(prompt=text(PROMPT), sampling=sampling))
    assert set(ends(messages)) == {0, 1}
    assert token_ids(messages, 0) != token_ids(messages, 1)


async def test_shared_prefix_is_counted_as_cached(served: Served) -> None:
    info = await served.info()
    length = 8 * info.cache.block_size
    prefix = [(7 * number) % info.vocab_size for number in range(length)]
    await served.generate(
        pb.GenerateRequest(prompt=tokens([*prefix, 1]), sampling=greedy(max_tokens=1))
    )
    second = await served.generate(
        pb.GenerateRequest(prompt=tokens([*prefix, 2, 3]), sampling=greedy(max_tokens=1))
    )
    assert second[-1].usage.cached_tokens == length


async def test_batch_equals_the_single_calls_in_order(served: Served) -> None:
    prompts = [text(PROMPT), chat("Hello"), text("The lamp keeper"), tokens([5, 6, 7])]
    singles = [
        await served.generate(pb.GenerateRequest(prompt=prompt, sampling=greedy(max_tokens=8)))
        for prompt in prompts
    ]
    batch = await served.stub.GenerateBatch(
        pb.GenerateBatchRequest(prompts=prompts, sampling=greedy(max_tokens=8)),
        metadata=served.metadata,
    )
    assert batch.model == served.model
    assert batch.request_id
    for single, result in zip(singles, batch.results, strict=True):
        assert not result.HasField("error")
        assert result.completions[0].finish_reason == pb.FINISH_REASON_LENGTH
        assert list(result.prompt_token_ids) == list(single[0].prompt_token_ids)
        if served.exact:  # bfloat16 may break a near-tie otherwise in another batch
            assert list(result.completions[0].token_ids) == token_ids(single)
            assert result.completions[0].text == joined(single)
    assert batch.usage.completion_tokens == 32
    assert batch.timing.total_ns > 0


async def test_batch_isolates_the_prompt_that_is_wrong(served: Served) -> None:
    info = await served.info()
    prompts = [text(PROMPT), text(""), tokens([info.vocab_size]), tokens([1] * info.max_model_len)]
    batch = await served.stub.GenerateBatch(
        pb.GenerateBatchRequest(prompts=prompts, sampling=greedy(max_tokens=4)),
        metadata=served.metadata,
    )
    reasons = [result.error.reason for result in batch.results]
    assert reasons == ["", "INVALID_REQUEST", "INVALID_REQUEST", "CONTEXT_TOO_LONG"]
    assert all(result.error.field == "prompt" for result in batch.results[1:])
    assert batch.results[0].completions[0].token_ids
