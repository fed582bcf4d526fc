"""`kill -9` of a replica, of the store, and of both, under load: nothing acknowledged is lost.

The whole experiment is slow; a short one runs with every `make test`. Both print their figures.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.fakes.durability import Durability, Figures
from tests.fakes.redis_server import redis_server


async def _run(
    folder: Path, capsys: pytest.CaptureFixture[str], *, rounds: int, num_acknowledged: int
) -> None:
    def say(text: str) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{text}")
            sys.stdout.flush()

    all_figures: list[Figures] = []
    with redis_server(folder / "redis") as server:
        experiment = Durability(server, folder, snapshot_entries=num_acknowledged // 5, seed=20)
        try:
            await experiment.prepare()
            for number in range(1, rounds + 1):
                figures = await experiment.run_round(num_acknowledged)
                say(f"round {number}: {figures}")
                assert figures.missing == []
                assert figures.extra == []
                assert figures.acknowledged >= num_acknowledged
                assert figures.snapshots > 0
                all_figures.append(figures)
        finally:
            experiment.close()
    say(
        f"{rounds} rounds, {3 * rounds} times kill -9: "
        f"{sum(figures.acknowledged_puts for figures in all_figures)} upserts and "
        f"{sum(figures.acknowledged_removes for figures in all_figures)} deletes acknowledged, "
        f"none lost, none extra; {sum(figures.unknown for figures in all_figures)} of unknown "
        "outcome\n"
    )


async def test_acknowledged_writes_survive_kills_of_replica_and_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await _run(tmp_path, capsys, rounds=2, num_acknowledged=600)


@pytest.mark.slow
@pytest.mark.timeout(3000)
async def test_acknowledged_writes_survive_twenty_rounds_of_kills(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await _run(tmp_path, capsys, rounds=20, num_acknowledged=10_000)
