"""Runs the `orrery` command as a user would: in this process, or on a terminal of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from typer.testing import CliRunner

from orrery.cli.app import app

# Background jobs of a shell ignore Ctrl-C, and so would what the tests start when they are one.
_SPAWN_ON_A_TERMINAL = (
    "import os, pty, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
)
ORRERY = "import sys; sys.argv[0] = 'orrery'; from orrery.cli import main; main()"


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit code."""

    stdout: str
    stderr: str
    exit_code: int


async def orrery(*arguments: str, stdin: str | bytes = "") -> Outcome:
    """Runs `orrery ARGUMENTS` in a thread; anything but a regular exit is raised."""
    result = await asyncio.to_thread(
        CliRunner().invoke, app, list(arguments), input=stdin, catch_exceptions=False
    )
    return Outcome(result.stdout, result.stderr, result.exit_code)


class Terminal:
    """`orrery ARGUMENTS` on a pseudo-terminal; what is typed is echoed into `output`.

    `kind` is the terminal's; a dumb one cannot be drawn over.
    """

    def __init__(self, *arguments: str, patience_s: float = 60.0, kind: str = "dumb") -> None:
        command = [sys.executable, "-c", _SPAWN_ON_A_TERMINAL, sys.executable, "-c", ORRERY]
        self._process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"TERM": kind, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self._patience_s = patience_s
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self.output = ""
        self._seen = 0
        self._reader.start()

    def expect(self, text: str) -> str:
        """Waits for `text` after what was expected last; returns what came before it."""
        deadline = time.monotonic() + self._patience_s
        with self._news:
            while (at := self.output.find(text, self._seen)) < 0:
                left = deadline - time.monotonic()
                assert left > 0, f"no {text!r} in {self.output[self._seen :]!r}"
                assert self._reader.is_alive(), f"ended without {text!r}: {self.output!r}"
                self._news.wait(min(left, 0.1))
            before = self.output[self._seen : at]
            self._seen = at + len(text)
            return before

    def type(self, text: str) -> None:
        """Sends keystrokes; `\\x03` is Ctrl-C, `\\x04` Ctrl-D."""
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def wait(self) -> int:
        """Waits for the end; returns the exit code."""
        code = self._process.wait(self._patience_s)
        self._reader.join(self._patience_s)
        return code

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *unused: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := os.read(self._process.stdout.fileno(), 4096):
            with self._news:
                self.output += chunk.decode(errors="replace")
                self._news.notify_all()
