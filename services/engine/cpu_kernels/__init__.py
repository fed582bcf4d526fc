"""Kernels that numba compiles for this machine's CPU, where torch has no fused operation.

    paged_attention.py   K/V rows into the paged cache; attention of single queries over it
    rows.py              RMSNorm, SwiGLU's product, rotary positions, weighted sums, row by row
    primitives.py        what kernels are written with: addresses, bfloat16, exp, prefetch
    openmp.py            runs a kernel on torch's own thread pool

A kernel is a C function `void(int64 *)`: one foreign call per launch, without the GIL. Entry 0 of
its arguments counts the work items taken, which its threads share; the others are addresses and
sizes. The machine code is kept on disk by numba, so only the first start on a machine compiles.
Each kernel has a plain torch reference that its tests hold it to.
"""
