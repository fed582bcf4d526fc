"""`kill -9` of a replica, of the store, and of both, under load: nothing acknowledged is lost.

The whole experiment is slow; a short one runs with every `make test`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.durability import Durability
from tests.fakes.redis_server import redis_server


async def _run(folder: Path, rounds: int, num_acknowledged: int, snapshot_entries: int) -> None:
    with redis_server(folder / "redis") as server:
        experiment = Durability(server, folder, snapshot_entries=snapshot_entries, seed=20)
        totals = [0, 0, 0, 0]
        try:
            await experiment.prepare()
            for number in range(1, rounds + 1):
                figures = await experiment.run_round(num_acknowledged)
                print(f"round {number}: {figures}; {figures.refused_reasons}", flush=True)
                assert figures.missing == []
                assert figures.extra == []
                assert figures.acknowledged >= num_acknowledged
                totals[0] += figures.acknowledged_puts
                totals[1] += figures.acknowledged_removes
                totals[2] += figures.unknown
                totals[3] += 3
        finally:
            experiment.close()
        print(
            f"{rounds} rounds, {totals[3]} kills -9: {totals[0]} upserts and {totals[1]} deletes "
            f"acknowledged, none lost, none extra; {totals[2]} of unknown outcome"
        )


async def test_acknowledged_writes_survive_kills_of_replica_and_store(tmp_path: Path) -> None:
    await _run(tmp_path, rounds=2, num_acknowledged=600, snapshot_entries=150)


@pytest.mark.slow
@pytest.mark.timeout(3000)
async def test_acknowledged_writes_survive_twenty_rounds_of_kills(tmp_path: Path) -> None:
    await _run(tmp_path, rounds=20, num_acknowledged=10_000, snapshot_entries=2_000)
