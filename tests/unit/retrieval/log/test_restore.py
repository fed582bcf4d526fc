"""A log made anew from a snapshot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.fakes.redis_server import RedisServer
from tests.fakes.replicas import config, contents, document, replica


def run(folder: Path, url: str) -> subprocess.CompletedProcess[str]:
    arguments = ["--snapshots", str(folder)]
    return subprocess.run(
        [sys.executable, "-m", "services.retrieval.log.restore", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "REDIS_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )


async def test_a_lost_log_is_made_anew_from_the_newest_whole_snapshot(
    own_redis: RedisServer, tmp_path: Path
) -> None:
    folder = tmp_path / "snapshots"
    async with replica(own_redis.url, folder) as one:
        await one.create_collection("docs", "Title", config(), {"a": "b"})
        await one.create_collection("empty", "", config(), {})
        await one.sync(5)
        id_ = one.collection("docs").id
        for number in range(300):
            await one.put(id_, document(f"d{number % 280}", number, num_chunks=number % 3))
        await one.remove(id_, ["d7"])
        await one.sync(5)
        await one.snapshot()
        held = contents(one.collection("docs"))
        await one.put(id_, document("later", 1))
        await one.sync(5)
        damaged = await one.snapshot()
    refused = run(folder, own_redis.url)
    assert (refused.returncode, "holds a log" in refused.stderr) == (1, True)
    (folder / str(damaged.position) / "manifest.json").unlink()
    own_redis.flush()
    done = run(folder, own_redis.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Restored 2 collections, 279 documents")
    async with replica(own_redis.url, tmp_path / "new snapshots") as fresh:
        view = fresh.collection("docs")
        assert (view.id, view.title, view.metadata) == (id_, "Title", {"a": "b"})
        assert contents(view) == held
        assert contents(fresh.collection("empty")) == {}
    own_redis.flush()
    nothing = run(tmp_path / "none", own_redis.url)
    assert (nothing.returncode, "no usable snapshot" in nothing.stderr) == (1, True)
