"""`orrery generate`, and how every command fails."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import grpc
import pytest

from orrery.cli import session
from orrery.errors import InvalidRequestError
from orrery.v1 import generation_pb2 as pb
from services.runtime import errors as served
from tests.unit.client.command import Terminal, orrery
from tests.unit.client.scripted import ScriptedServer, abort, endless, refuse, stall, tokens


@pytest.fixture(autouse=True)
def target(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_TARGET", server.target)
    server.on("Generate", tokens("Once", " upon", " a time"))


def sent(server: ScriptedServer) -> pb.GenerateRequest:
    request: pb.GenerateRequest = server.calls("Generate")[-1].request
    return request


async def test_generate_writes_the_text_and_a_newline(server: ScriptedServer) -> None:
    outcome = await orrery("generate", "Tell me", "--max-tokens", "9", "-t", "0", "--top-p", "0.5")
    assert (outcome.stdout, outcome.stderr, outcome.exit_code) == ("Once upon a time\n", "", 0)
    assert sent(server).prompt.text == "Tell me"
    assert sent(server).sampling == pb.SamplingParams(max_tokens=9, temperature=0, top_p=0.5)


@pytest.mark.parametrize("arguments", [(), ("-",)])
async def test_generate_reads_the_prompt_from_standard_input(
    server: ScriptedServer, arguments: tuple[str, ...]
) -> None:
    outcome = await orrery("generate", *arguments, stdin="first\nsecond ü\n")
    assert outcome.exit_code == 0
    assert sent(server).prompt.text == "first\nsecond ü"


async def test_generate_refuses_input_that_is_not_utf8(server: ScriptedServer) -> None:
    outcome = await orrery("generate", stdin=b"\xff\xfe")
    assert outcome.exit_code == 2
    assert "UTF-8" in outcome.stderr
    assert server.calls("Generate") == []


async def test_generate_json_is_the_whole_result() -> None:
    outcome = await orrery("generate", "x", "--json")
    result = json.loads(outcome.stdout)
    assert result["choices"][0]["text"] == "Once upon a time"
    assert result["choices"][0]["token_ids"] == [0, 1, 2]
    assert result["usage"]["prompt_tokens"] == 0


async def test_generate_several_choices_are_told_apart(server: ScriptedServer) -> None:
    async def two(request: object, context: object) -> object:
        for index, text in ((1, "B"), (0, "A")):
            delta = pb.CompletionDelta(index=index, text=text, finish_reason="FINISH_REASON_LENGTH")
            yield pb.GenerateResponse(choices=[delta])

    server.on("Generate", two)  # type: ignore[arg-type]
    outcome = await orrery("generate", "x", "-n", "2")
    assert outcome.stdout == "--- 0 (length)\nA\n--- 1 (length)\nB\n"


async def test_generate_chat_sends_a_message_of_the_user(server: ScriptedServer) -> None:
    await orrery("generate", "hi", "--chat")
    assert [m.content for m in sent(server).prompt.chat.messages] == ["hi"]


async def test_generate_sets_any_sampling_parameter_by_name(server: ScriptedServer) -> None:
    arguments = (
        "--set",
        "min_p=0.25",
        "--set",
        "banned_token_ids=[7, 8]",
        "--set",
        "ignore_eos=true",
    )
    await orrery(
        "generate", "x", *arguments, "--set", 'logit_bias={"3": -1.5}', "--stop", "a", "--stop", "b"
    )
    assert sent(server).sampling == pb.SamplingParams(
        min_p=0.25,
        banned_token_ids=[7, 8],
        ignore_eos=True,
        logit_bias={3: -1.5},
        stop=["a", "b"],
    )


@pytest.mark.parametrize(
    ("assignment", "complaint"),
    [
        ("temprature=1", "temprature"),
        ("min_p", "NAME=VALUE"),
        ("min_p=much", "JSON"),
        ('min_p="much"', "min_p"),
        ('logit_bias={"a": 1}', "logit_bias"),
        ("max_tokens=-1", "max_tokens"),
        ("seed=2", "twice"),
    ],
)
async def test_generate_refuses_a_malformed_assignment_by_name(
    server: ScriptedServer, assignment: str, complaint: str
) -> None:
    outcome = await orrery("generate", "x", "--seed", "1", "--set", assignment)
    assert outcome.exit_code == 2
    assert complaint in outcome.stderr
    assert server.calls("Generate") == []


async def test_generate_stats_go_to_stderr() -> None:
    outcome = await orrery("generate", "x", "--stats")
    assert outcome.stdout == "Once upon a time\n"
    assert "prompt tokens" in outcome.stderr


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (served.InvalidRequest("top_k: no", field="top_k"), 2),
        (served.ContextTooLong("prompt: too long"), 2),
        (served.ModelNotFound("model: unknown"), 2),
        (served.Overloaded("the queue is full", retry_after_s=90), 3),
        (served.NotReady("loading", retry_after_s=90), 3),
        (served.DeadlineExceeded("too late"), 3),
        (served.Unauthenticated("who are you"), 4),
        (served.Internal("something broke"), 4),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_error_is_one_line_and_an_exit_code(
    server: ScriptedServer, error: served.OrreryError, exit_code: int
) -> None:
    server.on("Generate", refuse(error))
    outcome = await orrery("generate", "x")
    assert outcome.exit_code == exit_code
    assert outcome.stdout == ""
    assert error.message in outcome.stderr
    assert outcome.stderr.count("\n") == 1


async def test_error_after_some_text_keeps_the_text(server: ScriptedServer) -> None:
    server.on("Generate", abort(grpc.StatusCode.UNAVAILABLE, "gone", after=tokens("some")))
    outcome = await orrery("generate", "x")
    assert (outcome.stdout, outcome.exit_code) == ("some\n", 3)


async def test_end_by_the_servers_deadline_is_told(server: ScriptedServer) -> None:
    async def late(request: object, context: object) -> object:
        delta = pb.CompletionDelta(text="half", finish_reason="FINISH_REASON_DEADLINE")
        yield pb.GenerateResponse(choices=[delta])

    server.on("Generate", late)  # type: ignore[arg-type]
    outcome = await orrery("generate", "x")
    assert (outcome.stdout, outcome.exit_code) == ("half\n", 3)
    assert "time" in outcome.stderr


async def test_timeout_ends_the_command(server: ScriptedServer) -> None:
    server.on("Generate", stall())
    outcome = await orrery("generate", "x", "--timeout", "0.3")
    assert outcome.exit_code == 3


async def test_target_where_nobody_listens_is_named() -> None:
    outcome = await orrery("generate", "x", "--target", "127.0.0.1:1", "--timeout", "0.5")
    assert outcome.exit_code == 3
    assert "127.0.0.1:1" in outcome.stderr
    assert outcome.stderr.count("\n") == 1


async def test_key_that_cannot_be_sent_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORRERY_API_KEY", "sec ret")
    outcome = await orrery("generate", "x")
    assert outcome.exit_code == 2
    assert "api_key" in outcome.stderr
    assert "sec ret" not in outcome.stderr


def test_control_characters_do_not_reach_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a\x1b[31mb\x07\n\tc\x9b2Jé"
    assert session.printable(text) == text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert session.printable(text) == "a[31mb\n\tc2Jé"


def test_control_characters_of_an_error_do_not_reach_a_terminal() -> None:
    assert session.describe(InvalidRequestError("a\x1b[31mb\x9b2J")) == "a[31mb2J"


def test_json_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="object"):
        session.write_json({"x": object()})


async def test_interrupt_ends_the_command_and_the_call(server: ScriptedServer) -> None:
    server.on("Generate", endless(pause_s=0.02))

    def interrupt() -> int:
        with Terminal("generate", "x", "--target", server.target) as terminal:
            terminal.expect("xxx")
            terminal.type("\x03")
            return terminal.wait()

    assert await asyncio.to_thread(interrupt) == 130
    await asyncio.wait_for(server.cancelled.wait(), 5)


def test_command_without_arguments_shows_its_help() -> None:
    script = "from orrery.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    for name in ("generate", "chat", "models", "status", "score", "tokenize"):
        assert name in run.stdout + run.stderr


async def test_version_is_shown() -> None:
    outcome = await orrery("--version")
    assert outcome.exit_code == 0
    assert outcome.stdout.startswith("orrery ")
