"""Kills a replica and its store again and again under writers, and counts what became of writes.

Each writer owns some documents, so of each of them it is known which write came last. A write
that was acknowledged must be there; one whose outcome nobody was told may be there or not.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.fakes.redis_server import RedisServer
from tests.fakes.replica_process import (
    COLLECTION,
    Connection,
    ReplicaProcess,
    Unanswered,
    fingerprint_of,
    fingerprints,
)
from tests.fakes.replicas import config, replica

__all__ = ["Durability", "Figures"]

KILLS = ("replica", "redis-server", "both")
NUM_WRITERS, DOCUMENTS_PER_WRITER = 8, 40


@dataclass
class Figures:
    """Of one round."""

    acknowledged_puts: int = 0
    acknowledged_removes: int = 0
    unknown: int = 0
    refused_reasons: dict[str, int] = field(default_factory=dict)
    documents: int = 0
    missing: list[str] = field(default_factory=list)  # acknowledged, and not there
    extra: list[str] = field(default_factory=list)  # there, and never written or removed
    snapshots: int = 0
    seconds: float = 0.0

    @property
    def acknowledged(self) -> int:
        return self.acknowledged_puts + self.acknowledged_removes

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged ({self.acknowledged_puts} upserts, "
            f"{self.acknowledged_removes} deletes), {self.unknown} with unknown outcome, "
            f"{self.documents} documents, {self.snapshots} snapshots on disk, "
            f"{len(self.missing)} missing, {len(self.extra)} extra, {self.seconds:.1f} s"
        )


class Durability:
    """The experiment; `run_round` may be called again and again."""

    def __init__(
        self, server: RedisServer, folder: Path, *, snapshot_entries: int, seed: int
    ) -> None:
        self._server = server
        self._folder = folder
        self._process = ReplicaProcess(
            server.url, folder / "snapshots", folder / "replica", snapshot_entries
        )
        self._random = random.Random(seed)
        # Of each document, the fingerprints it may have now; None = not there.
        self._possible: dict[str, set[str | None]] = {}
        self._value = 0
        self._left = 0
        self._figures = Figures()

    async def prepare(self) -> None:
        """Makes the collection and starts the replica."""
        async with replica(self._server.url, self._folder / "snapshots") as one:
            await one.create_collection(COLLECTION, "", config(), {})
        self._process.start()
        (await self._process.connect()).close()

    async def run_round(self, num_acknowledged: int) -> Figures:
        """Writes until so many writes are acknowledged; each thing is killed once meanwhile."""
        self._figures, self._left = Figures(), num_acknowledged
        started = time.monotonic()
        await asyncio.gather(
            self._kill_at_random(num_acknowledged),
            *(self._write(writer) for writer in range(NUM_WRITERS)),
        )
        connection = await self._process.connect()
        running = await connection.ask(op="dump")
        connection.close()
        self._compare(running)
        # Another replica, from the newest snapshot and the log, must come to the same.
        async with replica(self._server.url, self._folder / "snapshots") as fresh:
            assert fingerprints(fresh) == running
        self._figures.snapshots = len(list((self._folder / "snapshots").glob("*-*/manifest.json")))
        self._figures.seconds = time.monotonic() - started
        return self._figures

    def close(self) -> None:
        self._process.kill()

    async def _kill_at_random(self, num_acknowledged: int) -> None:
        # Moments are counted in acknowledged writes: they fall on the writing however fast it is.
        moments = sorted(self._random.sample(range(1, num_acknowledged), len(KILLS)))
        for what, moment in zip(KILLS, moments, strict=True):
            while self._left > 0 and num_acknowledged - self._left < moment:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            await asyncio.sleep(self._random.random() / 100)
            await self._kill(what)

    async def _kill(self, what: str) -> None:
        if what != "redis-server":
            await asyncio.to_thread(self._process.kill)
        if what != "replica":
            await asyncio.to_thread(self._server.kill)
        await asyncio.sleep(self._random.random() / 5)
        if what != "redis-server":
            self._process.start()  # it may have to wait for the store
        if what != "replica":
            await asyncio.sleep(self._random.random() / 2)
            await asyncio.to_thread(self._server.start)

    async def _write(self, writer: int) -> None:
        documents = [f"w{writer}-d{number}" for number in range(DOCUMENTS_PER_WRITER)]
        connection = await self._process.connect()
        while self._left > 0:
            document_id = self._random.choice(documents)
            try:
                await self._write_one(connection, document_id)
            except Unanswered as error:
                self._note_unknown(error)
                await asyncio.sleep(0.05)
                if str(error).startswith("connection"):
                    connection.close()
                    connection = await self._process.connect()
        connection.close()

    async def _write_one(self, connection: Connection, document_id: str) -> None:
        possible = self._possible.setdefault(document_id, {None})
        if self._random.random() < 0.3:
            new = None
            request: dict[str, object] = {"op": "remove"}
        else:
            self._value += 1
            new = fingerprint_of(document_id, self._value)
            request = {"op": "put", "value": self._value}
        possible.add(new)
        await connection.ask(document_id=document_id, **request)
        self._possible[document_id] = {new}
        self._left -= 1
        if new is None:
            self._figures.acknowledged_removes += 1
        else:
            self._figures.acknowledged_puts += 1

    def _note_unknown(self, error: Unanswered) -> None:
        reason = str(error).split(":")[0]
        self._figures.unknown += 1
        self._figures.refused_reasons[reason] = self._figures.refused_reasons.get(reason, 0) + 1

    def _compare(self, found: dict[str, str]) -> None:
        figures = self._figures
        figures.documents = len(found)
        for document_id, possible in self._possible.items():
            now = found.get(document_id)
            if now not in possible:
                (figures.missing if now is None else figures.extra).append(document_id)
            self._possible[document_id] = {now}
        figures.extra += sorted(found.keys() - self._possible.keys())
