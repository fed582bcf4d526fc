"""`make eval-rag`: how well the running platform answers from the demo documents, and without them.

Takes the demo folder in, then runs `orrery eval rag` on its questions twice.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from deploy.demo_data import COLLECTION, DemoFolder, ingest, running_platform
from orrery import Client

MODEL = "orrery-llama"


def main() -> int:
    console = Console()
    running = running_platform(console)
    if running is None:
        return 1
    state, api_key = running.state, running.api_key
    folder = DemoFolder.below(running.data_dir)
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
