"""What the kernels are written with: typed addresses, shared counters, bfloat16, exp, prefetch.

bfloat16 is the upper half of a float32 and handled as uint16; all arithmetic is in float32. Every
function here is inlined into the kernel that uses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = [
    "ELEMENT_TYPES",
    "always_inline",
    "exp",
    "float_of_bits",
    "helper",
    "highest",
    "kernel",
    "narrow",
    "prefetch",
    "take_item",
    "vector",
    "widen",
]

# Sums may be reordered, but what is not a number stays so: it must reach the logits to be found.
_OPTIONS: dict[str, Any] = {
    "fastmath": {"reassoc", "contract", "arcp", "nsz", "afn"},
    "error_model": "numpy",
}
_I32 = ir.IntType(32)

# How a tensor's elements are seen by a kernel.
ELEMENT_TYPES = {torch.bfloat16: np.uint16, torch.float32: np.float32}


def kernel(function: Callable[[Any], None]) -> Any:
    """Compiles `void(int64 *)`, or loads what was compiled before on this machine."""
    signature = types.void(types.CPointer(types.int64))
    try:
        return cfunc(signature, cache=True, **_OPTIONS)(function)
    except RuntimeError:  # no folder to keep the code in can be written
        return cfunc(signature, **_OPTIONS)(function)


def helper(function: Callable[..., Any]) -> Any:
    """A function for kernels to call."""
    return njit(**_OPTIONS)(function)


@intrinsic
def always_inline(typingctx):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Called in a helper: its body becomes part of each kernel, with the kernel's constants."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        builder.function.attributes.add("alwaysinline")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def take_item(typingctx, arguments):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """The next work item: the counter at `arguments[0]`, advanced by one, atomically."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return builder.atomic_rmw("add", args[0], ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(types.CPointer(types.int64)), codegen


@intrinsic
def _pointer(typingctx, address, element):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(element.dtype)(types.int64, element), codegen


@helper
def vector(address, element, count):  # type: ignore[no-untyped-def]
    """`count` elements of the given type at an address. Index it by a range's own variable: other
    indices may be negative for all the compiler knows, which keeps it from vector instructions."""
    return carray(_pointer(address, element), (count,))


@intrinsic
def widen(typingctx, value):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """An element as float32: itself, or bfloat16 bits."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        if signature.args[0] == types.float32:
            return args[0]
        bits = builder.shl(builder.zext(args[0], _I32), _I32(16))
        return builder.bitcast(bits, ir.FloatType())

    return types.float32(value), codegen


@intrinsic
def narrow(typingctx, value, like):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """float32 as the type of `like`: itself, or bfloat16 bits, rounded to nearest even."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        if signature.return_type == types.float32:
            return args[0]
        bits = builder.bitcast(args[0], _I32)
        odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
        rounded = builder.add(bits, builder.add(odd, _I32(0x7FFF)))
        return builder.trunc(builder.lshr(rounded, _I32(16)), ir.IntType(16))

    return like(types.float32, like), codegen


@intrinsic
def float_of_bits(typingctx, bits):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """The float32 that an int32 holds the bits of; `openmp.float_bits` is the inverse."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def _prefetch_line(typingctx, address):  # type: ignore[no-untyped-def]  # noqa: ARG001
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]  # noqa: ARG001
        pointer = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        signature_ = ir.FunctionType(ir.VoidType(), [pointer.type, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(builder.module, signature_, "llvm.prefetch.p0")
        builder.call(function, [pointer, _I32(0), _I32(2), _I32(1)])  # to read, into level 2, data
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@helper
def prefetch(address, num_bytes):  # type: ignore[no-untyped-def]
    """Has the memory brought near while the kernel does something else."""
    for offset in range(0, num_bytes, 64):
        _prefetch_line(address + offset)


_LOG2_E = np.float32(1.4426950408889634)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_EXPONENT_LIMIT = np.float32(126.0)
# 2^f for |f| <= 1/2: Taylor terms ln(2)^k / k!, relative error below 2e-7.
_C1, _C2, _C3, _C4, _C5, _C6 = (
    np.float32(c)
    for c in (
        0.6931471805599453, 0.2402265069591007, 0.0555041086648216,
        0.009618129107628477, 0.0013333558146428441, 0.00015403530393381608,
    )
)  # fmt: skip


@helper
def exp(x):  # type: ignore[no-untyped-def]
    """e^x by operations that the compiler can put into vector registers.

    Results are kept within float32's normal range, 2^-126 to 2^126.
    """
    exponent = min(max(x * _LOG2_E, -_EXPONENT_LIMIT), _EXPONENT_LIMIT)
    whole = np.int32(np.floor(exponent + _HALF))
    f = exponent - np.float32(whole)
    power = _ONE + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6)))))
    # x - x is 0, unless x is not a number.
    return power * float_of_bits(np.int32((whole + np.int32(127)) << np.int32(23))) + (x - x)


@njit(fastmath=True, error_model="numpy")
def highest(values, count):  # type: ignore[no-untyped-def]
    """The largest of the first `count` values; any of them if some are not numbers."""
    best = values[0]
    for j in range(count):
        best = max(best, values[j])
    return best
