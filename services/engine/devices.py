"""What a device can do. For every service that computes with torch."""

from __future__ import annotations

import os

import torch

__all__ = ["available_cores", "has_bfloat16", "use_threads"]

_CPU_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 by instructions of its own."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in _CPU_INSTRUCTIONS)


def use_threads(num_threads: int | None) -> None:
    """So many for one torch operation; None: the cores of this process.

    Call it before the first parallel work of any thread: each takes the number from then.
    """
    torch.set_num_threads(num_threads or available_cores())


def available_cores() -> int:
    """Cores this process may run on, which a container or taskset can make fewer than exist."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
