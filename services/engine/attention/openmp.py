"""Runs a compiled kernel on every thread of torch's own OpenMP pool.

One pool per process: a second one (numba's, or threads of our own) would fight torch's for the
same cores, as OpenMP threads spin for a while after each parallel region. Knows nothing of what a
kernel computes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

__all__ = ["parallel_runner"]

# (address of a C function `void(void *)`, address of its argument, number of threads)
ParallelRunner = Callable[[int, int, int], None]


@cache
def parallel_runner() -> ParallelRunner:
    """A function that calls `kernel(argument)` on `num_threads` threads at once, without the GIL.

    Every thread gets the same argument; they divide the work by an atomic counter in it. Returns
    when all are done. Where torch's OpenMP has no GNU entry point (macOS, Windows), the kernel
    runs on the calling thread alone: the result is the same, as any thread can do all the work.
    """
    # Symbols are looked up in torch's library and what it is linked to: its OpenMP runtime.
    libraries = sorted(Path(torch.__file__).parent.glob("lib/libtorch_cpu.so"))
    start_team = getattr(ctypes.CDLL(str(libraries[0])), "GOMP_parallel", None) if libraries else None
    if start_team is None:
        return _run_alone
    start_team.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    start_team.restype = None

    def run(kernel: int, argument: int, num_threads: int) -> None:
        start_team(kernel, argument, num_threads, 0)

    return run


def _run_alone(kernel: int, argument: int, num_threads: int) -> None:  # noqa: ARG001
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(kernel)(argument)
