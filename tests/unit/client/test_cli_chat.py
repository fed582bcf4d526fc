"""`orrery chat`: the conversation, its commands, and a terminal with Ctrl-C."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from orrery.cli.conversation import Command, Conversation, parse_command
from orrery.v1 import generation_pb2 as pb
from services.runtime import errors as served
from tests.unit.client.command import Outcome, Terminal, orrery
from tests.unit.client.scripted import (
    ScriptedServer,
    by_application,
    endless,
    refuse,
    reply,
    tokens,
)


def model_with_template(name: str, *, has_chat_template: bool = True) -> object:
    return reply(pb.GetModelResponse(model=name, has_chat_template=has_chat_template))


@pytest.fixture(autouse=True)
def talker(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_TARGET", server.target)
    server.on("GetModel", model_with_template("talker"))  # type: ignore[arg-type]
    server.on("Generate", tokens("I ", "hear."))


async def chat(*lines: str, arguments: tuple[str, ...] = ()) -> Outcome:
    return await orrery("chat", *arguments, stdin="".join(f"{line}\n" for line in lines))


def said(server: ScriptedServer) -> list[list[tuple[int, str]]]:
    """The messages of each request."""
    return [
        [(message.role, message.content) for message in call.request.prompt.chat.messages]
        for call in server.calls("Generate")
    ]


SYSTEM, USER, ASSISTANT = 1, 2, 3


async def test_chat_sends_what_was_said_before(server: ScriptedServer) -> None:
    outcome = await chat("hello", "", "  and now? ")
    assert (outcome.stdout, outcome.exit_code) == ("I hear.\nI hear.\n", 0)
    first = [(USER, "hello")]
    assert said(server) == [first, [*first, (ASSISTANT, "I hear."), (USER, "and now?")]]


async def test_reset_forgets_all_but_the_system_message(server: ScriptedServer) -> None:
    await chat("one", "/reset", "two", arguments=("--system", "be brief"))
    assert said(server)[1] == [(SYSTEM, "be brief"), (USER, "two")]


async def test_system_message_can_be_changed_and_removed(server: ScriptedServer) -> None:
    await chat("/system be kind", "one", "/system", "/reset", "two")
    assert said(server) == [[(SYSTEM, "be kind"), (USER, "one")], [(USER, "two")]]


async def test_exit_leaves_the_rest_unsaid(server: ScriptedServer) -> None:
    outcome = await chat("one", "/exit", "two")
    assert outcome.exit_code == 0
    assert len(said(server)) == 1


async def test_unknown_command_is_not_sent_and_shows_the_help(server: ScriptedServer) -> None:
    outcome = await chat("/quiet", "//etc is a path")
    assert "/quiet" in outcome.stderr
    assert "/reset" in outcome.stderr
    assert said(server) == [[(USER, "/etc is a path")]]


async def test_failed_answer_takes_the_question_back_and_the_chat_goes_on(
    server: ScriptedServer,
) -> None:
    too_long = refuse(served.ContextTooLong("prompt: too long"))
    server.on("Generate", tokens("A."), too_long, tokens("B."))
    outcome = await chat("one", "two", "three")
    assert outcome.stdout == "A.\nB.\n"
    assert "too long; /reset" in outcome.stderr
    assert said(server)[2] == [(USER, "one"), (ASSISTANT, "A."), (USER, "three")]


async def test_answer_cut_at_the_limit_says_so(server: ScriptedServer) -> None:
    delta = pb.CompletionDelta(text="half", finish_reason="FINISH_REASON_LENGTH")
    server.on("Generate", reply(pb.GenerateResponse(choices=[delta])))
    outcome = await chat("one", arguments=("--max-tokens", "3", "--stats"))
    assert outcome.stdout == "half\n"
    assert "limit of tokens" in outcome.stderr
    assert "prompt tokens" in outcome.stderr


async def test_model_without_a_template_is_refused(server: ScriptedServer) -> None:
    server.on("GetModel", model_with_template("base", has_chat_template=False))  # type: ignore[arg-type]
    for arguments in ((), ("--model", "base")):
        outcome = await chat("hi", arguments=arguments)
        assert outcome.exit_code == 2
        assert "chat template" in outcome.stderr
    assert said(server) == []


async def test_the_only_model_that_chats_is_taken(server: ScriptedServer) -> None:
    server.on("ListApplications", reply(FieldMask(paths=["llama", "gpt"])))
    server.on(
        "GetModel",
        by_application(
            {
                "llama": model_with_template("talker"),  # type: ignore[dict-item]
                "gpt": model_with_template("base", has_chat_template=False),  # type: ignore[dict-item]
            }
        ),
    )
    assert (await chat("hi")).stdout == "I hear.\n"
    assert server.calls("Generate")[0].metadata["application"] == "llama"


async def test_several_models_that_chat_must_be_named(server: ScriptedServer) -> None:
    server.on("ListApplications", reply(FieldMask(paths=["a", "b"])))
    outcome = await chat("hi")
    assert outcome.exit_code == 2
    assert "--model" in outcome.stderr


async def test_several_answers_are_refused(server: ScriptedServer) -> None:
    outcome = await chat("hi", arguments=("--set", "n=2"))
    assert outcome.exit_code == 2
    assert said(server) == []


async def test_interrupt_at_the_prompt_says_how_to_leave(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = iter([KeyboardInterrupt(), "hi", EOFError()])

    def type_next(prompt: str) -> str:
        line = next(typed)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", type_next)
    outcome = await chat()
    assert outcome.exit_code == 0
    assert "Ctrl-D leaves" in outcome.stderr
    assert said(server) == [[(USER, "hi")]]


async def test_interrupt_on_a_terminal_stops_the_answer_only(server: ScriptedServer) -> None:
    server.on("Generate", endless(pause_s=0.02), tokens("Second."))

    def talk() -> int:
        with Terminal("chat", "--target", server.target) as terminal:
            terminal.expect("talker at ")
            terminal.expect("> ")
            terminal.type("tell me\r")
            terminal.expect("xxxx")
            terminal.type("\x03")
            terminal.expect("[stopped]")
            terminal.expect("> ")
            terminal.type("again\r")
            terminal.expect("Second.")
            terminal.expect("> ")
            terminal.type("\x04")
            return terminal.wait()

    assert await asyncio.to_thread(talk) == 0
    await asyncio.wait_for(server.cancelled.wait(), 5)
    first, second = said(server)
    assert first == [(USER, "tell me")]
    assert second[0] == (USER, "tell me")
    assert second[1][0] == ASSISTANT
    assert set(second[1][1]) == {"x"}
    assert second[2] == (USER, "again")


def test_line_with_a_slash_is_a_command_and_with_two_is_not() -> None:
    assert parse_command("/system  be kind ") == Command("/system", "be kind")
    assert parse_command("/exit") == Command("/exit", "")
    assert parse_command("//exit") is None
    assert parse_command("exit /now") is None
    assert not Command("/other", "").known


def test_conversation_alternates_whatever_is_answered() -> None:
    conversation = Conversation("s")
    conversation.answer("")  # nothing was asked
    conversation.ask("a")
    conversation.answer("")
    assert conversation.messages == [{"role": "system", "content": "s"}]
    conversation.ask("b")
    conversation.answer("B")
    assert [m["role"] for m in conversation.messages] == ["system", "user", "assistant"]
