"""The loops: one chunk of one layer at a time, so that what is read stays in the first-level cache.

Every kernel takes the first and the last chunk of its share, tables with one entry a layer, and a table of partial sums
with one row a chunk: the caller adds those up in their order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from waveq._kernels.lanes import (
    add,
    floats_at,
    jit_loop,
    sine_and_cosine_of_half_turns,
    squash_tanh,
    squash_tanh_near,
    whole,
    widest_vectors,
)
from waveq._kernels.threads import CHUNK

__all__ = [
    "balance_chunks",
    "chunk_of",
    "clip",
    "clip_round_backward_chunks",
    "clip_round_chunks",
    "count_equal",
    "wave_chunks",
]

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
Array = Any  # numba's arrays and float32; kernels are checked by their tests, not by mypy
Real = Any


@jit_loop
def chunk_of(address: int, start: int, size: int) -> Array:
    """The run of one layer that begins at ``start``."""
    return floats_at(address + 4 * start, min(CHUNK, size - start))


@jit_loop
def count_equal(w: Array, largest: Real) -> Real:
    """How many weights are as large as the largest."""
    widest_vectors()
    count = _ZERO
    for i in range(w.size):
        count = add(count, _ONE if abs(w[i]) == largest else _ZERO)
    return count


@jit_loop
def clip(x: Real, low: Real, high: Real) -> Real:
    """x within the ends; a NaN stays one."""
    x = low if x < low else x  # written so that a NaN stays one
    return high if x > high else x


@jit_loop
def squash(x: Real, kind: int) -> Real:
    """tanh(x) for kind 1, the shorter one for kind 2, x itself for kind 0."""
    return x if kind == 0 else (squash_tanh(x) if kind == 1 else squash_tanh_near(x))


@jit_loop
def _wave_tanh(
    w: Array, g: Array, kind: int, divisor: Real, periods: Real, shift: Real, slope: Real
) -> tuple[Real, Real]:
    widest_vectors()
    inverse = _ONE / divisor
    steep = slope * inverse
    value, moment = _ZERO, _ZERO
    for i in range(w.size):
        t = squash(w[i], kind)
        u = t * inverse
        sine, cosine = sine_and_cosine_of_half_turns(u * periods, shift)
        double = _TWO * sine * cosine
        value = add(value, sine * sine)
        moment = add(moment, u * double)
        g[i] = steep * double * (_ONE - t * t)
    return value, moment


@jit_loop
def _wave_clip(
    w: Array, g: Array, divisor: Real, low: Real, high: Real, periods: Real, shift: Real, slope: Real
) -> tuple[Real, Real, Real]:
    widest_vectors()
    steep = slope / divisor
    value, moment, inside = _ZERO, _ZERO, _ZERO
    for i in range(w.size):
        x = w[i] / divisor
        u = clip(x, low, high)
        sine, cosine = sine_and_cosine_of_half_turns(u * periods, shift)
        double = _TWO * sine * cosine
        free = _ONE if x == u else _ZERO
        value = add(value, sine * sine)
        moment = add(moment, u * double)
        inside = add(inside, free * (u * double))
        g[i] = steep * double * free
    return value, moment, inside


@jit_loop
def wave_chunks(
    first: int,
    last: int,
    edges: Array,
    weights: Array,
    gradients: Array,
    sizes: Array,
    tanh: Array,
    numbers: Array,
    partial: Array,
) -> None:
    """Value, both moments and the gradient, all layers in one pass.

    ``numbers`` has the columns divisor, low, high, periods, shift, slope, largest (0 where no ties are to be counted);
    ``partial`` has sin^2, u sin(2 theta), the same inside the clip, and the number of weights as large as the largest.
    ``tanh`` has the kinds of ``squash``. An address of 0 in ``gradients`` means that none is wanted.
    """
    widest_vectors()
    spare = np.empty(CHUNK, np.float32)
    layer = 0
    for k in range(first, last):
        while k >= edges[layer + 1]:
            layer += 1
        start, size, row = (k - edges[layer]) * CHUNK, sizes[layer], numbers[layer]
        w = chunk_of(weights[layer], start, size)
        g = spare[: w.size] if gradients[layer] == 0 else chunk_of(gradients[layer], start, size)
        if tanh[layer]:
            value, moment = _wave_tanh(w, g, tanh[layer], row[0], row[3], row[4], row[5])
            inside = moment
        else:
            value, moment, inside = _wave_clip(w, g, row[0], row[1], row[2], row[3], row[4], row[5])
        partial[k, 0], partial[k, 1], partial[k, 2] = value, moment, inside
        if row[6] > _ZERO:
            partial[k, 3] = count_equal(w, row[6])


@jit_loop
def _balance(
    w: Array, task: Array, tanh: int, divisor: Real, low: Real, high: Real, periods: Real, shift: Real
) -> tuple[Real, Real, Real, Real]:
    widest_vectors()
    pulls, twins, along, tasks = _ZERO, _ZERO, _ZERO, _ZERO
    for i in range(w.size):
        t = squash(w[i], tanh)
        x = t / divisor
        u = clip(x, low, high)
        slope = (_ONE - t * t if tanh else (_ONE if x == u else _ZERO)) / divisor
        sine, cosine = sine_and_cosine_of_half_turns(u * periods, shift)
        pull = _TWO * sine * cosine * slope
        twin = (cosine * cosine - sine * sine) * slope
        pulls = add(pulls, pull * pull)
        twins = add(twins, twin * twin)
        along = add(along, pull * task[i])
        tasks = add(tasks, task[i] * task[i])
    return pulls, twins, along, tasks


@jit_loop
def balance_chunks(
    first: int,
    last: int,
    edges: Array,
    weights: Array,
    tasks: Array,
    sizes: Array,
    tanh: Array,
    numbers: Array,
    partial: Array,
) -> None:
    """Lengths of the wave's pull (without its amplitude), of its quarter-period twin and of the task's gradient."""
    widest_vectors()
    layer = 0
    for k in range(first, last):
        while k >= edges[layer + 1]:
            layer += 1
        start, size, row = (k - edges[layer]) * CHUNK, sizes[layer], numbers[layer]
        w, task = chunk_of(weights[layer], start, size), chunk_of(tasks[layer], start, size)
        sums = _balance(w, task, tanh[layer], row[0], row[1], row[2], row[3], row[4])
        partial[k, 0], partial[k, 1], partial[k, 2], partial[k, 3] = sums


@jit_loop
def _clip_round(x: Array, out: Array, low: Real, steps: Real) -> None:
    widest_vectors()
    for i in range(x.size):
        out[i] = whole(clip(x[i], low, _ONE) * steps) / steps


@jit_loop
def clip_round_chunks(first: int, last: int, x: int, out: int, size: int, low: Real, steps: Real) -> None:
    """round(clip(x, low, 1) steps) / steps."""
    widest_vectors()
    for k in range(first, last):
        _clip_round(chunk_of(x, k * CHUNK, size), chunk_of(out, k * CHUNK, size), low, steps)


@jit_loop
def _clip_round_backward(x: Array, g: Array, out: Array, low: Real) -> None:
    widest_vectors()
    for i in range(x.size):
        out[i] = g[i] if low <= x[i] <= _ONE else _ZERO


@jit_loop
def _clip_round_backward_open(x: Array, g: Array, out: Array, low: Real) -> None:
    widest_vectors()
    for i in range(x.size):
        out[i] = g[i] if low < x[i] <= _ONE else _ZERO


@jit_loop
def clip_round_backward_chunks(
    first: int, last: int, x: int, gradient: int, out: int, size: int, low: Real, closed: bool
) -> None:
    """The gradient where low <= x <= 1, or low < x <= 1 unless closed; zero elsewhere."""
    widest_vectors()
    for k in range(first, last):
        g, o = chunk_of(gradient, k * CHUNK, size), chunk_of(out, k * CHUNK, size)
        if closed:
            _clip_round_backward(chunk_of(x, k * CHUNK, size), g, o, low)
        else:
            _clip_round_backward_open(chunk_of(x, k * CHUNK, size), g, o, low)
