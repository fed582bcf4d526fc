"""`orrery chat`: a conversation on the terminal, written as it comes."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Annotated

import typer

from orrery.cli.conversation import HELP, Command, Conversation, parse_command
from orrery.cli.generate import statistics
from orrery.cli.sampling import (
    MaxTokensOption,
    SeedOption,
    SetOption,
    TemperatureOption,
    TopPOption,
    sampling_options,
)
from orrery.cli.session import (
    EXIT_USAGE,
    ModelOption,
    TargetOption,
    TimeoutOption,
    connect,
    describe,
    fail,
    printable,
)
from orrery.client import Client
from orrery.errors import ContextTooLongError, OrreryError
from orrery.requests.generation import SamplingOptions
from orrery.results import FinishReason, ModelInfo
from orrery.streams import TextStream

__all__ = ["chat"]

_PROMPT = "> "
_ENDINGS: dict[FinishReason | None, str] = {
    "length": "[cut at the limit of tokens]",
    "deadline": "[cut at the time limit]",
    "cancelled": "[ended by the server]",
    "error": "[ended by an error of the server]",
}


def chat(
    model: ModelOption = None,
    system: Annotated[
        str | None, typer.Option("--system", help="What the model is told before the first turn.")
    ] = None,
    max_tokens: MaxTokensOption = None,
    temperature: TemperatureOption = None,
    top_p: TopPOption = None,
    seed: SeedOption = None,
    set_: SetOption = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Tokens and times after each answer.")
    ] = False,
    timeout_s: TimeoutOption = 300.0,
    target: TargetOption = None,
) -> None:
    """Talk to a model. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves."""
    with connect(target, timeout_s) as client:
        sampling = sampling_options(
            set_, max_tokens=max_tokens, temperature=temperature, top_p=top_p, seed=seed
        )
        if sampling.get("n") not in (None, 1):
            fail("n: a chat has one answer", EXIT_USAGE)
        served = _model_that_chats(client, model)
        if sys.stdin.isatty():
            _enable_line_editing()
            typer.echo(f"{served.name} at {client.settings.target}; /help lists the commands")
        talk = _Talk(client, served.application or None, sampling, stats)
        _converse(talk, Conversation(system))


class _Talk:
    """One model, and how it is asked."""

    def __init__(
        self, client: Client, model: str | None, sampling: SamplingOptions, stats: bool
    ) -> None:
        self._client = client
        self._model = model
        self._sampling = sampling
        self._stats = stats

    def answer(self, conversation: Conversation) -> None:
        """Writes the answer to what was said last, and adds it to the conversation.

        Interrupted, it keeps what was written; a failed answer takes the question back.
        """
        stream = self._client.stream(conversation.messages, model=self._model, **self._sampling)
        said: list[str] = []
        try:
            with stream:
                self._write(stream, said)
        except KeyboardInterrupt:
            typer.echo("\n[stopped]", err=True)
        except OrreryError as error:
            hint = "; /reset begins anew" if isinstance(error, ContextTooLongError) else ""
            if said:
                typer.echo()
            typer.echo(f"orrery: {describe(error)}{hint}", err=True)
            said.clear()
        conversation.answer("".join(said))

    def _write(self, stream: TextStream, said: list[str]) -> None:
        for event in stream:
            said.append(event.text)
            typer.echo(printable(event.text), nl=False)
        typer.echo()
        result = stream.result()
        if result.finish_reason in _ENDINGS:
            typer.echo(_ENDINGS[result.finish_reason], err=True)
        if self._stats:
            typer.echo(statistics(result), err=True)


def _converse(talk: _Talk, conversation: Conversation) -> None:
    """Line by line, until /exit or the end of the input."""
    while True:
        try:
            line = input(_PROMPT if sys.stdin.isatty() else "").strip()
        except EOFError:
            if sys.stdin.isatty():
                typer.echo()
            return
        except KeyboardInterrupt:
            typer.echo("\n(/exit or Ctrl-D leaves)", err=True)
            continue
        if not line:
            continue
        command = parse_command(line)
        if command is None:
            conversation.ask(line.removeprefix("/") if line.startswith("//") else line)
            talk.answer(conversation)
        elif command.name == "/exit":
            return
        else:
            _obey(command, conversation)


def _enable_line_editing() -> None:
    """Arrow keys and a history for `input`, where Python has them."""
    with suppress(ImportError):
        import readline  # noqa: F401


def _obey(command: Command, conversation: Conversation) -> None:
    if command.name == "/reset":
        conversation.reset()
        typer.echo("[the conversation is forgotten]", err=True)
    elif command.name == "/system":
        conversation.system = command.argument or None
        typer.echo(f"[system message {'set' if command.argument else 'removed'}]", err=True)
    else:
        if not command.known:
            typer.echo(f"no command {command.name}", err=True)
        typer.echo(HELP, err=True)


def _model_that_chats(client: Client, name: str | None) -> ModelInfo:
    """The model asked for; without a name, the only one that has a chat template."""
    if name is not None:
        served = client.model(name)
        if not served.has_chat_template:
            fail(f"{served.name} has no chat template; use orrery generate", EXIT_USAGE)
        return served
    candidates = [served for served in client.models() if served.has_chat_template]
    if not candidates:
        fail("no model with a chat template is served", EXIT_USAGE)
    if len(candidates) > 1:
        names = ", ".join(served.name for served in candidates)
        fail(f"--model: name one of {names}", EXIT_USAGE)
    return candidates[0]
