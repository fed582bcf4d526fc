"""`make eval-rag`: how well the running platform answers from the demo documents, and without them.

Takes the demo folder in, then runs `orrery eval rag` on its questions twice.
"""

from __future__ import annotations

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
    data_dir = data_dir_of(Settings.from_env())
    state = PlatformState.load(data_dir)
    if state is None:
        console.print("[bold red]error:[/] no platform is running; start it with `make up`")
        return 1
    folder = DemoFolder.below(data_dir)
    with Client(state.grpc) as client:
        ingest(client, folder)
    orrery = [str(Path(sys.executable).with_name("orrery")), "eval", "rag", "--target", state.grpc]
    dataset = ["--dataset", str(folder.questions), "--model", MODEL]
    console.rule(f"{MODEL} with the documents")
    found = subprocess.run([*orrery, *dataset, "--collection", COLLECTION], check=False)
    console.rule(f"{MODEL} without them")
    bare = subprocess.run([*orrery, *dataset, "--without-documents"], check=False)
    return found.returncode or bare.returncode


if __name__ == "__main__":
    sys.exit(main())
