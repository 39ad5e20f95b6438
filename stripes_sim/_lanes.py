"""Eight policies in a register, on processors that look eight numbers up within a register (AVX-512).

A layer's costs at up to eight choices of bits fill one register, into which the codes of eight policies are indices:
one ``vpermpd`` does what eight loads from a table do, and no table of summed layers is needed. Each 64-bit lane holds
the bits of eight layers of a policy; the instruction looks at the lowest 3 bits, a shift brings the next layer there.

Numba never writes this instruction, so the loop over layers is written in LLVM's language; on other processors
`stripes_sim.scoring` takes `stripes_sim._kernels`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from stripes_sim._kernels import CHUNK, EACH_BYTE, HIGH_BITS
from stripes_sim._wrapping import wrapping_loop

__all__ = ["AT_ONCE", "available", "score_lanes"]

LANES = 8
GROUPS = 4  # of eight at work at once: they share what is read of the table, and no sum waits for another
AT_ONCE = GROUPS * LANES
_WORD, _NUMBER = ir.IntType(64), ir.DoubleType()
_WORDS, _NUMBERS = ir.VectorType(_WORD, LANES), ir.VectorType(_NUMBER, LANES)


def available() -> bool:
    """Whether kernels are compiled, and for a processor with AVX-512."""
    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return False
    _, _, features = cpu_target.target_context.codegen().magic_tuple()
    return "+avx512f" in features.split(",")


def _add_together(
    _typing: Any,
    _policies: Any,
    _layers: Any,
    _low: Any,
    _too_far: Any,
    _table: Any,
    _fixed: Any,
    _first_total: Any,
    _second_total: Any,
) -> Any:
    """Two totals of AT_ONCE policies; a byte of the result has its high bit where one has bits outside the table.

    All arguments are uint64: the address of the first policy, the number of layers, the smallest bits and what brings
    those beyond the largest to 128 (both in each byte), the addresses of the table, the fixed costs and either total.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        policies, layers, low, too_far, table, fixed, first_total, second_total = arguments

        def load(address: Any, offset: Any, kind: Any) -> Any:
            value = builder.load(builder.inttoptr(builder.add(address, offset), kind.as_pointer()))
            value.align = 1
            return value

        def everywhere(value: Any) -> Any:
            lanes = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
            for lane in range(LANES):
                lanes = builder.insert_element(lanes, value, _WORD(lane))
            return lanes

        def named(name: str, result: Any, *operands: Any) -> Any:
            kind = ir.FunctionType(result, [operand.type for operand in operands])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)

        # LLVM keeps these variables in registers
        groups = range(GROUPS)
        given = [everywhere(load(fixed, _WORD(8 * k), _NUMBER)) for k in (0, 1)]
        totals = [[cgutils.alloca_once_value(builder, each) for each in given] for _ in groups]
        codes = [cgutils.alloca_once(builder, _WORDS) for _ in groups]
        strange = cgutils.alloca_once_value(builder, ir.Constant(_WORDS, [0] * LANES))
        with cgutils.for_range_slice(builder, _WORD(0), layers, _WORD(8), intp=_WORD) as (layer, _):
            for group in groups:
                words = ir.Constant(_WORDS, ir.Undefined)
                for lane in range(LANES):
                    at = builder.mul(layers, _WORD(group * LANES + lane))
                    words = builder.insert_element(words, load(policies, builder.add(at, layer), _WORD), _WORD(lane))
                words = builder.sub(words, everywhere(low))
                outside = builder.or_(words, builder.add(words, everywhere(too_far)))
                builder.store(builder.or_(builder.load(strange), outside), strange)
                builder.store(words, codes[group])
            left = builder.sub(layers, layer)
            left = builder.select(builder.icmp_unsigned("<", left, _WORD(8)), left, _WORD(8))
            with cgutils.for_range(builder, left, intp=_WORD) as loop:
                row = builder.mul(builder.add(layer, loop.index), _WORD(2 * 8 * LANES))
                costs = [load(table, builder.add(row, _WORD(k * 8 * LANES)), _NUMBERS) for k in (0, 1)]
                for group in groups:
                    words = builder.load(codes[group])
                    for total, numbers in zip(totals[group], costs, strict=True):
                        found = named("llvm.x86.avx512.permvar.df.512", _NUMBERS, numbers, words)
                        builder.store(builder.fadd(builder.load(total), found), total)
                    builder.store(builder.lshr(words, ir.Constant(_WORDS, [8] * LANES)), codes[group])
        for group in groups:
            for address, total in zip((first_total, second_total), totals[group], strict=True):
                place = builder.inttoptr(builder.add(address, _WORD(8 * LANES * group)), _NUMBERS.as_pointer())
                builder.store(builder.load(total), place).align = 8
        return named("llvm.vector.reduce.or.v8i64", _WORD, builder.load(strange))

    return types.uint64(*[types.uint64] * 8), generate


_totals: Any = intrinsic(_add_together)


@wrapping_loop
def score_lanes(
    first_chunk: int,
    last_chunk: int,
    count: int,
    flat: Any,
    layers: int,
    low: int,
    high: int,
    table: Any,
    fixed: Any,
    out: Any,
) -> int:
    """As `stripes_sim._kernels.score_quads`, for a multiple of AT_ONCE policies; costs are added layer after layer.

    ``table`` is (L, 2, 8) float64.
    """
    shift, too_far = np.uint64(low) * EACH_BYTE, np.uint64(127 - (high - low)) * EACH_BYTE
    bad = 0
    for chunk in range(first_chunk, last_chunk):
        strange = np.uint64(0)
        for row in range(chunk * CHUNK, min(count, (chunk + 1) * CHUNK), AT_ONCE):
            strange |= _totals(
                flat.ctypes.data + row * layers,
                layers,
                shift,
                too_far,
                table.ctypes.data,
                fixed.ctypes.data,
                out[0].ctypes.data + 8 * row,
                out[1].ctypes.data + 8 * row,
            )
        bad += (strange & HIGH_BITS) != 0
    return bad
