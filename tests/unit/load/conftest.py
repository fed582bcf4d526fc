"""A toy under load: the real servicer, and the real gateway, each over a toy engine of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.state import PlatformState
from tests.fakes.gateway_server import gateway_server
from tests.fakes.generation_server import MODEL_NAME, generation_server_in_thread
from tests.fakes.toy_backend import ToyBackend, ToySettings
from tests.load.asks import Subject
from tests.load.session import Target

# Room for four at a time and two in line.
SETTINGS = ToySettings(step_s=0.001, max_model_len=2048, max_running=4, max_waiting=2)
SUBJECT = Subject(MODEL_NAME, vocab_size=256, prompt_tokens=(4, 16), output_tokens=(8, 24))


@dataclass(frozen=True, slots=True)
class Toy:
    """Where it listens, over either transport, and a data folder that says so."""

    target: Target
    data_dir: Path


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Toy]:
    engines = ToyBackend(SETTINGS), ToyBackend(SETTINGS)
    with generation_server_in_thread(engines[0]) as server, gateway_server(engines[1]) as gateway:
        state = PlatformState(
            platform_id="a-toy",
            http=gateway.url.removeprefix("http://"),
            grpc=server.target,
            metrics="127.0.0.1:1",
            ray_address="",
            applications=(MODEL_NAME,),
            session_pids_root=(),
        )
        state.save(tmp_path)
        yield Toy(Target(server.target, gateway.url), tmp_path)
