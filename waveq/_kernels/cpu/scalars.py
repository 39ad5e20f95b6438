"""Scalar mathematics that LLVM turns into vector instructions: float32 in, float32 out, no branch, no library call.

Coefficients are minimax fits made for these ranges (least squares, reweighted until the error is level), the relative
error of each stated beside it. libm's sinf and tanhf are scalar calls, eight to sixteen times slower in a loop.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from waveq._kernels.jit import compiled

__all__ = [
    "NEAR",
    "add",
    "clip",
    "floats_at",
    "jit_loop",
    "sine_and_cosine_of_half_turns",
    "squash_tanh",
    "squash_tanh_near",
    "whole",
    "widest_vectors",
]

Real = Any  # numba infers float32
Kernel = TypeVar("Kernel", bound=Callable[..., Any])

# contract: a * b + c in one instruction, which also makes the range reduction p - round(p) more exact.
# nsz: the sign of a zero carries nothing here. Not reassoc: it would fold (x + MAGIC) - MAGIC back to x.
# Not nnan, ninf: a NaN weight must show in the loss. Not arcp, afn: w / max|w| must be exactly 1 at the largest weight.
_LANE_FLAGS = {"nsz", "contract"}
# A sum in a loop vectorises only if its order may change; it then depends on the vector width, not on threads or time.
_SUM_FLAGS = {"nsz", "reassoc"}


def jit_loop(kernel: Kernel) -> Kernel:
    """Compile with the flags above, without the interpreter lock and without Python's division check (a branch)."""
    return compiled(kernel, fastmath=_LANE_FLAGS, error_model="numpy")


def _jit_sum(kernel: Kernel) -> Kernel:
    return compiled(kernel, fastmath=_SUM_FLAGS, error_model="numpy")


@_jit_sum
def add(total: Real, value: Real) -> Real:
    """total + value, where the order of a loop's additions is the compiler's."""
    return total + value


@intrinsic
def _ask_for_widest_vectors(_context: Any) -> Any:
    def codegen(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        # llvmlite writes out what is in the set, but its ``add`` knows attributes without a value alone
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen


def _nothing() -> None:
    """What the above is without the compiler."""


# With NUMBA_DISABLE_JIT=1 the kernels are plain Python, which has no intrinsics: these two take their places.
_COMPILED = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]

# No operation: asks LLVM to use the processor's widest vectors in the function that calls it. Left to itself it takes
# half of an AVX-512 register on most processors, for the sake of code that uses vectors now and then; these loops do
# nothing else. Where a function is inlined its caller's wish counts.
widest_vectors = cast("Callable[[], None]", _ask_for_widest_vectors if _COMPILED else _nothing)

_MAGIC = np.float32(12582912.0)  # 1.5 * 2^23: adding it leaves no bits for a fraction, so the processor rounds
_ZERO, _ONE, _HALF = np.float32(0.0), np.float32(1.0), np.float32(0.5)


@jit_loop
def clip(x: Real, low: Real, high: Real) -> Real:
    """x within the ends; a NaN stays one."""
    x = low if x < low else x  # written so that a NaN stays one
    return high if x > high else x


@jit_loop
def whole(x: Real) -> Real:
    """The nearest whole number, halves to even, for |x| < 2^22."""
    return (x + _MAGIC) - _MAGIC


# sin(pi r) = r S(r^2), relative error 5e-9; cos(pi r) = C(r^2), error 2e-10; both for |r| <= 1/2.
_S0, _S1, _S2, _S3, _S4 = (np.float32(c) for c in (3.14159264, -5.16770968, 2.55006972, -0.59824211, 0.07756035))
_C0, _C1, _C2, _C3, _C4, _C5 = (
    np.float32(c) for c in (1.0, -4.93480214, 4.05870916, -1.33521206, 0.23493756, -0.02439672)
)


@jit_loop
def sine_and_cosine_of_half_turns(turns: Real, shift: Real) -> tuple[Real, Real]:
    """sin and cos of pi (turns + shift) up to a common sign, shift being 0 or 1/2.

    The wave needs sin^2 and sin cos alone, where that sign drops out. Near a level both are exact to the last bits,
    because the whole periods are taken off before anything is multiplied.
    """
    rest = turns - whole(turns)
    rest = rest - shift if rest >= _ZERO else rest + shift
    square = rest * rest
    sine = rest * (_S0 + square * (_S1 + square * (_S2 + square * (_S3 + square * _S4))))
    cosine = _C0 + square * (_C1 + square * (_C2 + square * (_C3 + square * (_C4 + square * _C5))))
    return sine, cosine


# tanh(x) = x P(x^2) / Q(x^2), relative error 2e-8 for |x| <= 9, where tanh is 1 in float32.
_P0, _P1, _P2, _P3, _P4 = (
    np.float32(c)
    for c in (0.9999999794958588, 0.1338103078207207, 3.4955940571362917e-3, 2.0609172641705997e-5, 1.3354772587e-8)
)
_Q1, _Q2, _Q3, _Q4 = (
    np.float32(c) for c in (0.46714346385393635, 2.5877005217842114e-2, 3.2856442054241696e-4, 7.776606768759558e-7)
)
_FAR = np.float32(9.0)


@jit_loop
def squash_tanh(x: Real) -> Real:
    """tanh(x) to 3e-7 relative, at most 1 in size."""
    x = _FAR if x > _FAR else x
    x = -_FAR if x < -_FAR else x
    square = x * x
    above = x * (_P0 + square * (_P1 + square * (_P2 + square * (_P3 + square * _P4))))
    value = above / (_ONE + square * (_Q1 + square * (_Q2 + square * (_Q3 + square * _Q4))))
    value = _ONE if value > _ONE else value
    return -_ONE if value < -_ONE else value


# tanh(x) = x N(x^2), relative error 4e-9 for |x| <= 1: no division, which is a third of the time of the above.
_N0, _N1, _N2, _N3, _N4, _N5, _N6, _N7 = (
    np.float32(c)
    for c in (
        0.999999996,
        -0.333332787,
        0.133321603,
        -0.0538709421,
        0.0214648914,
        -0.00791753715,
        0.00228229093,
        -0.000353361804,
    )
)
NEAR = 1.0


@jit_loop
def squash_tanh_near(x: Real) -> Real:
    """tanh(x) to 2e-7 relative for |x| <= ``NEAR``."""
    q = x * x
    return x * (_N0 + q * (_N1 + q * (_N2 + q * (_N3 + q * (_N4 + q * (_N5 + q * (_N6 + q * _N7)))))))


@intrinsic
def _as_float_pointer(_context: Any, address: Any) -> Any:  # noqa: ARG001 - numba reads its name
    pointer = types.CPointer(types.float32)  # type: ignore[no-untyped-call]

    def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(pointer))

    return pointer(types.int64), codegen


@jit_loop
def _compiled_floats_at(address: int, count: int) -> Any:
    return numba.carray(_as_float_pointer(address), count)  # type: ignore[attr-defined, call-arg]


def _plain_floats_at(address: int, count: int) -> Any:
    return np.ctypeslib.as_array((ctypes.c_float * int(count)).from_address(int(address)))


# So many float32 from an address on: a table of addresses lets one call walk over all layers.
floats_at: Callable[[int, int], Any] = _compiled_floats_at if _COMPILED else _plain_floats_at
