"""The loops on a GPU. One launch walks over all layers: a program looks up its row, its layer and its place in a table.

Each program writes its sums to its own place; they are added up in their order by a second small launch, so that the
result is the same in every run (atomic additions would not be). Numbers are float32, whatever the weights are.
The polynomials are those of ``cpu.scalars``; a library's sine would reduce a range that is small already.
"""

from __future__ import annotations

import triton
import triton.language as tl

from waveq._kernels.engine import Column

__all__ = [
    "BLOCK",
    "back_blocks",
    "clip_round_backward_blocks",
    "clip_round_blocks",
    "join_blocks",
    "largest_blocks",
    "lengths_blocks",
    "round_blocks",
    "tanh_blocks",
]

BLOCK = 4096  # weights of one program

# kernels may use no other globals
_COLUMNS = tl.constexpr(len(Column))
_DIVISOR, _U_LOW, _U_HIGH = (tl.constexpr(Column[name].value) for name in ("DIVISOR", "U_LOW", "U_HIGH"))
_PITCH, _GAIN, _LOW, _HIGH = (tl.constexpr(Column[name].value) for name in ("PITCH", "GAIN", "LOW", "HIGH"))
_SHIFT, _PERIODS, _STEP = (tl.constexpr(Column[name].value) for name in ("SHIFT", "PERIODS", "STEP"))
_V_DIVISOR, _V_LOW, _V_HIGH = (tl.constexpr(Column[name].value) for name in ("V_DIVISOR", "V_LOW", "V_HIGH"))


@triton.jit
def _whole(x):
    """The nearest whole number, halves to even, for |x| < 2^22; volatile arithmetic of this kind is not folded."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def _tanh(x):
    """x P(x^2) / Q(x^2), as in ``cpu.scalars``."""
    x = tl.where(x > 9.0, 9.0, x)
    x = tl.where(x < -9.0, -9.0, x)
    q = x * x
    above = x * (
        0.9999999794958588
        + q * (0.1338103078207207 + q * (3.4955940571362917e-3 + q * (2.0609172641705997e-5 + q * 1.3354772587e-8)))
    )
    below = 1.0 + q * (
        0.46714346385393635 + q * (2.5877005217842114e-2 + q * (3.2856442054241696e-4 + q * 7.776606768759558e-7))
    )
    value = above / below
    value = tl.where(value > 1.0, 1.0, value)
    return tl.where(value < -1.0, -1.0, value)


@triton.jit
def _sine_cosine(turns, shift):
    """sin and cos of pi (turns + shift) up to a common sign, whole periods taken off first."""
    rest = turns - _whole(turns)
    rest = tl.where(rest >= 0, rest - shift, rest + shift)
    q = rest * rest
    sine = rest * (3.14159264 + q * (-5.16770968 + q * (2.55006972 + q * (-0.59824211 + q * 0.07756035))))
    cosine = 1.0 + q * (-4.93480214 + q * (4.05870916 + q * (-1.33521206 + q * (0.23493756 + q * -0.02439672))))
    return sine, cosine


@triton.jit
def _clip(x, low, high):
    x = tl.where(x < low, low, x)  # written so that a NaN stays one
    return tl.where(x > high, high, x)


@triton.jit
def _load(address, dtype: tl.constexpr, at, inside):
    return tl.load(address.to(tl.pointer_type(dtype)) + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _wave(t, row):
    """v, sin and cos of theta up to a common sign, dv/dt, and 1 where no bound holds v."""
    divisor = tl.load(row + _V_DIVISOR)
    x = t / divisor
    v = _clip(x, tl.load(row + _V_LOW), tl.load(row + _V_HIGH))
    free = tl.where(x == v, 1.0, 0.0)
    sine, cosine = _sine_cosine(v * tl.load(row + _PERIODS), tl.load(row + _SHIFT))
    return v, sine, cosine, free / divisor, free


@triton.jit
def _steps(t, row, TANH: tl.constexpr, CLOSED: tl.constexpr):
    """u, u in steps, the level in steps, and where no level and no bound holds it."""
    low, high, shift = tl.load(row + _LOW), tl.load(row + _HIGH), tl.load(row + _SHIFT)
    scaled = t / tl.load(row + _DIVISOR)
    u = _clip(scaled, tl.load(row + _U_LOW), tl.load(row + _U_HIGH))
    x = u / tl.load(row + _PITCH)
    level = _clip(x, low, high)
    if TANH and CLOSED:  # the largest weight may miss the outermost level by rounding
        within = (x >= low * 1.00000047684) & (x <= high * 1.00000047684)
    elif CLOSED:
        within = x == level
    else:
        within = (x > low) & (x < high)
    return u, x, _whole(level - shift) + shift, within, u == scaled


@triton.jit
def tanh_blocks(values, out, size, BLOCK: tl.constexpr):
    """The loops' own tanh of a few numbers."""
    at = tl.arange(0, BLOCK)
    tl.store(out + at, _tanh(tl.load(values + at, mask=at < size, other=0.0)), mask=at < size)


# ``blocks`` (programs, 4) int64: row, layer, first weight and the one after the last, counted within the layer. A row
# is a layer, or one of its output channels. ``addresses`` (L, 3) int64: weights, what is written, what comes in.
# ``rows`` (R, COLUMNS) float32: ``engine.Column``.


@triton.jit
def _place(blocks, program, BLOCK: tl.constexpr):
    """The layer of a program, its row, its weights' places, and which of them there are."""
    entry = blocks + 4 * program
    at = tl.load(entry + 2) + tl.arange(0, BLOCK)
    return tl.load(entry + 1), tl.load(entry), at, at < tl.load(entry + 3)


@triton.jit
def largest_blocks(blocks, addresses, partial, DTYPE: tl.constexpr, BLOCK: tl.constexpr):
    """The bits of max|w|; without their sign, floats order as their bits do, a NaN above infinity."""
    program = tl.program_id(0)
    layer, _row, at, inside = _place(blocks, program, BLOCK)
    w = _load(tl.load(addresses + 3 * layer), DTYPE, at, inside)
    tl.store(partial + program, tl.max(w.to(tl.int32, bitcast=True) & 0x7FFFFFFF))


@triton.jit
def join_blocks(
    partial, edges, out, SUMS: tl.constexpr, WIDTH: tl.constexpr, LARGEST: tl.constexpr, MANY: tl.constexpr
):
    """(programs, SUMS) partial sums, or largest ones, to one row for each run of programs from an edge to the next.

    WIDTH is a power of two from SUMS on.
    """
    program = tl.program_id(0)
    column = tl.arange(0, WIDTH)
    first, last = tl.load(edges + program), tl.load(edges + program + 1)
    joined = tl.zeros([MANY, WIDTH], dtype=partial.dtype.element_ty)
    for start in range(first, last, MANY):
        at = start + tl.arange(0, MANY)
        inside = (at < last)[:, None] & (column < SUMS)[None, :]
        found = tl.load(partial + at[:, None] * SUMS + column[None, :], mask=inside, other=0)
        joined = tl.maximum(joined, found) if LARGEST else joined + found
    result = tl.max(joined, axis=0) if LARGEST else tl.sum(joined, axis=0)
    tl.store(out + program * SUMS + column, result, mask=column < SUMS)


@triton.jit
def round_blocks(
    blocks,
    addresses,
    rows,
    partial,
    DTYPE: tl.constexpr,
    TANH: tl.constexpr,
    ROUND: tl.constexpr,
    WAVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Weights on their levels; ``partial`` (programs,) takes the sum of sin^2."""
    program = tl.program_id(0)
    layer, number, at, inside = _place(blocks, program, BLOCK)
    table, row = addresses + 3 * layer, rows + _COLUMNS * number
    t = _load(tl.load(table), DTYPE, at, inside)
    if TANH:
        t = _tanh(t)
    if ROUND:
        _u, _x, steps, _within, _free = _steps(t, row, TANH, True)
        value = steps * tl.load(row + _STEP)
        tl.store(tl.load(table + 1).to(tl.pointer_type(DTYPE)) + at, value.to(DTYPE), mask=inside)
    if WAVE:
        _v, sine, _cosine, _slope, _free = _wave(t, row)
        tl.store(partial + program, tl.sum(tl.where(inside, sine * sine, 0.0)))


@triton.jit
def back_blocks(
    blocks,
    addresses,
    rows,
    slopes,
    partial,
    DTYPE: tl.constexpr,
    TANH: tl.constexpr,
    CLOSED: tl.constexpr,
    ROUND: tl.constexpr,
    WAVE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The straight-through gradient and the wave's; ``partial`` (programs, 5) takes the engine's sums."""
    program = tl.program_id(0)
    layer, number, at, inside = _place(blocks, program, BLOCK)
    table, row = addresses + 3 * layer, rows + _COLUMNS * number
    t = _load(tl.load(table), DTYPE, at, inside)
    if TANH:
        t = _tanh(t)
    out = tl.zeros_like(t)
    if ROUND:
        g = _load(tl.load(table + 2), DTYPE, at, inside)
        u, x, steps, within, free = _steps(t, row, TANH, CLOSED)
        passed = tl.where(within, g, 0.0)
        out = tl.load(row + _GAIN) / tl.load(row + _DIVISOR) * tl.where(free, passed, 0.0)
        tl.store(partial + 5 * program, tl.sum(g * steps - passed * x))
        tl.store(partial + 5 * program + 1, tl.sum(g * steps))
        tl.store(partial + 5 * program + 2, tl.sum(tl.where(free, passed * u, 0.0)))
    if WAVE:
        v, sine, cosine, slope, free = _wave(t, row)
        double = 2.0 * sine * cosine
        out += tl.load(slopes + number) * double * slope
        tl.store(partial + 5 * program + 3, tl.sum(tl.where(inside, v * double, 0.0)))
        tl.store(partial + 5 * program + 4, tl.sum(tl.where(inside, v * double * free, 0.0)))
    if TANH:
        out *= 1.0 - t * t
    tl.store(tl.load(table + 1).to(tl.pointer_type(DTYPE)) + at, out.to(DTYPE), mask=inside)


@triton.jit
def lengths_blocks(blocks, addresses, rows, partial, DTYPE: tl.constexpr, TANH: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of pull^2 (for slope 1), of its twin^2, of task * pull and task^2; ``partial`` (programs, 4)."""
    program = tl.program_id(0)
    layer, number, at, inside = _place(blocks, program, BLOCK)
    table, row = addresses + 3 * layer, rows + _COLUMNS * number
    t = _load(tl.load(table), DTYPE, at, inside)
    task = _load(tl.load(table + 2), DTYPE, at, inside)
    if TANH:
        t = _tanh(t)
    _v, sine, cosine, slope, _free = _wave(t, row)
    if TANH:
        slope *= 1.0 - t * t
    pull = tl.where(inside, 2.0 * sine * cosine * slope, 0.0)
    twin = tl.where(inside, (cosine * cosine - sine * sine) * slope, 0.0)
    tl.store(partial + 4 * program, tl.sum(pull * pull))
    tl.store(partial + 4 * program + 1, tl.sum(twin * twin))
    tl.store(partial + 4 * program + 2, tl.sum(task * pull))
    tl.store(partial + 4 * program + 3, tl.sum(task * task))


@triton.jit
def clip_round_blocks(x, out, size, low, steps, BLOCK: tl.constexpr):
    """round(clip(x, low, 1) steps) / steps."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    value = _whole(_clip(value, low, 1.0) * steps) / steps
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def clip_round_backward_blocks(x, gradient, out, size, low, CLOSED: tl.constexpr, BLOCK: tl.constexpr):
    """The gradient where low <= x <= 1, or low < x <= 1 unless CLOSED; zero elsewhere."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    above = value >= low if CLOSED else value > low
    kept = tl.where(above & (value <= 1.0), g, 0.0)
    tl.store(out + at, kept.to(out.dtype.element_ty), mask=inside)
