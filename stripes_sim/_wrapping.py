"""Integers that wrap around and words at any offset, compiled and under NUMBA_DISABLE_JIT=1.

Uncompiled kernels are for coverage and for stepping through: the same lines, a thousand times slower. Two things do not
run there as they are, and both are settled here. Compiled integers wrap around in silence where NumPy's scalars warn,
and a word at any offset is one machine instruction that Python has no name for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from stripes_sim._jit import compiled

__all__ = ["load_word", "wrapping_loop"]

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
_PLAIN = bool(numba.config.DISABLE_JIT)  # type: ignore[attr-defined]


def wrapping_loop(kernel: Kernel) -> Kernel:
    """`compiled`, with integers that wrap around in silence."""
    return np.errstate(over="ignore")(kernel) if _PLAIN else compiled(kernel)


def _read_word(_typing: Any, array: Any, _offset: Any) -> Any:
    """Eight bytes from any offset as one word, first byte lowest; NumPy views would ask for aligned offsets."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(64).as_pointer())
        word = builder.load(pointer)
        word.align = 1
        return word if sys.byteorder == "little" else builder.bswap(word)

    return types.uint64(array, types.uint64), generate


def _word_of(array: Any, offset: Any) -> Any:
    return np.uint64(int.from_bytes(array[offset : offset + np.uint64(8)].tobytes(), "little"))


# eight loads and shifts would need no intrinsic, and the scoring loop took 1.16 times as long with them
load_word: Any = _word_of if _PLAIN else intrinsic(_read_word)
