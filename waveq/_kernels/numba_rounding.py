"""The loops that put weights on their levels, and back: all layers of a table in one call, the wave riding along.

Tables have a row a layer. ``places`` (int64): addresses of the weights, of what is written and of the gradient that
comes in, the number of weights, and a sum of the kinds below. ``rows`` (float32): divisor, lower and upper end of the
clip, pitch, gain, lowest and highest level in steps, shift; then the wave's divisor, its ends, periods, shift and slope;
last the largest weight where ties are to be counted, otherwise 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from waveq._kernels.lanes import add, jit_loop, sine_and_cosine_of_half_turns, squash_tanh, whole
from waveq._kernels.numba_kernels import chunk_of, clip, count_equal
from waveq._kernels.threads import CHUNK

__all__ = ["CLOSED", "COLUMNS", "TANH", "WAVE", "largest_chunks", "round_backward_chunks", "round_chunks"]

TANH, CLOSED, WAVE = 1, 2, 4  # squashed by tanh; outermost levels count as inside; the wave is wanted too
COLUMNS = 15

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_NOTHING, _WITHOUT_SIGN = np.int32(0), np.int32(0x7FFFFFFF)
Array = Any  # numba's arrays and float32; kernels are checked by their tests, not by mypy
Real = Any


@jit_loop
def _largest(bits: Array) -> Any:
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
    layer = 0
    for k in range(first, last):
        while k >= edges[layer + 1]:
            layer += 1
        run = chunk_of(places[layer, 0], (k - edges[layer]) * CHUNK, places[layer, 3])
        partial[k] = _largest(run.view(np.int32))


@jit_loop
def _round(w: Array, out: Array, tanh: bool, row: Array) -> None:
    divisor, ends, pitch, gain, low, high, shift = row[0], (row[1], row[2]), row[3], row[4], row[5], row[6], row[7]
    for i in range(w.size):
        u = squash_tanh(w[i]) / divisor if tanh else clip(w[i] / divisor, ends[0], ends[1])
        out[i] = gain * ((whole(clip(u / pitch, low, high) - shift) + shift) * pitch)


@jit_loop
def _round_and_wave(w: Array, out: Array, tanh: bool, row: Array) -> Real:
    divisor, ends, pitch, gain, low, high, shift = row[0], (row[1], row[2]), row[3], row[4], row[5], row[6], row[7]
    inverse, bounds, periods, offset = _ONE / row[8], (row[9], row[10]), row[11], row[12]
    value = _ZERO
    for i in range(w.size):
        t = squash_tanh(w[i]) if tanh else w[i]
        u = t / divisor if tanh else clip(t / divisor, ends[0], ends[1])
        out[i] = gain * ((whole(clip(u / pitch, low, high) - shift) + shift) * pitch)
        v = t * inverse if tanh else clip(t * inverse, bounds[0], bounds[1])
        sine, _ = sine_and_cosine_of_half_turns(v * periods, offset)
        value = add(value, sine * sine)
    return value


@jit_loop
def round_chunks(first: int, last: int, edges: Array, places: Array, rows: Array, partial: Array) -> None:
    """Weights on their levels; ``partial`` takes each chunk's sum of sin^2 where the wave is wanted."""
    layer = 0
    for k in range(first, last):
        while k >= edges[layer + 1]:
            layer += 1
        start, size, kind, row = (k - edges[layer]) * CHUNK, places[layer, 3], places[layer, 4], rows[layer]
        w, out, tanh = chunk_of(places[layer, 0], start, size), chunk_of(places[layer, 1], start, size), kind & TANH != 0
        if kind & WAVE != 0:
            partial[k] = _round_and_wave(w, out, tanh, row)
        else:
            _round(w, out, tanh, row)


@jit_loop
def _round_backward(w: Array, g: Array, out: Array, tanh: bool, closed: bool, row: Array) -> tuple[Real, Real, Real]:
    divisor, ends, pitch, gain, low, high, shift = row[0], (row[1], row[2]), row[3], row[4], row[5], row[6], row[7]
    by_pitch, by_gain, by_divisor = _ZERO, _ZERO, _ZERO
    for i in range(w.size):
        t = squash_tanh(w[i]) if tanh else w[i]
        scaled = t / divisor
        u = scaled if tanh else clip(scaled, ends[0], ends[1])
        slope = _ONE - t * t if tanh else (_ONE if u == scaled else _ZERO)
        x = u / pitch
        level = clip(x, low, high)
        steps = whole(level - shift) + shift
        within = x == level if closed else (x > low) & (x < high)
        passed = g[i] if within else _ZERO
        by_pitch = add(by_pitch, g[i] * steps - passed * x)
        by_gain = add(by_gain, g[i] * steps)
        by_divisor = add(by_divisor, (passed * u if tanh else passed * u * slope))
        out[i] = gain * passed * slope / divisor
    return by_pitch, by_gain, by_divisor


@jit_loop
def _add_wave_pull(w: Array, out: Array, tanh: bool, row: Array) -> Real:
    inverse, bounds, periods, offset = _ONE / row[8], (row[9], row[10]), row[11], row[12]
    steep = row[13] * inverse
    moment = _ZERO
    for i in range(w.size):
        t = squash_tanh(w[i]) if tanh else w[i]
        scaled = t * inverse
        v = scaled if tanh else clip(scaled, bounds[0], bounds[1])
        slope = _ONE - t * t if tanh else (_ONE if v == scaled else _ZERO)
        sine, cosine = sine_and_cosine_of_half_turns(v * periods, offset)
        double = _TWO * sine * cosine
        moment = add(moment, v * double)
        out[i] += steep * double * slope
    return moment


@jit_loop
def round_backward_chunks(first: int, last: int, edges: Array, places: Array, rows: Array, partial: Array) -> None:
    """The straight-through gradient, and the wave's own pull on top of it.

    Partial sums for pitch, gain and divisor, of v sin(2 theta), and the number of largest weights.
    """
    layer = 0
    for k in range(first, last):
        while k >= edges[layer + 1]:
            layer += 1
        start, size, kind, row = (k - edges[layer]) * CHUNK, places[layer, 3], places[layer, 4], rows[layer]
        w, out = chunk_of(places[layer, 0], start, size), chunk_of(places[layer, 1], start, size)
        tanh, g = kind & TANH != 0, chunk_of(places[layer, 2], start, size)
        sums = _round_backward(w, g, out, tanh, kind & CLOSED != 0, row)
        partial[k, 0], partial[k, 1], partial[k, 2] = sums
        if kind & WAVE != 0:
            partial[k, 3] = _add_wave_pull(w, out, tanh, row)
        if row[14] > _ZERO:
            partial[k, 4] = count_equal(w, row[14])
