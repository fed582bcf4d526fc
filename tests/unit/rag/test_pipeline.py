"""A question through all stages, over scripted services."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from services.rag.config import ConversationConfig, RagConfig
from services.rag.conversations import Conversations
from services.rag.metrics import RagMetrics
from services.rag.pipeline import Pipeline
from services.rag.prompts.style import REFUSAL
from services.rag.services import Embedder, TextPurpose
from services.rag.types import (
    Abstention,
    Answer,
    AnswerMode,
    AnswerText,
    AskOptions,
    Event,
    GenerationTiming,
    PassagesFound,
    Question,
    SearchMode,
)
from services.runtime import store
from services.runtime.errors import (
    CollectionNotFound,
    DeadlineExceeded,
    DependencyDown,
    InvalidRequest,
)
from services.runtime.metrics import PrometheusRegistry
from services.runtime.peer import Caller
from tests.fakes.rag_server import CONFIG
from tests.fakes.rag_services import INDEX_GENERATION, FakeServices, passage, until
from tests.fakes.redis_server import redis_server

SHIP = passage(
    "The Veloria was launched in 1874. The captain of the Veloria is Tamir Osker.",
    document="ship",
    title="Veloria",
)
TOWN = passage("Bramhaven has 3416 people.", document="town", title="Bramhaven")
COUNT = passage("Aska has 12 bells.", document="aska", title="Aska")
BELL = passage("The bell of Ruun is of bronze.", document="ruun", title="Ruun")
WHO = "Who commands the Veloria?"


class Harness:
    """A pipeline over fakes, and what it counted."""

    def __init__(
        self,
        services: FakeServices,
        config: RagConfig = CONFIG,
        conversations: Conversations | None = None,
    ) -> None:
        self.services = services
        self.registry = PrometheusRegistry({"service": "rag", "model": "llama"})
        kept = conversations or Conversations(None, ConversationConfig())
        self.pipeline = Pipeline(config, services, kept, RagMetrics(self.registry))

    def ask(
        self,
        text: str = WHO,
        *,
        model: str = "",
        conversation: str = "",
        timeout_s: float = 30.0,
        explain: bool = False,
        **options: Any,
    ) -> AsyncGenerator[Event, None]:
        question = Question(
            text, "docs", AskOptions(**options), conversation_id=conversation, model=model
        )
        now = time.monotonic()
        caller = Caller("r-1", "key", now + timeout_s)
        return self.pipeline.ask(question, caller, now, explain=explain)

    async def asked(self, text: str = WHO, **options: Any) -> tuple[PassagesFound, str, Answer]:
        """The passages, the text streamed, and the answer; checks their order."""
        events = [event async for event in self.ask(text, **options)]
        assert isinstance(events[0], PassagesFound)
        assert isinstance(events[-1], Answer)
        streamed = ""
        for event in events[1:-1]:
            assert isinstance(event, AnswerText)
            streamed += event.text
        assert not self.services.open_calls.total()
        assert self.pipeline.running.num_running == 0
        return events[0], streamed, events[-1]

    def counted(self, outcome: str) -> float:
        value = self.registry.collector.get_sample_value(
            "orrery_rag_questions_total",
            {"service": "rag", "model": "llama", "outcome": outcome},
        )
        return value or 0.0


async def test_question_is_answered_with_passages_first_and_citations_last() -> None:
    harness = Harness(FakeServices([TOWN, SHIP], ["Tamir Osker"]))
    found, streamed, answer = await harness.asked()
    assert (found.passages, found.used) == ((TOWN, SHIP), (0, 1))
    assert found.queries == (WHO,)
    assert streamed == answer.text == "Tamir Osker"
    assert answer.abstention is None
    (citation,) = answer.citations
    assert (citation.passage, citation.quote) == (1, "The captain of the Veloria is Tamir Osker.")
    assert answer.index_generation == INDEX_GENERATION
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens == 2
    assert (answer.model, answer.agreement, answer.turn_saved) == ("fake-model", 1.0, False)
    assert answer.timing == GenerationTiming(1, 2, 3)
    assert answer.timeline == ()
    assert harness.counted("answered") == 1


async def test_search_gets_vector_text_and_the_callers_own_words() -> None:
    harness = Harness(FakeServices([SHIP], ["Tamir Osker"]))
    rest = object()
    await harness.asked(k=5, min_score=0.4, search=rest, search_mode=SearchMode.HYBRID)
    (search,) = harness.services.searches
    assert search.rest is rest
    assert (search.k, search.min_score, search.mode) == (5, 0.4, SearchMode.HYBRID)
    assert search.queries[0].text == WHO
    assert search.queries[0].vector == (0.0, 1.0) if len(WHO) % 2 == 0 else (1.0, 0.0)
    assert harness.services.embedded == [("embedding", (WHO,), TextPurpose.QUERY)]


@pytest.mark.parametrize(
    ("embedding", "mode"), [(None, SearchMode.AUTO), (Embedder("", 2), SearchMode.SPARSE)]
)
async def test_search_by_words_alone_embeds_nothing(
    embedding: Embedder | None, mode: SearchMode
) -> None:
    harness = Harness(FakeServices([SHIP], ["Tamir Osker"], embedding=embedding))
    await harness.asked(search_mode=mode)
    assert harness.services.calls["embed"] == 0
    assert harness.services.searches[0].queries[0].vector is None


async def test_collection_is_asked_with_its_own_embedding() -> None:
    harness = Harness(
        FakeServices([SHIP], ["Tamir Osker"], embedding=Embedder("other-embedding", 2))
    )
    await harness.asked()
    assert harness.services.embedded[0][0] == "other-embedding"


async def test_no_passage_means_abstaining_without_asking_the_model() -> None:
    harness = Harness(FakeServices([], ["Tamir Osker"]))
    found, streamed, answer = await harness.asked()
    assert (found.passages, answer.abstention) == ((), Abstention.NO_PASSAGE)
    assert streamed == answer.text == REFUSAL
    assert harness.services.calls["generate"] == 0
    assert answer.model == ""
    assert harness.counted("abstained_no_passage") == 1


async def test_model_that_refuses_abstains() -> None:
    harness = Harness(FakeServices([SHIP], [REFUSAL]))
    _, streamed, answer = await harness.asked()
    assert (streamed, answer.text, answer.abstention) == (REFUSAL, REFUSAL, Abstention.MODEL)
    assert answer.citations == ()


async def test_answer_that_no_passage_supports_is_withdrawn() -> None:
    harness = Harness(FakeServices([SHIP], ["Quill Harrow"]))
    for options in ({}, {"num_samples": 3}, {"model": "chat", "num_samples": 3}):
        _, streamed, answer = await harness.asked(**options)
        assert streamed == REFUSAL, "a short answer is not seen before it is supported"
        assert (answer.text, answer.abstention) == (REFUSAL, Abstention.UNSUPPORTED)
    _, streamed, answer = await harness.asked(model="chat")
    assert streamed == "Quill Harrow", "a long one is not waited for"
    assert (answer.text, answer.abstention) == (REFUSAL, Abstention.UNSUPPORTED)


@pytest.mark.parametrize("model", ["llama", "chat"])
async def test_model_that_says_nothing_abstains_in_words(model: str) -> None:
    _, streamed, answer = await Harness(FakeServices([SHIP], [""])).asked(model=model)
    assert (streamed, answer.text, answer.abstention) == (REFUSAL, REFUSAL, Abstention.MODEL)


async def test_reasoning_is_streamed_while_the_answer_is_held_back() -> None:
    reply = "<reasoning>It says so.</reasoning>Tamir Osker."
    harness = Harness(FakeServices([SHIP], [reply]))
    events = [
        event async for event in harness.ask(model="chat", chain_of_thought=True, num_samples=2)
    ]
    deltas = [event for event in events if isinstance(event, AnswerText)]
    assert deltas == [AnswerText(reasoning="It says so."), AnswerText("Tamir Osker.")]


async def test_open_answer_is_streamed_as_it_is_written() -> None:
    harness = Harness(FakeServices([SHIP], ["Tamir Osker"]))
    events = [event async for event in harness.ask(mode=AnswerMode.OPEN)]
    texts = [event.text for event in events if isinstance(event, AnswerText)]
    assert texts == ["Tamir", " Osker"]


async def test_answer_from_a_passage_on_a_like_name_is_withdrawn() -> None:
    harness = Harness(FakeServices([SHIP], ["Tamir Osker"]))
    _, _, answer = await harness.asked("Who commands the Velorio?")
    assert answer.abstention is Abstention.UNSUPPORTED
    _, _, answer = await harness.asked("Who commands the Velorio?", model="chat")
    assert answer.abstention is None, "a model that does not confuse names is trusted"


async def test_open_mode_answers_without_passages_and_without_citations() -> None:
    harness = Harness(FakeServices([], ["Quill Harrow"]))
    _, _, answer = await harness.asked(mode=AnswerMode.OPEN)
    assert (answer.text, answer.abstention, answer.citations) == ("Quill Harrow", None, ())


async def test_no_passages_at_all_can_be_asked_for() -> None:
    harness = Harness(FakeServices([SHIP], ["Quill Harrow"]))
    found, _, answer = await harness.asked(mode=AnswerMode.OPEN, max_passages=0)
    assert (found.used, answer.text) == ((), "Quill Harrow")
    assert harness.services.chats[0][0].content == f"Question: {WHO}"
    _, _, strict = await harness.asked(max_passages=0)
    assert strict.abstention is Abstention.NO_PASSAGE


async def test_passages_beyond_the_styles_are_left_out_with_a_notice() -> None:
    harness = Harness(FakeServices([SHIP, TOWN, COUNT, BELL], ["Tamir Osker"]))
    found, _, _ = await harness.asked()
    assert (len(found.passages), found.used) == (4, (0, 1, 2))
    assert found.notices == ("1 passages were left out: at most 3 are put before the model",)


async def test_most_frequent_of_several_samples_wins() -> None:
    replies = ["Quill", "Tamir Osker", "tamir osker", "Tamir Osker."]
    harness = Harness(FakeServices([SHIP], replies))
    _, streamed, answer = await harness.asked(num_samples=4, seed=3)
    assert streamed == answer.text == "Tamir Osker"
    assert answer.agreement == 0.75
    (sampling,) = harness.services.samplings
    assert (sampling.num_samples, sampling.temperature, sampling.seed) == (4, 0.7, 3)


async def test_answer_that_was_cut_says_so() -> None:
    reply = "The captain is Tamir Osker [1]. He"
    harness = Harness(FakeServices([SHIP], [reply]))
    _, _, whole = await harness.asked(model="chat")
    assert not whole.truncated
    _, _, cut = await harness.asked(model="chat", max_tokens=6)
    assert (cut.text, cut.truncated) == ("The captain is Tamir Osker.", True)
    thinking = Harness(FakeServices([SHIP], ["<reasoning>It seems that the captain"]))
    _, _, none = await thinking.asked(model="chat", chain_of_thought=True, max_tokens=4)
    assert (none.abstention, none.truncated) == (Abstention.MODEL, True)


async def test_reasoning_is_kept_apart() -> None:
    reply = "<reasoning>It says so.</reasoning> The captain is Tamir Osker [1]."
    harness = Harness(FakeServices([SHIP], [reply]))
    events = [event async for event in harness.ask(model="chat", chain_of_thought=True)]
    reasoning = "".join(event.reasoning for event in events if isinstance(event, AnswerText))
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert reasoning.strip() == answer.reasoning == "It says so."
    assert answer.text == "The captain is Tamir Osker."
    assert answer.citations[0].passage == 0


async def test_several_wordings_and_a_made_up_passage_are_searched_for() -> None:
    replies = ["Who leads it?\nWho is its captain?", "Osker leads.", "The captain is Tamir Osker."]
    harness = Harness(FakeServices([TOWN, SHIP], replies))
    found, _, answer = await harness.asked(model="chat", num_queries=3, hyde=True, explain=True)
    assert found.queries == (WHO, "Who leads it?", "Who is its captain?")
    (search,) = harness.services.searches
    assert [query.text for query in search.queries] == list(found.queries)
    assert harness.services.embedded[1] == ("embedding", ("Osker leads.",), TextPurpose.PASSAGE)
    assert search.queries[0].vector == pytest.approx([0.5**0.5, 0.5**0.5])
    stages = [stage.stage for stage in answer.timeline]
    assert stages == ["queries", "hyde", "embed", "search", "pack", "generate", "cite"]
    assert answer.usage.completion_tokens == sum(len(reply.split(" ")) for reply in replies)


async def test_explaining_tells_every_stage_in_order() -> None:
    _, _, answer = await Harness(FakeServices([SHIP], ["Tamir Osker"])).asked(explain=True)
    assert [stage.stage for stage in answer.timeline] == [
        *("embed", "search", "pack", "generate", "cite"),
    ]
    starts = [stage.start_ns for stage in answer.timeline]
    assert starts == sorted(starts)
    assert all(stage.detail for stage in answer.timeline)
    assert answer.rerank_ns == 5


async def test_wrong_option_costs_nothing() -> None:
    harness = Harness(FakeServices([SHIP]))
    with pytest.raises(InvalidRequest):
        await harness.asked(hyde=True)
    assert not harness.services.calls


async def test_question_is_counted_once_whoever_leaves_when() -> None:
    harness = Harness(FakeServices([SHIP], ["Tamir Osker"]))
    events = harness.ask()
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Answer):
                break
    assert (harness.counted("answered"), harness.counted("failed_cancelled")) == (1, 0)


async def test_error_that_nobody_foresaw_is_counted() -> None:
    harness = Harness(FakeServices([SHIP], errors={"search": ZeroDivisionError()}))
    with pytest.raises(ZeroDivisionError):
        await harness.asked()
    assert harness.counted("failed_internal") == 1


async def test_error_of_a_service_ends_the_question_as_it_is() -> None:
    services = FakeServices([SHIP], errors={"search": CollectionNotFound("gone")})
    harness = Harness(services)
    with pytest.raises(CollectionNotFound):
        await harness.asked()
    assert harness.counted("failed_collection_not_found") == 1
    assert harness.pipeline.running.num_running == 0


@pytest.mark.parametrize(
    ("stuck", "stage"),
    [
        ("embedder", "embed"),
        ("embed", "embed"),
        ("search", "search"),
        ("tokenize", "pack"),
        ("generate", "generate"),
    ],
)
async def test_stage_that_spends_the_time_is_named(stuck: str, stage: str) -> None:
    harness = Harness(FakeServices([SHIP], ["Tamir Osker"], delays_s={stuck: 30.0}))
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        await harness.asked(timeout_s=0.2)
    assert time.monotonic() - began < 5
    assert caught.value.stage == stage
    assert f"{stage} " in caught.value.message
    assert not harness.services.open_calls.total()
    assert harness.counted("failed_deadline_exceeded") == 1


@pytest.mark.parametrize("stuck", ["embed", "search", "tokenize", "generate"])
async def test_cancelled_question_leaves_no_work(stuck: str) -> None:
    harness = Harness(FakeServices([SHIP], ["Tamir Osker"], delays_s={stuck: 30.0}))

    async def consume() -> None:
        async for _ in harness.ask():
            pass

    task = asyncio.create_task(consume())
    await until(lambda: harness.services.open_calls[stuck])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not harness.services.open_calls.total()
    assert harness.pipeline.running.num_running == 0
    assert harness.pipeline.running.by_stage == {}
    assert harness.counted("failed_cancelled") == 1


async def test_conversation_is_searched_with_its_last_question_and_remembered(
    tmp_path: Path,
) -> None:
    with redis_server(tmp_path) as server:
        kept = Conversations(store.connect(server.url), CONFIG.conversations)
        services = FakeServices([SHIP], ["Tamir Osker", "1874"])
        harness = Harness(services, conversations=kept)
        _, _, first = await harness.asked(conversation="c")
        found, _, second = await harness.asked("When was it launched?", conversation="c")
        assert (first.turn_saved, second.turn_saved) == (True, True)
        assert found.queries == (f"{WHO} When was it launched?",)
        assert [message.role for message in services.chats[-1]] == ["user", "assistant", "user"]
        assert second.citations[0].quote == "The Veloria was launched in 1874."
        turns = (await kept.get("key", "c")).turns
        assert [turn.answer for turn in turns] == ["Tamir Osker", "1874"]

        server.kill()
        _, _, alone = await harness.asked("When was the Veloria launched?")
        assert alone.text == "1874"
        with pytest.raises(DependencyDown):
            await harness.asked(conversation="c")
        await kept.close()


async def test_model_that_follows_instructions_rewrites_a_follow_up(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        kept = Conversations(store.connect(server.url), CONFIG.conversations)
        replies = ["Tamir Osker [1].", "When was the Veloria launched?", "In 1874 [1]."]
        harness = Harness(FakeServices([SHIP], replies), conversations=kept)
        await harness.asked(conversation="c", model="chat")
        found, _, _ = await harness.asked("When?", conversation="c", model="chat")
        assert found.queries == ("When was the Veloria launched?",)
        await kept.close()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSTOP])
async def test_answer_is_not_lost_with_the_store(
    tmp_path: Path, signal_number: signal.Signals
) -> None:
    with redis_server(tmp_path) as server:
        kept = Conversations(store.connect(server.url), CONFIG.conversations)
        harness = Harness(FakeServices([SHIP], ["Tamir Osker"]), conversations=kept)
        events = harness.ask(conversation="c", timeout_s=1.0)
        assert isinstance(await anext(events), PassagesFound)
        os.kill(server.pid, signal_number)
        rest = [event async for event in events]
        assert isinstance(rest[-1], Answer)
        assert (rest[-1].text, rest[-1].turn_saved) == ("Tamir Osker", False)
        await kept.close()
