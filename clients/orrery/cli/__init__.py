"""The `orrery` command. Nothing is imported before it runs, so that `import orrery` stays light."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Entry point of the `orrery` command."""
    from orrery.cli.app import app

    app()
