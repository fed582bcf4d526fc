"""Watches the running platform with a real Prometheus, its rules and alerts included.

    python -m deploy.monitor              # until Ctrl-C; http://127.0.0.1:9090
    python -m deploy.monitor --port 0     # on any free port

This process becomes Prometheus, so that whatever ends it ends that. What it gathers stays in
`<data folder>/prometheus`, also while the platform is down.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import NoReturn

import yaml
from rich.console import Console
from rich.markup import escape

from deploy.local import data_dir_of
from deploy.ports import HOST, free_port, is_free
from deploy.ray_environment import REPOSITORY
from deploy.state import PlatformState
from services.runtime.config import Settings, SettingsError

__all__ = ["MonitorError", "command", "configuration"]

FOLDER = REPOSITORY / "deploy" / "prometheus"
DEFAULT_PORT = 9090


class MonitorError(Exception):
    """Prometheus cannot be started; the message says why and what to do."""


def configuration(metrics: str) -> str:
    """That of one machine, for a platform whose metrics are at `metrics` (host:port)."""
    config = yaml.safe_load((FOLDER / "local.yml").read_text())
    config["rule_files"] = [str(FOLDER / pattern) for pattern in config["rule_files"]]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [metrics]}]
    return yaml.safe_dump(config, sort_keys=False)


def command(binary: str | None, data_dir: Path, port: int) -> list[str]:
    """What to run, its configuration written. `binary` None: the one that is installed.

    Raises `MonitorError`.
    """
    program = shutil.which(binary or "prometheus")
    if program is None:
        raise MonitorError(
            f"there is no {binary or 'prometheus'!r} to run: install Prometheus (on Debian and "
            "Ubuntu `apt-get install prometheus`), or name its binary with --binary"
        )
    state = PlatformState.load(data_dir)
    if state is None:
        raise MonitorError(f"no platform runs on {data_dir}: start it with `make up`")
    if not is_free(port):
        raise MonitorError(
            f"port {port} is taken by another process (Debian's package may have started a "
            "Prometheus of its own): choose another with --port"
        )
    folder = data_dir / "prometheus"
    folder.mkdir(mode=0o700, exist_ok=True)
    config = folder / "prometheus.yml"
    config.write_text(configuration(state.metrics))
    return [
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={HOST}:{port}",
        "--log.level=warn",
    ]


def main() -> int:
    console = Console()
    try:
        settings = Settings.from_env()
        parser = argparse.ArgumentParser(
            prog="python -m deploy.monitor", description=(__doc__ or "").split("\n")[0]
        )
        parser.add_argument("--data-dir", type=Path, default=data_dir_of(settings))
        parser.add_argument(
            "--port", type=int, default=DEFAULT_PORT, help=f"default {DEFAULT_PORT}; 0 = any free"
        )
        parser.add_argument("--binary", help="the Prometheus to run; default: the installed one")
        options = parser.parse_args()
        port = options.port or free_port()
        program, *arguments = command(options.binary, options.data_dir, port)
    except (MonitorError, SettingsError) as error:
        console.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        return 1
    console.print(f"Prometheus listens on http://{HOST}:{port}; Ctrl-C stops it.")
    sys.stdout.flush()
    return _become(program, arguments)


def _become(program: str, arguments: list[str]) -> NoReturn:
    os.execv(program, [program, *arguments])  # noqa: S606 - no shell is what is wanted


if __name__ == "__main__":
    sys.exit(main())
