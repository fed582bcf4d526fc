"""What every command shares: its options, a client, errors as one line and an exit code."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any, NoReturn

import typer

from orrery.cli.platform_state import PlatformState, read_platform_state
from orrery.client import Client
from orrery.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    NotFoundError,
    OrreryError,
    OverloadedError,
    UnavailableError,
)
from orrery.settings import data_dir, target_from_env

__all__ = [
    "EXIT_FAILED",
    "EXIT_UNAVAILABLE",
    "EXIT_USAGE",
    "JsonOption",
    "ModelOption",
    "TargetOption",
    "TimeoutOption",
    "connect",
    "describe",
    "fail",
    "find_platform",
    "printable",
    "read_text",
    "write_json",
]

EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3
EXIT_FAILED = 4
_EXIT_INTERRUPTED = 130

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A model (orrery-llama) or its application (llama); may be left out if there is one.",
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="HOST:PORT",
        help="The platform's gRPC address; grpcs://HOST:PORT for TLS.",
    ),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="Most time the call may take.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def connect(target: str | None, timeout_s: float, *, max_retries: int = 2) -> Iterator[Client]:
    """A client for one command, whose errors end it: one line, an exit code, no traceback."""
    try:
        client = Client(target, timeout_s=timeout_s, max_retries=max_retries)
    except (ValueError, InvalidRequestError) as error:  # a setting that the client refuses
        fail(str(error), EXIT_USAGE)
    try:
        with client:
            yield client
    except OrreryError as error:
        if error.reason == UnavailableError.default_reason:  # gRPC found nobody there
            cause = error.message.rpartition(": ")[2]  # what the system said, without the chain
            problem = f"{client.settings.target} does not answer ({cause})"
            fail(f"{problem}; is the platform running?", EXIT_UNAVAILABLE)
        fail(describe(error), _exit_code(error))
    except KeyboardInterrupt:
        raise typer.Exit(_EXIT_INTERRUPTED) from None


def find_platform(target: str | None) -> tuple[str | None, PlatformState | None]:
    """Which platform to look at: the one asked for, the environment's, or the one that was started
    from the data folder on this machine. The second of the two is that one's state, if it is it.
    """
    try:
        state = read_platform_state(data_dir())
    except ValueError as error:
        fail(str(error), EXIT_USAGE)
    target = target or target_from_env()
    if state is None or target in (None, state.grpc, state.grpc.replace("127.0.0.1", "localhost")):
        return target or (state.grpc if state else None), state
    return target, None


def fail(message: str, exit_code: int) -> NoReturn:
    """Prints one line to stderr and leaves."""
    typer.echo(f"orrery: {' '.join(_harmless(message).split())}", err=True)
    raise typer.Exit(exit_code)


def describe(error: OrreryError) -> str:
    """An error in one line, for people; it may quote what a document or a server says."""
    parts = [_harmless(error.message)]
    if error.stage is not None and error.stage not in error.message:
        parts.append(f"(in the stage {error.stage!r})")
    if error.retry_after_s is not None:
        parts.append(f"(try again in {error.retry_after_s:g} s)")
    if not isinstance(error, InvalidRequestError | NotFoundError) and error.request_id:
        parts.append(f"[{error.reason}, request {error.request_id}]")
    return " ".join(parts)


def read_text(argument: str | None, what: str) -> str:
    """The argument itself, or standard input (without one final newline) if it is - or missing."""
    if argument is not None and argument != "-":
        return argument
    if argument is None and sys.stdin.isatty():
        fail(f"no {what}: give it as an argument, or pipe it in", EXIT_USAGE)
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        fail(f"{what}: expected UTF-8 on standard input: {error.reason}", EXIT_USAGE)


def printable(text: str) -> str:
    """Text that cannot command the terminal: control characters but newline and tab are dropped.

    What goes to a file or a pipe stays as it is.
    """
    return _harmless(text) if sys.stdout.isatty() else text


def _harmless(text: str) -> str:
    return "".join(c for c in text if c in "\n\t" or (c >= " " and not "\x7f" <= c <= "\x9f"))


def write_json(value: Any, *, indent: int | None = 2) -> None:
    """A result as JSON on stdout, with `indent` None in one line; bytes become lists of numbers."""
    text = json.dumps(value, default=_plain, ensure_ascii=False, indent=indent)
    # JSON lets these control characters stand as they are.
    typer.echo(re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, OrreryError):
        return {"reason": value.reason, "message": value.message}
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _exit_code(error: OrreryError) -> int:
    if isinstance(error, InvalidRequestError | NotFoundError):
        return EXIT_USAGE
    if isinstance(error, UnavailableError | OverloadedError | DeadlineExceededError):
        return EXIT_UNAVAILABLE
    return EXIT_FAILED
