"""A replica in a process of its own, which tests kill, and how they talk to it.

    python -m tests.fakes.replica_process REDIS_URL SNAPSHOT_FOLDER SOCKET SNAPSHOT_ENTRIES

It speaks JSON lines over a Unix socket: one request, one answer. Put, remove and dump are what a
service would do with its replica; the answer of a write comes when the replica says it is in the
log.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from services.retrieval.log.replica import Replica, ReplicaOptions
from services.retrieval.log.snapshots import SnapshotStore
from services.retrieval.log.snapshotter import SnapshotPolicy
from services.runtime import store
from services.runtime.errors import OrreryError, kind_of
from tests.fakes.replicas import document

__all__ = ["COLLECTION", "ReplicaProcess", "Unanswered", "fingerprints"]

COLLECTION = "docs"
REPOSITORY = Path(__file__).resolve().parents[2]


class Unanswered(Exception):
    """The process died, refused or failed: whether a write happened is not known."""


def fingerprints(replica: Replica) -> dict[str, str]:
    """Of every document: its content hash, and a hash over its vectors and texts."""
    generation = replica.collection(COLLECTION).generation
    found = {}
    for document_id in generation.document_ids(limit=10_000_000):
        held = generation.get(document_id)
        assert held is not None
        found[document_id] = _fingerprint(held.info.content_hash, held.chunks, held.vectors)
    return found


def fingerprint_of(document_id: str, value: int) -> str:
    """What `fingerprints` says of `document(document_id, value)`."""
    made = document(document_id, value)
    return _fingerprint(made.info.content_hash, made.chunks, made.vectors)


def _fingerprint(content_hash: str, chunks: Any, vectors: Any) -> str:
    digest = hashlib.sha256(vectors.tobytes())
    digest.update("".join(chunk.text for chunk in chunks).encode())
    return f"{content_hash}:{digest.hexdigest()[:16]}"


class ReplicaProcess:
    """The process, as its parent sees it."""

    def __init__(self, url: str, folder: Path, socket: Path, snapshot_entries: int) -> None:
        self._arguments = [url, str(folder), str(socket), str(snapshot_entries)]
        self._socket = socket
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Does not wait; `connect` does."""
        assert self._process is None
        self._socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.replica_process", *self._arguments],
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{REPOSITORY}:clients"},
        )

    def kill(self) -> None:
        """As `kill -9` does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def connect(self) -> Connection:
        """Waits until the replica has caught up and listens."""
        while True:
            try:
                streams = await asyncio.open_unix_connection(str(self._socket), limit=1 << 28)
                return Connection(*streams)
            except (FileNotFoundError, ConnectionRefusedError):
                if self._process is not None and self._process.poll() is not None:
                    raise RuntimeError("the replica's process ended by itself") from None
                await asyncio.sleep(0.02)


class Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, **request: object) -> Any:
        """The answer. Raises `Unanswered`."""
        try:
            self._writer.write(json.dumps(request).encode() + b"\n")
            await self._writer.drain()
            line = await self._reader.readline()
        except OSError as error:
            raise Unanswered("connection lost") from error
        if not line.endswith(b"\n"):
            raise Unanswered("connection closed")
        answer = json.loads(line)
        if "error" in answer:
            raise Unanswered(answer["error"])
        return answer["result"]

    def close(self) -> None:
        self._writer.close()


async def _answer(replica: Replica, request: dict[str, Any]) -> object:
    match request["op"]:
        case "put":
            id_ = replica.collection(COLLECTION).id
            put = document(request["document_id"], request["value"])
            return str(await replica.put(id_, put))
        case "remove":
            id_ = replica.collection(COLLECTION).id
            return str(await replica.remove(id_, [request["document_id"]]))
        case "dump":
            await replica.sync(30)
            return fingerprints(replica)
    raise ValueError(request["op"])


async def _serve(url: str, folder: str, socket: str, snapshot_entries: str) -> None:
    redis = store.connect(url)
    policy = SnapshotPolicy(
        max_entries=int(snapshot_entries), fraction=0, retry_s=0.1, lease_s=1, lease_wait_s=1
    )
    options = ReplicaOptions(snapshots=policy)
    replica = await Replica.start(redis, SnapshotStore(Path(folder)), options)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            try:
                answer = {"result": await _answer(replica, json.loads(line))}
            except OrreryError as error:
                answer = {"error": f"{kind_of(error).reason}: {error.message}"}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(talk, socket)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(*sys.argv[1:]))
