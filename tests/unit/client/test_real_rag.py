"""The client against the real RAG service, whose own services are scripted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import orrery
from tests.fakes.rag_server import rag_server
from tests.fakes.rag_services import FakeServices, passage
from tests.fakes.redis_server import redis_server
from tests.unit.client.both_clients import Either
from tests.unit.client.command import orrery as command

QUESTION = "Who is the captain of the Veloria?"
PASSAGES = [
    passage("The captain of the Veloria is Tamir Osker.", document="ships/veloria.md"),
    passage("The harbour of Bramhaven freezes in winter.", document="towns.csv"),
]


def services(*replies: str, **others: Any) -> FakeServices:
    return FakeServices(passages=PASSAGES, replies=replies or ("Tamir Osker",), **others)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_answer_has_its_passages_citation_and_timeline(kind: str) -> None:
    async with rag_server(services()) as server:
        either = Either(kind, server.target)
        answer = await either.call("ask", QUESTION, collection="docs", explain=True, k=2)
        await either.close()
    assert (answer.text, answer.abstained) == ("Tamir Osker", False)
    assert answer.citations[0].document_id == "ships/veloria.md"
    assert "Tamir Osker" in answer.citations[0].quote
    assert len(answer.passages.hits) == 2
    assert {"search", "generate"} <= {stage.stage for stage in answer.timeline}


async def test_answer_that_was_cut_says_so() -> None:
    async with rag_server(services()) as server, orrery.AsyncClient(server.target) as client:
        answer = await client.ask(QUESTION, collection="docs", max_tokens=1)
        assert (answer.text, answer.truncated) == ("Tamir", True)


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_deadline_names_the_stage_that_spent_it(kind: str) -> None:
    async with rag_server(services(delays_s={"search": 5.0})) as server:
        either = Either(kind, server.target)
        with pytest.raises(orrery.DeadlineExceededError) as caught:
            await either.call("ask", QUESTION, collection="docs", timeout_s=0.5)
        await either.close()
    assert caught.value.stage == "search"


async def test_stream_left_early_leaves_no_work_behind() -> None:
    asked = services("word " * 500, delays_s={"generate": 0.01})
    async with rag_server(asked) as server, orrery.AsyncClient(server.target) as client:
        async with await client.ask(QUESTION, collection="docs", stream=True) as stream:
            async for event in stream:
                if isinstance(event, orrery.Passages):
                    break
        async with asyncio.timeout(10):
            while (  # noqa: ASYNC110 - the service is asked, it tells no event
                (await client.rag_load()).num_running or asked.open_calls.total()
            ):
                await asyncio.sleep(0.02)


async def test_conversation_is_remembered_and_forgotten(tmp_path: Path) -> None:
    with redis_server(tmp_path / "redis") as redis:
        async with (
            rag_server(services(), redis_url=redis.url) as server,
            orrery.AsyncClient(server.target) as client,
        ):
            answer = await client.ask(QUESTION, collection="docs", conversation="c")
            assert answer.turn_saved
            turn = (await client.conversation("c")).turns[0]
            assert (turn.question, turn.answer, turn.abstention) == (QUESTION, answer.text, None)
            await client.delete_conversation("c")
            with pytest.raises(orrery.ResourceNotFoundError):
                await client.conversation("c")


async def test_ask_command_shows_answer_citation_and_bars(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    async with rag_server(services()) as server:
        monkeypatch.setenv("ORRERY_TARGET", server.target)
        outcome = await command("ask", QUESTION, "-c", "docs", "--explain")
    assert outcome.exit_code == 0
    lines = outcome.stdout.splitlines()
    assert lines[0] == "Tamir Osker"
    assert any(line.startswith("[1] ships/veloria.md:1") for line in lines)
    assert any(line.startswith("search") and "█" in line for line in lines)
