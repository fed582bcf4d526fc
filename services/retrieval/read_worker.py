"""A process that reads documents and cuts them into chunks, one after another.

    python -m services.retrieval.read_worker MAX_MEMORY_BYTES

Jobs come on standard input, answers go out on standard output, as frames (`frames.py`). A hostile
file can hang or crash this process alone; `readers.py`, its owner, then ends it and starts
another. Knows nothing of collections and Redis.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer

from services.retrieval.frames import read_frame, write_frame
from services.retrieval.ingest.chunking import chunk
from services.retrieval.ingest.document import ParseLimits
from services.retrieval.ingest.extracted import shortened
from services.retrieval.ingest.parsing import parse
from services.retrieval.ingest.tokens import load_tokenizer
from services.retrieval.types import ChunkingConfig
from services.runtime.errors import InvalidRequest

_ALARM_AFTER_S = 30


def _answer(header: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    try:
        return _read(header, data)
    except InvalidRequest as error:
        return {"refused": error.message}
    except MemoryError:
        return {"refused": "reading it takes more memory than a document may take"}
    except RecursionError:
        return {"refused": "it is nested too deeply"}
    except Exception:  # noqa: BLE001 - the owner logs it; this process goes on
        return {"failed": traceback.format_exc(limit=8)}


def _read(header: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    limits = ParseLimits(**header["limits"])
    parsed = parse(data, header["file_name"], header["media_type"], limits)
    config = ChunkingConfig(**header["chunking"])
    chunks = chunk(parsed, config, _tokenizer(header["tokenizer"]))
    return {
        "title": shortened(parsed.title),
        "media_type": parsed.media_type,
        "metadata": parsed.metadata,
        "chunks": [
            replace(one, title_path=tuple(map(shortened, one.title_path))) for one in chunks
        ],
    }


@lru_cache(maxsize=4)
def _tokenizer(folder: str) -> Tokenizer:
    return load_tokenizer(folder)


def main() -> None:
    """Answers until standard input ends: its owner has closed it, or is gone."""
    max_bytes = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    logging.disable(logging.CRITICAL)  # parsers tell every oddity of a file
    warnings.simplefilter("ignore")
    jobs = sys.stdin.buffer
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library's print must not be a frame
    while (frame := read_frame(jobs)) is not None:
        # Nobody may be left to end a parser that hangs: then the signal does.
        signal.alarm(int(frame[0]["limits"]["max_seconds"]) + _ALARM_AFTER_S)
        write_frame(answers, _answer(*frame))
        signal.alarm(0)


if __name__ == "__main__":
    main()
