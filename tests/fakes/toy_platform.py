"""A toy to put under load: the real servicer, and the real gateway, each over an engine of its own.

with toy_platform(data_dir) as toy:
    connected(toy.target, TRANSPORTS)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.state import PlatformState
from orrery.load.asks import Subject
from orrery.load.transports import Target
from tests.fakes.gateway_server import gateway_server
from tests.fakes.generation_server import MODEL_NAME, generation_server_in_thread
from tests.fakes.toy_backend import ToyBackend, ToySettings

__all__ = ["SETTINGS", "SUBJECT", "Toy", "toy_platform"]

# Room for four at a time and two in line.
SETTINGS = ToySettings(step_s=0.001, max_model_len=2048, max_running=4, max_waiting=2)
SUBJECT = Subject(MODEL_NAME, vocab_size=256, prompt_tokens=(4, 16), output_tokens=(8, 24))


@dataclass(frozen=True, slots=True)
class Toy:
    """Where it listens, over either transport, and a data folder that says so."""

    target: Target
    data_dir: Path


@contextmanager
def toy_platform(data_dir: Path) -> Iterator[Toy]:
    """Starts both on free loopback ports; leaving stops them."""
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
        state.save(data_dir)
        yield Toy(Target(server.target, gateway.url), data_dir)
