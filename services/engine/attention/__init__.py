"""Attention over the paged KV cache: one interface, several backends, chosen by name.

`interface.py` says what a backend is given, `reference.py` is the plain torch oracle that the
tests hold every other backend to, `cpu.py` the fast path on CPUs. A new backend is one file and
one line in `_BACKENDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from services.engine.attention.interface import (
    AttentionBackend,
    AttentionMetadata,
    make_metadata,
)
from services.engine.attention.reference import ReferenceAttention
from services.engine.errors import ConfigError

__all__ = ["AttentionBackend", "AttentionMetadata", "get_backend", "make_metadata"]


def _cpu() -> AttentionBackend:
    from services.engine.attention.cpu import CPUAttention  # imports the compiler

    return CPUAttention()


_BACKENDS: Mapping[str, Callable[[], AttentionBackend]] = MappingProxyType(
    {"reference": ReferenceAttention, "cpu": _cpu}
)
_DEFAULT_FOR_DEVICE: Mapping[str, str] = MappingProxyType({"cpu": "cpu"})


def get_backend(name: str, device_type: str = "cpu") -> AttentionBackend:
    """A new backend by name; "auto" takes the fastest one for the device.

    Raises `ConfigError` naming `attention_backend` when there is none of that name.
    """
    if name == "auto":
        name = _DEFAULT_FOR_DEVICE.get(device_type, "reference")
    try:
        return _BACKENDS[name]()
    except KeyError:
        known = ", ".join(["auto", *_BACKENDS])
        raise ConfigError("attention_backend", f"expected one of {known}, got {name!r}") from None
