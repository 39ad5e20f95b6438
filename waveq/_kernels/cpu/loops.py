"""The loops over weights: one chunk of one layer at a time, so that what is read stays in the first-level cache.

Where levels belong to output channels, "layer" means one channel of a layer: there is a row for each of them.

Every kernel takes the first and the last chunk of its share, the first chunk of each layer (``edges``), a row a layer
of ``places`` (int64: the addresses of the weights, of what is written and of what comes in, the number of weights) and
of ``rows`` (float32: ``engine.Column``), and a table of partial sums with one row a chunk, which the caller adds up in
their order. ``kind`` is a sum of the kinds below and holds for all layers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from waveq._kernels.cpu.scalars import (
    NEAR,
    add,
    clip,
    floats_at,
    jit_loop,
    sine_and_cosine_of_half_turns,
    squash_tanh,
    squash_tanh_near,
    whole,
    widest_vectors,
)
from waveq._kernels.cpu.threads import CHUNK
from waveq._kernels.engine import Column

__all__ = [
    "CLOSED",
    "ROUND",
    "TANH",
    "WAVE",
    "back_chunks",
    "chunk_of",
    "largest_chunks",
    "lengths_chunks",
    "push_largest_chunks",
    "round_chunks",
    "tanh_of",
]

# Kinds: squashed by tanh; outermost levels count as inside; quantised values are wanted; the wave is wanted.
TANH, CLOSED, ROUND, WAVE = 1, 2, 4, 8

# plain numbers, which numba takes for constants
DIVISOR, U_LOW, U_HIGH, PITCH = (Column[name].value for name in ("DIVISOR", "U_LOW", "U_HIGH", "PITCH"))
GAIN, LOW, HIGH, SHIFT = (Column[name].value for name in ("GAIN", "LOW", "HIGH", "SHIFT"))
V_DIVISOR, V_LOW, V_HIGH = (Column[name].value for name in ("V_DIVISOR", "V_LOW", "V_HIGH"))
PERIODS, LARGEST, STEP = (Column[name].value for name in ("PERIODS", "LARGEST", "STEP"))

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
# The largest weight is divided by itself; in a product with the inverse it may miss the outermost level by rounding.
_SLACK = np.float32(1.0 + 2.0**-21)
_NEAR = np.float32(NEAR)
_NOTHING, _WITHOUT_SIGN = np.int32(0), np.int32(0x7FFFFFFF)
Array = Any  # numba's arrays and float32; kernels are checked by their tests, not by mypy
Real = Any


@jit_loop
def chunk_of(address: int, start: int, size: int) -> Array:
    """The run of one layer that begins at ``start``."""
    return floats_at(address + 4 * start, min(CHUNK, size - start))


@jit_loop
def _largest(bits: Array) -> Any:
    widest_vectors()
    largest = _NOTHING
    for i in range(bits.size):
        size = bits[i] & _WITHOUT_SIGN
        largest = max(size, largest)
    return largest


@jit_loop
def largest_chunks(first: int, last: int, edges: Array, places: Array, partial: Array) -> None:
    """The bits of max|w| by chunk, int32.

    Without their sign, floats order as their bits do, a NaN above infinity; a comparison of floats would pass over the
    NaN, and would not vectorise.
    """
    widest_vectors()
    layer = 0
    for k in range(first, last):
        while k >= edges[layer + 1]:
            layer += 1
        run = chunk_of(places[layer, 0], (k - edges[layer]) * CHUNK, places[layer, 3])
        partial[k] = _largest(run.view(np.int32))


@jit_loop
def _tanh(w: Array, t: Array, largest: Real) -> None:
    widest_vectors()
    near = largest <= _NEAR
    for i in range(w.size):
        t[i] = squash_tanh_near(w[i]) if near else squash_tanh(w[i])


@jit_loop
def tanh_of(largest: Array, out: Array) -> None:
    """tanh of each layer's largest weight, by the same polynomial as of its weights."""
    for layer in range(largest.size):
        _tanh(largest[layer : layer + 1], out[layer : layer + 1], largest[layer])


@jit_loop
def _round_tanh(t: Array, out: Array, row: Array) -> None:
    widest_vectors()
    scale, pitch, step, shift = _ONE / (row[DIVISOR] * row[PITCH]), row[PITCH], row[STEP], row[SHIFT]
    low, high = max(row[LOW], row[U_LOW] / pitch), min(row[HIGH], row[U_HIGH] / pitch)
    for i in range(t.size):
        out[i] = (whole(clip(t[i] * scale, low, high) - shift) + shift) * step


@jit_loop
def _round_clip(w: Array, out: Array, row: Array) -> None:
    widest_vectors()
    divisor, start, end, pitch = row[DIVISOR], row[U_LOW], row[U_HIGH], row[PITCH]
    step, low, high, shift = row[STEP], row[LOW], row[HIGH], row[SHIFT]
    for i in range(w.size):
        u = clip(w[i] / divisor, start, end)
        out[i] = (whole(clip(u / pitch, low, high) - shift) + shift) * step


@jit_loop
def _wave(t: Array, row: Array) -> Real:
    widest_vectors()
    inverse, low, high, periods, shift = _ONE / row[V_DIVISOR], row[V_LOW], row[V_HIGH], row[PERIODS], row[SHIFT]
    value = _ZERO
    for i in range(t.size):
        sine, _ = sine_and_cosine_of_half_turns(clip(t[i] * inverse, low, high) * periods, shift)
        value = add(value, sine * sine)
    return value


@jit_loop
def round_chunks(first: int, last: int, kind: int, edges: Array, places: Array, rows: Array, partial: Array) -> None:
    """Weights on their levels; ``partial`` takes each chunk's sum of sin^2."""
    widest_vectors()
    spare = np.empty(CHUNK, np.float32)
    layer = 0
    for k in range(first, last):
        while k >= edges[layer + 1]:
            layer += 1
        start, size, row = (k - edges[layer]) * CHUNK, places[layer, 3], rows[layer]
        t = chunk_of(places[layer, 0], start, size)
        if kind & TANH != 0:
            w, t = t, spare[: t.size]
            _tanh(w, t, row[LARGEST])
        if kind & ROUND != 0:
            out = chunk_of(places[layer, 1], start, size)
            if kind & TANH != 0:
                _round_tanh(t, out, row)
            else:
                _round_clip(t, out, row)
        partial[k] = _wave(t, row) if kind & WAVE != 0 else _ZERO


@jit_loop
def _back_tanh(t: Array, g: Array, out: Array, closed: bool, row: Array) -> tuple[Real, Real, Real]:
    widest_vectors()
    scale, low, high, shift = _ONE / (row[DIVISOR] * row[PITCH]), row[LOW], row[HIGH], row[SHIFT]
    start, end = row[U_LOW] / row[PITCH], row[U_HIGH] / row[PITCH]
    slack = _SLACK if closed else _ONE / _SLACK
    lowest, highest, through = low * slack, high * slack, row[GAIN] / row[DIVISOR]
    by_pitch, by_gain, by_divisor = _ZERO, _ZERO, _ZERO
    for i in range(t.size):
        scaled = t[i] * scale
        x = clip(scaled, start, end)
        steps = whole(clip(x, low, high) - shift) + shift
        passed = g[i] if (x >= lowest) & (x <= highest) else _ZERO
        free = passed if x == scaled else _ZERO
        by_pitch = add(by_pitch, g[i] * steps - passed * x)
        by_gain = add(by_gain, g[i] * steps)
        by_divisor = add(by_divisor, free * t[i])
        out[i] = through * free * (_ONE - t[i] * t[i])
    return by_pitch, by_gain, by_divisor / row[DIVISOR]


@jit_loop
def _back_clip(w: Array, g: Array, out: Array, closed: bool, row: Array) -> tuple[Real, Real, Real]:
    widest_vectors()
    divisor, start, end, pitch = row[DIVISOR], row[U_LOW], row[U_HIGH], row[PITCH]
    low, high, shift, through = row[LOW], row[HIGH], row[SHIFT], row[GAIN] / row[DIVISOR]
    by_pitch, by_gain, by_divisor = _ZERO, _ZERO, _ZERO
    for i in range(w.size):
        scaled = w[i] / divisor
        u = clip(scaled, start, end)
        x = u / pitch
        level = clip(x, low, high)
        steps = whole(level - shift) + shift
        within = x == level if closed else (x > low) & (x < high)
        passed = g[i] if within else _ZERO
        free = passed if u == scaled else _ZERO
        by_pitch = add(by_pitch, g[i] * steps - passed * x)
        by_gain = add(by_gain, g[i] * steps)
        by_divisor = add(by_divisor, free * u)
        out[i] = through * free
    return by_pitch, by_gain, by_divisor


@jit_loop
def _pull(t: Array, out: Array, rounded: bool, bend: Real, slope: Real, row: Array) -> tuple[Real, Real]:
    """``bend`` is 1 where t = tanh(w), whose derivative is 1 - t^2, and 0 where t = w."""
    widest_vectors()
    inverse, low, high, periods, shift = _ONE / row[V_DIVISOR], row[V_LOW], row[V_HIGH], row[PERIODS], row[SHIFT]
    steep, moment, inside = slope * inverse, _ZERO, _ZERO
    for i in range(t.size):
        x = t[i] * inverse
        v = clip(x, low, high)
        sine, cosine = sine_and_cosine_of_half_turns(v * periods, shift)
        double = _TWO * sine * cosine
        free = double if v == x else _ZERO
        moment = add(moment, v * double)
        inside = add(inside, v * free)
        pulled = steep * free * (_ONE - bend * t[i] * t[i])
        out[i] = out[i] + pulled if rounded else pulled
    return moment, inside


@jit_loop
def back_chunks(
    first: int, last: int, kind: int, edges: Array, places: Array, rows: Array, slopes: Array, partial: Array
) -> None:
    """The straight-through gradients, and the wave's own pull on top of them; ``partial`` has the engine's sums."""
    widest_vectors()
    spare = np.empty(CHUNK, np.float32)
    layer = 0
    for k in range(first, last):
        while k >= edges[layer + 1]:
            layer += 1
        start, size, row = (k - edges[layer]) * CHUNK, places[layer, 3], rows[layer]
        t, out = chunk_of(places[layer, 0], start, size), chunk_of(places[layer, 1], start, size)
        if kind & TANH != 0:
            w, t = t, spare[: t.size]
            _tanh(w, t, row[LARGEST])
        if kind & ROUND != 0:
            g, closed = chunk_of(places[layer, 2], start, size), kind & CLOSED != 0
            if kind & TANH != 0:
                partial[k, 0], partial[k, 1], partial[k, 2] = _back_tanh(t, g, out, closed, row)
            else:
                partial[k, 0], partial[k, 1], partial[k, 2] = _back_clip(t, g, out, closed, row)
        if kind & WAVE != 0:
            bend = _ONE if kind & TANH != 0 else _ZERO
            partial[k, 3], partial[k, 4] = _pull(t, out, kind & ROUND != 0, bend, slopes[layer], row)


@jit_loop
def push_largest_chunks(places: Array, rows: Array, kind: int, push: Array) -> None:
    """Add to each layer's gradient that of max|f(w)| times ``push``, split among the weights that are the largest."""
    widest_vectors()
    for layer in range(places.shape[0]):
        if push[layer] == _ZERO:
            continue
        w, out = floats_at(places[layer, 0], places[layer, 3]), floats_at(places[layer, 1], places[layer, 3])
        largest, count = rows[layer, LARGEST], 0
        for i in range(w.size):
            if abs(w[i]) == largest:
                count += 1
        t = squash_tanh_near(largest) if largest <= _NEAR else squash_tanh(largest)
        share = push[layer] * ((_ONE - t * t) if kind & TANH != 0 else _ONE) / np.float32(max(count, 1))
        for i in range(w.size):
            if abs(w[i]) == largest and w[i] != _ZERO:  # |w| has no slope at 0
                out[i] += share if w[i] > _ZERO else -share


@jit_loop
def _lengths(t: Array, task: Array, bend: Real, row: Array) -> tuple[Real, Real, Real, Real]:
    widest_vectors()
    inverse, low, high, periods, shift = _ONE / row[V_DIVISOR], row[V_LOW], row[V_HIGH], row[PERIODS], row[SHIFT]
    pulls, twins, along, tasks = _ZERO, _ZERO, _ZERO, _ZERO
    for i in range(t.size):
        x = t[i] * inverse
        v = clip(x, low, high)
        slope = (_ONE - bend * t[i] * t[i]) * inverse if v == x else _ZERO
        sine, cosine = sine_and_cosine_of_half_turns(v * periods, shift)
        pull = _TWO * sine * cosine * slope
        twin = (cosine * cosine - sine * sine) * slope
        pulls = add(pulls, pull * pull)
        twins = add(twins, twin * twin)
        along = add(along, pull * task[i])
        tasks = add(tasks, task[i] * task[i])
    return pulls, twins, along, tasks


@jit_loop
def lengths_chunks(first: int, last: int, kind: int, edges: Array, places: Array, rows: Array, partial: Array) -> None:
    """Lengths of the wave's pull (for slope 1), of its quarter-period twin and of the task's gradient that comes in."""
    widest_vectors()
    spare = np.empty(CHUNK, np.float32)
    layer = 0
    for k in range(first, last):
        while k >= edges[layer + 1]:
            layer += 1
        start, size, row = (k - edges[layer]) * CHUNK, places[layer, 3], rows[layer]
        t, task = chunk_of(places[layer, 0], start, size), chunk_of(places[layer, 2], start, size)
        if kind & TANH != 0:
            w, t = t, spare[: t.size]
            _tanh(w, t, row[LARGEST])
        sums = _lengths(t, task, _ONE if kind & TANH != 0 else _ZERO, row)
        partial[k, 0], partial[k, 1], partial[k, 2], partial[k, 3] = sums
