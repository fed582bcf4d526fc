"""Runs a compiled kernel on torch's own OpenMP threads.

One pool per process: a second one (numba's, or threads of our own) would fight torch's for the
same cores, as OpenMP threads spin for a while after each parallel region. Knows nothing of what a
kernel computes.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

__all__ = ["float_bits", "launch"]

# Elements of work below which a kernel is done sooner than another thread wakes up.
_WORTH_A_THREAD = 1 << 15

_Arguments = ctypes.Array[ctypes.c_int64]


def launch(kernel: int, arguments: tuple[int, ...], num_elements: int) -> None:
    """Runs the kernel at address `kernel` and returns when it is done; the GIL is free meanwhile.

    Every thread gets the same arguments, a shared counter of work items before them, and takes
    items until there are none. `num_elements` says how much work it is in all: little is done by
    the calling thread alone.
    """
    block = (ctypes.c_int64 * (len(arguments) + 1))(0, *arguments)
    num_threads = 1 if num_elements < _WORTH_A_THREAD else torch.get_num_threads()
    _team()(kernel, block, num_threads)


@cache
def float_bits(value: float) -> int:
    """A float32 as the integer that passes it to a kernel."""
    return int.from_bytes(struct.pack("=f", value), sys.byteorder, signed=True)


@cache
def _team() -> Callable[[int, _Arguments, int], None]:
    """A function that calls kernel(arguments) on that many threads at once.

    Where torch's OpenMP has no GNU entry point (macOS, Windows), the kernel runs on the calling
    thread alone: the result is the same, as any thread can take all the work.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    if not library.exists():
        return _run_alone
    # The symbol is looked up in torch's library and in what it is linked to: its OpenMP runtime.
    start = getattr(ctypes.CDLL(str(library)), "GOMP_parallel", None)
    if start is None:
        return _run_alone
    start.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    start.restype = None

    def run(kernel: int, arguments: _Arguments, num_threads: int) -> None:
        start(kernel, arguments, num_threads, 0)

    return run


def _run_alone(kernel: int, arguments: _Arguments, num_threads: int) -> None:  # noqa: ARG001
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(kernel)(ctypes.addressof(arguments))
