"""As much of grpcurl as the example needs, for machines without it: by `buf curl`.

Both learn the contract by reflection and speak gRPC with JSON; only their options differ. What this
does not know is refused.

    python -m tests.fakes.grpcurl -plaintext -H 'application: llama' 127.0.0.1:9000 list
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

_MAKEFILE = Path(__file__).resolve().parents[2] / "Makefile"


def buf() -> list[str]:
    """The command that `make lint` checks the contract with."""
    found = re.search(r"^BUF := (.+)$", _MAKEFILE.read_text(), re.MULTILINE)
    assert found is not None
    return shlex.split(found[1])


def as_buf(arguments: list[str]) -> list[str]:
    """A command line of grpcurl as one of buf."""
    parser = argparse.ArgumentParser("grpcurl", allow_abbrev=False)
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-H", dest="headers", action="append", default=[])
    parser.add_argument("-d", dest="data")
    parser.add_argument("-max-time", dest="max_time")
    parser.add_argument("address")
    parser.add_argument("symbol")
    asked = parser.parse_args(arguments)
    command = [*buf(), "curl", "--protocol", "grpc", "--reflect-header", "*"]
    for header in asked.headers:
        command += ["--header", header]
    if asked.max_time is not None:
        command += ["--timeout", f"{asked.max_time}s"]
    if asked.symbol == "list":
        return [*command, "--list-services", f"http://{asked.address}"]
    if asked.data is not None:
        command += ["--data", asked.data]
    return [*command, f"http://{asked.address}/{asked.symbol}"]


if __name__ == "__main__":
    run = as_buf(sys.argv[1:])
    os.execvp(run[0], run)
