"""`orrery status` and `orrery top` on the running platform: every service of it, while it works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from orrery import Client
from tests.conftest import REPOSITORY, Platform
from tests.unit.client.command import ORRERY

pytestmark = pytest.mark.integration


def orrery(platform: Platform, *arguments: str) -> str:
    """What the command prints; it finds the platform by its data folder alone."""
    result = subprocess.run(
        [sys.executable, "-c", ORRERY, *arguments],
        env={
            **{name: value for name, value in os.environ.items() if name != "ORRERY_TARGET"},
            "ORRERY_DATA_DIR": str(platform.data_dir),
            "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "clients"))),
            "COLUMNS": "160",
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture
def working(platform: Platform) -> Iterator[Client]:
    """Something to see: texts are generated, routed and embedded until the test has ended."""
    done = threading.Event()
    with Client(platform.grpc_target) as client:

        def work() -> None:
            while not done.is_set():
                client.generate("The lamp", model="llama", max_tokens=40, ignore_eos=True)
                client.generate("The lamp", model="moe", max_tokens=8, ignore_eos=True)
                client.embed("A lamp burns in the tower.")

        client.generate("The lamp", model="llama", max_tokens=1)
        worker = threading.Thread(target=work)
        worker.start()
        yield client
        done.set()
        worker.join()


def test_status_tells_every_service_with_its_weights_and_shards(platform: Platform) -> None:
    report = json.loads(orrery(platform, "status", "--json"))
    services = {each["application"]: each for each in report["services"]}
    assert set(platform.applications) <= set(services)
    assert {each["state"] for name, each in services.items() if name != "gateway"} == {"ready"}
    for name in ("llama", "gpt", "embedding", "clip", "diffusion", "moe", "moe-router"):
        assert len(bytes.fromhex(services[name]["weight_hash"])) == 32, name
    assert services["moe"]["weight_hash"] == services["moe-router"]["weight_hash"]
    shards = [each for name, each in services.items() if name.startswith("moe-shard")]
    assert len(shards) >= 2
    assert all(each["load"]["num_experts"] > 0 for each in shards)
    assert report["gateway"]["contract"] == report["contract"] == "orrery.v1"
    printed = orrery(platform, "status")
    assert "moe-shard-0: " in printed
    assert services["llama"]["weight_hash"][:8] in printed


def test_top_tells_the_rates_of_what_works(platform: Platform, working: Client) -> None:
    frame = json.loads(orrery(platform, "top", "--once", "--json", "--interval", "4"))
    services = {each["application"]: each for each in frame["services"]}
    assert set(platform.applications) <= set(services)
    assert services["llama"]["per_second"]["completion_tokens"] > 0
    assert services["moe"]["per_second"]["completion_tokens"] > 0
    assert services["embedding"]["per_second"]["inputs"] > 0
    assert services["moe-router"]["per_second"]["tokens"] > 0
    assert services["moe-shard-0"]["per_second"]["rows"] > 0
    assert services["rag"]["per_second"] == {"questions": 0}
    printed = orrery(platform, "top", "--once", "--interval", "2")
    assert "requests" in next(line for line in printed.splitlines() if line.startswith("llama"))
    assert "busiest expert" in printed
