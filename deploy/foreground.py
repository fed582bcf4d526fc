"""Starts the platform on one machine and stays until told to end: a container's main process.

    python -m deploy.foreground --host 0.0.0.0

Takes the options of `python -m deploy.local`. SIGTERM and SIGINT end the platform in order. When
the platform ends by itself this process ends, too, with status 1, so that whoever watches over it
starts it again.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

from rich.console import Console
from rich.markup import escape

from deploy import local, node
from deploy.node import StartError
from deploy.processes import find_processes
from services.runtime.config import Settings, SettingsError

__all__ = ["main"]

POLL_S = 2.0


def main() -> int:
    console = Console()
    _end_on_sigterm()
    parser = argparse.ArgumentParser(
        prog="python -m deploy.foreground", description=(__doc__ or "").split("\n")[0]
    )
    try:
        settings = Settings.from_env()
        local.add_options(parser, settings)
        options = local.options_of(parser.parse_args(), settings)
        return _run(options, console)
    except (StartError, SettingsError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        return 1
    except KeyboardInterrupt:
        return 0


def _run(options: local.Options, console: Console) -> int:
    started = time.monotonic()
    state = local.up(options, console)
    try:
        node.disconnect()
        _end_on_sigterm()  # leaving Ray has set it to the system's own
        local.show_addresses(state, time.monotonic() - started, console)
        while find_processes(state.platform_id):
            time.sleep(POLL_S)
        console.print("[bold red]error:[/] the platform has ended by itself")
        return 1
    finally:
        local.down(options, console)


def _end_on_sigterm() -> None:
    """As Ctrl-C does: also while the platform starts, which then takes back what it has begun."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
