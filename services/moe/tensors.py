"""Hidden states on the wire: `orrery.v1.Tensor` to and from torch, as the bytes that memory holds.

Reading a message and making one copy the numbers once each, as protobuf must; nobody may write to
what was read. What is wrong with a message is refused by the name
of its field before anything is computed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import torch
from torch import Tensor

from orrery.v1 import tensor_pb2 as pb
from services.runtime.errors import InvalidRequest

__all__ = ["RowsFormat", "all_finite", "check_finite", "dtype_number", "read_rows", "to_message"]

_NUMBERS: Mapping[torch.dtype, pb.TensorDtype] = MappingProxyType(
    {
        torch.float32: pb.TENSOR_DTYPE_FLOAT32,
        torch.bfloat16: pb.TENSOR_DTYPE_BFLOAT16,
    }
)


@dataclass(frozen=True, slots=True)
class RowsFormat:
    """What rows must look like: [1 to max_rows, hidden_size] of one type."""

    hidden_size: int
    dtype: torch.dtype
    max_rows: int


def dtype_number(dtype: torch.dtype) -> pb.TensorDtype:
    """As the contract numbers it."""
    return _NUMBERS[dtype]


def read_rows(message: pb.Tensor, expected: RowsFormat, field: str) -> Tensor:
    """[num_rows, hidden_size]. Raises `InvalidRequest` by field."""
    data = message.data  # each look at it is a copy
    _check_layout(message, len(data), expected, field)
    _accept_read_only_buffers()
    return torch.frombuffer(data, dtype=expected.dtype).view(-1, expected.hidden_size)


def check_finite(rows: Tensor, field: str) -> None:
    """Raises `InvalidRequest` for NaN and infinity."""
    if not all_finite(rows):
        raise _invalid(f"{field}.data", "expected finite numbers, got NaN or infinity")


def all_finite(rows: Tensor) -> bool:
    """In one pass that writes nothing: a message's 15 MiB take a millisecond."""
    least, most = rows.aminmax()  # both are NaN where one number is
    return math.isfinite(least.item()) and math.isfinite(most.item())


def to_message(rows: Tensor) -> pb.Tensor:
    """Of a tensor on any device, contiguous or not."""
    memory = rows.detach().cpu().contiguous()
    data = memory.view(torch.uint8).numpy().tobytes() if memory.numel() else b""
    return pb.Tensor(dtype=_NUMBERS[rows.dtype], shape=rows.shape, data=data)


def _check_layout(message: pb.Tensor, num_bytes: int, expected: RowsFormat, field: str) -> None:
    wanted = _NUMBERS[expected.dtype]
    if message.dtype != wanted:
        name = pb.TensorDtype.Name(wanted)
        raise _invalid(f"{field}.dtype", f"expected {name}, as the model's, got {message.dtype}")
    shape = tuple(message.shape)
    if len(shape) != 2 or shape[1] != expected.hidden_size:
        raise _invalid(
            f"{field}.shape",
            f"expected [tokens, {expected.hidden_size}], got {list(shape[:8])}",
        )
    if not 1 <= shape[0] <= expected.max_rows:
        raise _invalid(
            f"{field}.shape", f"expected 1 to {expected.max_rows} tokens, got {shape[0]}"
        )
    wanted_bytes = shape[0] * shape[1] * expected.dtype.itemsize
    if num_bytes != wanted_bytes:
        raise _invalid(
            f"{field}.data", f"expected {wanted_bytes} bytes, as the shape says, got {num_bytes}"
        )


def _invalid(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: {message}", field=field)


@cache
def _accept_read_only_buffers() -> None:
    """Torch warns, once in a process, that it cannot protect a read-only buffer. Nobody writes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.frombuffer(b"\0", dtype=torch.uint8)
