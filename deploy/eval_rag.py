"""`make eval-rag`: how well the running platform answers from the demo documents, and without them.

Takes the demo folder in, then runs `orrery eval rag` on its questions twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from deploy.demo_data import COLLECTION, DemoFolder, ingest
from deploy.local import data_dir_of
from deploy.state import PlatformState
from orrery import Client
from services.runtime.config import Settings

MODEL = "orrery-llama"


def main() -> int:
    console = Console()
    settings = Settings.from_env()
    data_dir = data_dir_of(settings)
    api_key = next(iter(settings.all_api_keys()), None)  # the platform's own, where it asks for one
    state = PlatformState.load(data_dir)
    if state is None:
        console.print("[bold red]error:[/] no platform is running; start it with `make up`")
        return 1
    folder = DemoFolder.below(data_dir)
    with Client(state.grpc, api_key=api_key) as client:
        ingest(client, folder)
    environment = {**os.environ, **({"ORRERY_API_KEY": api_key} if api_key else {})}
    orrery = [str(Path(sys.executable).with_name("orrery")), "eval", "rag", "--target", state.grpc]
    dataset = ["--dataset", str(folder.questions), "--model", MODEL]
    console.rule(f"{MODEL} with the documents")
    found = subprocess.run(
        [*orrery, *dataset, "--collection", COLLECTION], env=environment, check=False
    )
    console.rule(f"{MODEL} without them")
    bare = subprocess.run([*orrery, *dataset, "--without-documents"], env=environment, check=False)
    return found.returncode or bare.returncode


if __name__ == "__main__":
    sys.exit(main())
