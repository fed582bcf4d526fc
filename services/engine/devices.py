"""What a device can do. For every service that computes with torch."""

from __future__ import annotations

import torch

__all__ = ["has_bfloat16"]

_CPU_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 by instructions of its own."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in _CPU_INSTRUCTIONS)
