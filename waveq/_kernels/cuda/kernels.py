"""The loops on a GPU. One launch walks over all layers: a program looks up its layer and its place there in a table.

Each program writes its sums to its own place; they are added up in their order by a second small launch or by torch, so
that the result is the same in every run (atomic additions would not be). Numbers are float32, whatever the weights are.
The polynomials are those of ``lanes``; a library's sine would reduce a range that is small already.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "BLOCK",
    "balance_blocks",
    "clip_round_backward_blocks",
    "clip_round_blocks",
    "round_backward_blocks",
    "round_blocks",
    "wave_blocks",
]

BLOCK = 4096  # weights of one program


@triton.jit
def _whole(x):
    """The nearest whole number, halves to even, for |x| < 2^22; volatile arithmetic of this kind is not folded."""
    return (x + 12582912.0) - 12582912.0


@triton.jit
def _tanh(x):
    """x P(x^2) / Q(x^2), as in ``lanes``."""
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
def _coordinate(w, tanh, divisor, low, high):
    """u, du/dw with the divisor held, and 1 where no clip holds the weight."""
    t = tl.where(tanh != 0, _tanh(w), w)
    x = t / divisor
    # tanh over its largest value is 1 at most; the divisor comes from another tanh, whose last bit may differ
    u = _clip(x, tl.where(tanh != 0, -1.0, low), tl.where(tanh != 0, 1.0, high))
    free = tl.where((x == u) | (tanh != 0), 1.0, 0.0)
    slope = tl.where(tanh != 0, 1.0 - t * t, free) / divisor
    return u, slope, free


@triton.jit
def _load(address, dtype: tl.constexpr, at, inside):
    return tl.load(address.to(tl.pointer_type(dtype)) + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def wave_blocks(layers, addresses, numbers, partial, DTYPE: tl.constexpr, GRADIENTS: tl.constexpr, BLOCK: tl.constexpr):
    """Value, moments and gradient of one block.

    ``layers`` (programs, 2) int32: layer, block within it. ``addresses`` (L, 4) int64: weights, gradients, size,
    tanh or not. ``numbers`` (L, 6) float32: divisor, low, high, periods, shift, slope. ``partial`` (programs, 3).
    """
    program = tl.program_id(0)
    layer = tl.load(layers + 2 * program)
    start = tl.load(layers + 2 * program + 1).to(tl.int64) * BLOCK
    table, row = addresses + 4 * layer, numbers + 6 * layer
    at = start + tl.arange(0, BLOCK)
    inside = at < tl.load(table + 2)
    w = _load(tl.load(table), DTYPE, at, inside)
    u, steep, free = _coordinate(w, tl.load(table + 3), tl.load(row), tl.load(row + 1), tl.load(row + 2))
    sine, cosine = _sine_cosine(u * tl.load(row + 3), tl.load(row + 4))
    double = 2.0 * sine * cosine
    if GRADIENTS:
        pull = tl.load(row + 5) * double * steep
        tl.store(tl.load(table + 1).to(tl.pointer_type(DTYPE)) + at, pull.to(DTYPE), mask=inside)
    tl.store(partial + 3 * program, tl.sum(tl.where(inside, sine * sine, 0.0)))
    tl.store(partial + 3 * program + 1, tl.sum(tl.where(inside, u * double, 0.0)))
    tl.store(partial + 3 * program + 2, tl.sum(tl.where(inside, u * double * free, 0.0)))


@triton.jit
def balance_blocks(layers, addresses, numbers, partial, DTYPE: tl.constexpr, BLOCK: tl.constexpr):
    """Sums of pull^2, of its twin^2, of task * pull and task^2 of one block; tables as in ``wave_blocks``."""
    program = tl.program_id(0)
    layer = tl.load(layers + 2 * program)
    start = tl.load(layers + 2 * program + 1).to(tl.int64) * BLOCK
    table, row = addresses + 4 * layer, numbers + 6 * layer
    at = start + tl.arange(0, BLOCK)
    inside = at < tl.load(table + 2)
    w = _load(tl.load(table), DTYPE, at, inside)
    task = _load(tl.load(table + 1), DTYPE, at, inside)
    u, steep, _free = _coordinate(w, tl.load(table + 3), tl.load(row), tl.load(row + 1), tl.load(row + 2))
    sine, cosine = _sine_cosine(u * tl.load(row + 3), tl.load(row + 4))
    pull = tl.where(inside, tl.load(row + 5) * 2.0 * sine * cosine * steep, 0.0)
    twin = tl.where(inside, tl.load(row + 5) * (cosine * cosine - sine * sine) * steep, 0.0)
    tl.store(partial + 4 * program, tl.sum(pull * pull))
    tl.store(partial + 4 * program + 1, tl.sum(twin * twin))
    tl.store(partial + 4 * program + 2, tl.sum(task * pull))
    tl.store(partial + 4 * program + 3, tl.sum(task * task))


@triton.jit
def _steps(w, row, TANH: tl.constexpr):
    """u, du/dw, freedom of the clip, and u, its clipped value and its level in steps."""
    tanh = 1 if TANH else 0
    u, slope, free = _coordinate(w, tanh, tl.load(row), tl.load(row + 1), tl.load(row + 2))
    x = u / tl.load(row + 3)
    level = _clip(x, tl.load(row + 5), tl.load(row + 6))
    shift = tl.load(row + 7)
    return u, slope, free, x, level, _whole(level - shift) + shift


@triton.jit
def round_blocks(weight, out, row, size, TANH: tl.constexpr, BLOCK: tl.constexpr):
    """Weights on their levels; ``row``: divisor, the clip's ends, pitch, gain, lowest and highest level, shift."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    w = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    _u, _slope, _free, _x, _level, steps = _steps(w, row, TANH)
    value = tl.load(row + 4) * (steps * tl.load(row + 3))
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def round_backward_blocks(
    weight, gradient, out, row, partial, size, TANH: tl.constexpr, CLOSED: tl.constexpr, BLOCK: tl.constexpr
):
    """The straight-through gradient, and the sums for pitch, gain and divisor in ``partial`` (programs, 3)."""
    program = tl.program_id(0)
    at = program.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    w = tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    u, slope, free, x, level, steps = _steps(w, row, TANH)
    within = (x == level) if CLOSED else ((x > tl.load(row + 5)) & (x < tl.load(row + 6)))
    passed = tl.where(within, g, 0.0)
    tl.store(out + at, (tl.load(row + 4) * passed * slope).to(out.dtype.element_ty), mask=inside)
    tl.store(partial + 3 * program, tl.sum(g * steps - passed * x))
    tl.store(partial + 3 * program + 1, tl.sum(g * steps))
    tl.store(partial + 3 * program + 2, tl.sum(passed * u * free))


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
