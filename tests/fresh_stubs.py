"""Fails when the committed stubs differ from what the contract generates.

python -m tests.fresh_stubs
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
COMMITTED = REPOSITORY / "clients" / "orrery" / "v1"


def stale_stubs() -> list[str]:
    """Names of stub files that differ from a fresh generation, are missing or are left over."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        fresh = {path.name: path.read_bytes() for path in Path(folder).glob("orrery/v1/*")}
    committed = {
        path.name: path.read_bytes() for path in COMMITTED.glob("*_pb2*") if path.is_file()
    }
    return sorted(name for name in fresh | committed if fresh.get(name) != committed.get(name))


def generate(folder: Path) -> None:
    protos = sorted(str(path) for path in (REPOSITORY / "proto").glob("orrery/v1/*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{REPOSITORY / 'proto'}"]
    outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([*command, *outputs, *protos], check=True)


if __name__ == "__main__":
    stale = stale_stubs()
    if stale:
        sys.exit(f"stale stubs, run `make proto`: {', '.join(stale)}")
