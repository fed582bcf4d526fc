"""What should hold is shown with what was found."""

from __future__ import annotations

import io

from rich.console import Console

from tests.load.verdicts import Verdict, show_verdicts


def test_verdicts_are_shown_with_what_was_found() -> None:
    console = Console(file=io.StringIO(), width=160)
    show_verdicts(console, [Verdict("it holds", True, "3 of 3"), Verdict("it fails", False, "1")])
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == ["holds  it holds: 3 of 3", "fails  it fails: 1"]
