"""What a client is told when it is made, and the environment variables behind it.

The only place of the package that reads the environment, and only when a client is constructed or a
command runs: never at import.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from orrery.errors import InvalidRequestError

__all__ = [
    "DEFAULT_COLLECTION",
    "DEFAULT_TARGET",
    "DEFAULT_TIMEOUT_S",
    "ClientSettings",
    "ServiceNames",
    "data_dir",
    "target_from_env",
    "terminal_variables",
    "valid_timeout_s",
]

DEFAULT_TARGET = "127.0.0.1:9000"
DEFAULT_TIMEOUT_S = 120.0
DEFAULT_COLLECTION = "default"
_DEFAULT_DATA_DIR = ".orrery"
_TLS_SCHEME = "grpcs://"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceNames:
    """Names of the applications that serve what is not text generation.

    Empty = the target serves it without applications, as a plain gRPC server does.
    """

    embedding: str = "embedding"
    retrieval: str = "retrieval"
    rag: str = "rag"
    clip: str = "clip"
    image: str = "diffusion"
    moe: str = "moe-router"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """How a client reaches the platform.

    Attributes:
        target: `host:port` of the gRPC endpoint, or another name that gRPC resolves
            (`unix:/path`, `dns:///host:port`).
        api_key: Sent as `authorization: Bearer <key>`; never shown by `repr`.
        timeout_s: Default time of a call in seconds; infinity = none.
        applications: Names of the applications to look for models in; None = ask the platform.
        max_retries: Most repetitions of one call.
        num_channels: HTTP/2 connections the calls are spread over. The platform's load balancer
            allows 1,024 calls at once on each.
        credentials: TLS credentials; None = plain text.
        services: Names of the other applications.
        read_your_writes: Whether reads of a collection wait for the client's own writes to it.
    """

    target: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S
    applications: tuple[str, ...] | None = None
    max_retries: int = 4
    num_channels: int = 4
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    services: ServiceNames = ServiceNames()
    read_your_writes: bool = True

    def __post_init__(self) -> None:
        valid_timeout_s(self.timeout_s)
        if ":" not in self.target or self.target.startswith(("http:", "https:")):
            raise ValueError(f"target: expected host:port, got {self.target!r}")
        if self.max_retries < 0:
            raise ValueError(f"max_retries: expected 0 or more, got {self.max_retries}")
        if self.num_channels < 1:
            raise ValueError(f"num_channels: expected 1 or more, got {self.num_channels}")
        if self.api_key is not None and not _is_header_value(self.api_key):
            raise ValueError("api_key: expected visible ASCII characters only")

    @classmethod
    def from_env(
        cls,
        *,
        target: str | None,
        api_key: str | None,
        environ: Mapping[str, str] | None = None,
        **others: object,
    ) -> ClientSettings:
        """Settings with `ORRERY_TARGET` and `ORRERY_API_KEY` where an argument is None.

        An empty variable counts as unset. A target that begins with `grpcs://` asks for TLS with
        the system's certificates, unless `credentials` say otherwise.
        """
        env = os.environ if environ is None else environ
        if target is None:
            target = env.get("ORRERY_TARGET") or DEFAULT_TARGET
        if target.startswith(_TLS_SCHEME) and others.get("credentials") is None:
            others["credentials"] = grpc.ssl_channel_credentials()
        return cls(
            target=target.removeprefix(_TLS_SCHEME),
            api_key=api_key if api_key is not None else env.get("ORRERY_API_KEY") or None,
            **others,  # type: ignore[arg-type]
        )


def target_from_env() -> str | None:
    """`ORRERY_TARGET`, or None if it is unset or empty."""
    return os.environ.get("ORRERY_TARGET") or None


def data_dir() -> Path:
    """The platform's data folder: `ORRERY_DATA_DIR`, by default `.orrery` in the working folder."""
    return Path(os.environ.get("ORRERY_DATA_DIR") or _DEFAULT_DATA_DIR)


def valid_timeout_s(timeout_s: float) -> float:
    """`timeout_s` itself, if it is a time a call can have.

    Raises:
        InvalidRequestError: It is zero, negative or not a number.
    """
    if math.isnan(timeout_s) or timeout_s <= 0:
        raise InvalidRequestError(
            f"timeout_s: expected a positive number of seconds, got {timeout_s}", field="timeout_s"
        )
    return timeout_s


def _is_header_value(text: str) -> bool:
    return bool(text) and all("!" <= character <= "~" for character in text)


def terminal_variables() -> Mapping[str, str]:
    """The environment variables by which a terminal says what it is."""
    names = ("TERM", "TERM_PROGRAM", "LC_TERMINAL", "KITTY_WINDOW_ID", "TMUX", "STY")
    return {name: os.environ[name] for name in names if name in os.environ}
