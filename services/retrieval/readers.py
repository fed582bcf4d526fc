"""A few processes that read documents: their owner's side of `read_worker.py`.

A document that takes too long, too much memory, or crashes its reader is refused by name; the
reader is replaced. A call that is cancelled ends the process at work for it, unless that is done in
a moment. Knows nothing of vectors, collections and Redis.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from services.retrieval.frames import read_frame, write_frame
from services.retrieval.ingest.document import ParseLimits
from services.retrieval.types import Chunk, ChunkingConfig, Metadata
from services.runtime.config import PREFIX, REDIS_URL
from services.runtime.errors import Internal, InvalidRequest

__all__ = ["ReadDocument", "ReadJob", "Reader", "ReaderPool"]

_LOG = logging.getLogger("orrery.retrieval.readers")

_GRACE_S = 1.0  # for a document that nobody waits for any more


@dataclass(frozen=True, slots=True, eq=False)
class ReadJob:
    """A file to read. `tokenizer` is the folder of the tokenizer that chunks are counted by."""

    data: bytes
    file_name: str
    media_type: str
    chunking: ChunkingConfig
    tokenizer: str


@dataclass(frozen=True, slots=True, eq=False)
class ReadDocument:
    """What a file says: its own title ("" = it has none), its type, of itself, its pieces."""

    title: str
    media_type: str
    metadata: Metadata
    chunks: tuple[Chunk, ...]


class Reader(Protocol):
    """Reads documents off the event loop."""

    async def read(self, job: ReadJob) -> ReadDocument:
        """Raises `InvalidRequest`, without a field, for a file that cannot be read."""
        ...


class ReaderPool:
    """A `Reader` in processes, each started when it is first needed."""

    def __init__(
        self, limits: ParseLimits, *, num_readers: int, timeout_s: float, memory_bytes: int
    ) -> None:
        self._limits = asdict(limits)
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._slots = asyncio.Semaphore(num_readers)
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(num_readers, thread_name_prefix="reader")
        self._closed = False

    async def read(self, job: ReadJob) -> ReadDocument:
        """Raises `InvalidRequest` for a file that cannot be read in the limits."""
        header = {
            "file_name": job.file_name,
            "media_type": job.media_type,
            "chunking": job.chunking.model_dump(),
            "tokenizer": job.tokenizer,
            "limits": self._limits,
        }
        answer = await self._ask(header, job.data)
        if "refused" in answer:
            raise InvalidRequest(answer["refused"])
        if "failed" in answer:
            _LOG.error("read_failed", extra={"trace": answer["failed"]})
            raise Internal("the document could not be read; the log says why")
        return ReadDocument(
            title=answer["title"],
            media_type=answer["media_type"],
            metadata=_metadata(answer["metadata"]),
            chunks=tuple(_chunk(fields) for fields in answer["chunks"]),
        )

    async def close(self) -> None:
        """Ends all processes."""
        self._closed = True
        for process in (*self._idle, *self._busy):
            process.end()
        self._idle.clear()
        self._threads.shutdown(wait=False)

    async def _ask(self, header: dict[str, Any], data: bytes) -> dict[str, Any]:
        await self._slots.acquire()
        process = self._idle.pop() if self._idle else _Process(self._memory_bytes)
        self._busy.add(process)
        exchange = asyncio.get_running_loop().run_in_executor(
            self._threads, process.exchange, header, data
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await asyncio.shield(exchange)
        except TimeoutError:
            self._give_back(process, None)
            raise InvalidRequest(
                f"reading it takes longer than the {self._timeout_s:g} s that a document may take"
            ) from None
        except BaseException:
            settling = asyncio.create_task(self._settle(process, exchange))
            self._settling.add(settling)
            settling.add_done_callback(self._settling.discard)
            raise
        self._give_back(process, answer)
        if answer is None:
            return {"refused": "reading it ended the reading process: it is broken or too large"}
        return answer

    async def _settle(
        self, process: _Process, exchange: asyncio.Future[dict[str, Any] | None]
    ) -> None:
        """After a cancel. Most documents are read in less time than a new process takes."""
        done, _ = await asyncio.wait([exchange], timeout=_GRACE_S)
        self._give_back(process, exchange.result() if done else None)

    def _give_back(self, process: _Process, answer: dict[str, Any] | None) -> None:
        self._busy.discard(process)
        if answer is None or self._closed:
            process.end()  # and with it the thread that waits for it
        else:
            self._idle.append(process)
        self._slots.release()


class _Process:
    """One reading process, started by the first exchange. `end` may be called from any thread."""

    def __init__(self, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False
        self._exchanging = False

    def exchange(self, header: dict[str, Any], data: bytes) -> dict[str, Any] | None:
        """One question and its answer; None when the process has ended instead. Blocks."""
        with self._lock:
            if self._ended:
                return None
            if self._process is None:
                self._process = _start(self._memory_bytes)
            process = self._process
            self._exchanging = True
        try:
            return _exchange(process, header, data)
        finally:
            with self._lock:
                self._exchanging = False
                if self._ended:
                    _close(process)

    def end(self) -> None:
        """Ends the process, and with it the exchange under way. Repeatable."""
        with self._lock:
            self._ended = True
            if self._process is None:
                return
            self._process.kill()
            self._process.wait()
            if not self._exchanging:
                _close(self._process)


def _exchange(
    process: subprocess.Popen[bytes], header: dict[str, Any], data: bytes
) -> dict[str, Any] | None:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        write_frame(process.stdin, header, data)
        frame = read_frame(process.stdout)
    except OSError:  # it is gone
        return None
    return None if frame is None else frame[0]


def _start(memory_bytes: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own program, by fixed arguments
        # -P: a module of the working folder is never taken for one of ours.
        [sys.executable, "-P", "-m", "services.retrieval.read_worker", str(memory_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # Wherever this process finds the package, the other does; one thread is its share.
        env={
            **_without_secrets(os.environ),
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "TOKENIZERS_PARALLELISM": "false",
            "OMP_NUM_THREADS": "1",
            "RAYON_NUM_THREADS": "1",
        },
    )


def _without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """What reads hostile files needs neither the platform's keys nor its store's password."""
    return {
        name: value
        for name, value in environment.items()
        if name != REDIS_URL and not name.startswith(PREFIX)
    }


def _close(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):  # what was not sent yet has nobody to go to
                stream.close()


def _chunk(fields: dict[str, Any]) -> Chunk:
    title_path, metadata = tuple(fields["title_path"]), _metadata(fields["metadata"])
    return Chunk(**{**fields, "title_path": title_path, "metadata": metadata})


def _metadata(fields: dict[str, Any]) -> Metadata:
    """JSON has lists where the domain has tuples."""
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
