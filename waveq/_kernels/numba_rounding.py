"""The loops that put weights on their levels, and back: all layers of a table in one call, the wave riding along.

Tables have a row a layer. ``places`` (int64): addresses of the weights, of what is written and of the gradient that
comes in, the number of weights, and a sum of the kinds below. ``rows`` (float32) has the columns of ``Columns``.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np

from waveq._kernels.lanes import (
    NEAR,
    add,
    jit_loop,
    sine_and_cosine_of_half_turns,
    squash_tanh,
    squash_tanh_near,
    whole,
    widest_vectors,
)
from waveq._kernels.numba_kernels import chunk_of, clip, count_equal
from waveq._kernels.recipe import TINY
from waveq._kernels.threads import CHUNK

__all__ = [
    "CLOSED",
    "DIVISOR_FOLLOWS",
    "GAIN_FOLLOWS",
    "TANH",
    "TIES",
    "WAVE",
    "Columns",
    "back_at_once",
    "largest_chunks",
    "mean_by_layer",
    "round_at_once",
    "round_backward_chunks",
    "round_chunks",
    "settle",
    "sum_by_layer",
]

# Kinds: squashed by tanh; outermost levels count as inside; the wave is wanted too; the divisor (the gain) is to follow
# from the largest weight; the gradient goes through it, so that ties are to be counted.
TANH, CLOSED, WAVE, DIVISOR_FOLLOWS, GAIN_FOLLOWS, TIES = 1, 2, 4, 8, 16, 32


class Columns(IntEnum):
    """Of ``rows``: the coordinate and the levels in steps; the wave's coordinate, its phase, its slope; max|w|.

    ``SCALE`` is 1 / (divisor * pitch).
    """

    DIVISOR = 0
    FROM = 1
    TO = 2
    PITCH = 3
    GAIN = 4
    LOW = 5
    HIGH = 6
    SHIFT = 7
    WAVE_DIVISOR = 8
    WAVE_FROM = 9
    WAVE_TO = 10
    PERIODS = 11
    OFFSET = 12
    SLOPE = 13
    LARGEST = 14
    SCALE = 15


_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
# The largest weight is divided by itself; in a product with the inverse it may miss the outermost level by rounding.
_SLACK = np.float32(1.0 + 2.0**-21)
_TINY, _NEAR = np.float32(TINY), np.float32(NEAR)
_NOTHING, _WITHOUT_SIGN = np.int32(0), np.int32(0x7FFFFFFF)
Array = Any  # numba's arrays and float32; kernels are checked by their tests, not by mypy
Real = Any


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
def settle(edges: Array, places: Array, rows: Array, bits: Array) -> None:
    """max|w| by layer from the chunks', and what the quantisers' recipes take from it: divisor and gain."""
    for layer in range(places.shape[0]):
        row, kind = rows[layer], places[layer, 4]
        found = bits[edges[layer] : edges[layer] + 1].copy()
        for k in range(edges[layer], edges[layer + 1]):
            found[0] = max(found[0], bits[k])
        largest = found.view(np.float32)[0]
        row[14] = largest
        if kind & DIVISOR_FOLLOWS != 0:
            most = largest
            if kind & TANH != 0:
                most = squash_tanh_near(largest) if largest <= _NEAR else squash_tanh(largest)
            row[0] = (_ONE if kind & TIES != 0 else _TINY) if most <= _TINY else most
            row[8] = row[0]
        if kind & GAIN_FOLLOWS != 0:
            row[4] = _TINY if largest <= _TINY else largest
        row[15] = _ONE / (row[0] * row[3])


@jit_loop
def _squash(w: Array, t: Array, largest: Real) -> None:
    widest_vectors()
    near = largest <= _NEAR
    for i in range(w.size):
        t[i] = squash_tanh_near(w[i]) if near else squash_tanh(w[i])


@jit_loop
def _round_tanh(t: Array, out: Array, row: Array) -> None:
    widest_vectors()
    scale, pitch, gain, low, high, shift = row[15], row[3], row[4], row[5], row[6], row[7]
    for i in range(t.size):
        out[i] = gain * ((whole(clip(t[i] * scale, low, high) - shift) + shift) * pitch)


@jit_loop
def _wave_tanh(t: Array, row: Array) -> Real:
    widest_vectors()
    inverse, periods, offset = _ZERO if row[14] == _ZERO else _ONE / row[8], row[11], row[12]
    value = _ZERO
    for i in range(t.size):
        sine, _ = sine_and_cosine_of_half_turns(t[i] * inverse * periods, offset)
        value = add(value, sine * sine)
    return value


@jit_loop
def _round_clip(w: Array, out: Array, wave: bool, row: Array) -> Real:
    widest_vectors()
    divisor, start, end, pitch, gain, low, high, shift = (
        row[0],
        row[1],
        row[2],
        row[3],
        row[4],
        row[5],
        row[6],
        row[7],
    )
    wave_divisor, wave_start, wave_end, periods, offset = row[8], row[9], row[10], row[11], row[12]
    value = _ZERO
    for i in range(w.size):
        u = clip(w[i] / divisor, start, end)
        out[i] = gain * ((whole(clip(u / pitch, low, high) - shift) + shift) * pitch)
        if wave:
            v = clip(w[i] / wave_divisor, wave_start, wave_end)
            sine, _ = sine_and_cosine_of_half_turns(v * periods, offset)
            value = add(value, sine * sine)
    return value


@jit_loop
def round_chunks(first: int, last: int, edges: Array, places: Array, rows: Array, partial: Array) -> None:
    """Weights on their levels; ``partial`` takes each chunk's sum of sin^2 where the wave is wanted."""
    widest_vectors()
    t = np.empty(CHUNK, np.float32)
    layer = 0
    for k in range(first, last):
        while k >= edges[layer + 1]:
            layer += 1
        start, size, kind, row = (k - edges[layer]) * CHUNK, places[layer, 3], places[layer, 4], rows[layer]
        w, out = chunk_of(places[layer, 0], start, size), chunk_of(places[layer, 1], start, size)
        if kind & TANH != 0:
            squashed = t[: w.size]
            _squash(w, squashed, row[14])
            _round_tanh(squashed, out, row)
            partial[k] = _wave_tanh(squashed, row) if kind & WAVE != 0 else _ZERO
        else:
            partial[k] = _round_clip(w, out, kind & WAVE != 0, row)


@jit_loop
def _back_tanh(t: Array, g: Array, out: Array, row: Array) -> tuple[Real, Real, Real]:
    widest_vectors()
    scale, low, high, shift = row[15], row[5], row[6], row[7]
    lowest, highest, through = low * _SLACK, high * _SLACK, row[4] / row[0]
    by_pitch, by_gain, by_divisor = _ZERO, _ZERO, _ZERO
    for i in range(t.size):
        x = t[i] * scale
        steps = whole(clip(x, low, high) - shift) + shift
        passed = g[i] if (x >= lowest) & (x <= highest) else _ZERO
        by_pitch = add(by_pitch, g[i] * steps - passed * x)
        by_gain = add(by_gain, g[i] * steps)
        by_divisor = add(by_divisor, passed * t[i])
        out[i] = through * passed * (_ONE - t[i] * t[i])
    return by_pitch, by_gain, by_divisor / row[0]


@jit_loop
def _pull_tanh(t: Array, out: Array, row: Array) -> Real:
    widest_vectors()
    inverse, periods, offset = _ZERO if row[14] == _ZERO else _ONE / row[8], row[11], row[12]
    steep, moment = row[13] * inverse, _ZERO
    for i in range(t.size):
        v = t[i] * inverse
        sine, cosine = sine_and_cosine_of_half_turns(v * periods, offset)
        double = _TWO * sine * cosine
        moment = add(moment, v * double)
        out[i] += steep * double * (_ONE - t[i] * t[i])
    return moment


@jit_loop
def _back_clip(w: Array, g: Array, out: Array, closed: bool, wave: bool, row: Array) -> tuple[Real, Real, Real, Real]:
    widest_vectors()
    divisor, start, end, pitch, low, high, shift = row[0], row[1], row[2], row[3], row[5], row[6], row[7]
    wave_divisor, wave_start, wave_end, periods, offset = row[8], row[9], row[10], row[11], row[12]
    steep, through = row[13] / wave_divisor, row[4] / divisor
    by_pitch, by_gain, by_divisor, moment = _ZERO, _ZERO, _ZERO, _ZERO
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
        pulled = through * free
        if wave:
            t = w[i] / wave_divisor
            v = clip(t, wave_start, wave_end)
            sine, cosine = sine_and_cosine_of_half_turns(v * periods, offset)
            double = _TWO * sine * cosine
            moment = add(moment, v * double)
            pulled += steep * double if v == t else _ZERO
        out[i] = pulled
    return by_pitch, by_gain, by_divisor, moment


@jit_loop
def round_backward_chunks(first: int, last: int, edges: Array, places: Array, rows: Array, partial: Array) -> None:
    """The straight-through gradients, and the wave's own pull on top of them.

    Partial sums for pitch, gain and divisor, of v sin(2 theta), and the number of largest weights.
    """
    widest_vectors()
    t = np.empty(CHUNK, np.float32)
    layer = 0
    for k in range(first, last):
        while k >= edges[layer + 1]:
            layer += 1
        place, row, start = places[layer], rows[layer], (k - edges[layer]) * CHUNK
        size, kind = place[3], place[4]
        w, g, out = chunk_of(place[0], start, size), chunk_of(place[2], start, size), chunk_of(place[1], start, size)
        if kind & TANH != 0:
            squashed = t[: w.size]
            _squash(w, squashed, row[14])
            partial[k, 0], partial[k, 1], partial[k, 2] = _back_tanh(squashed, g, out, row)
            partial[k, 3] = _pull_tanh(squashed, out, row) if kind & WAVE != 0 else _ZERO
        else:
            sums = _back_clip(w, g, out, kind & CLOSED != 0, kind & WAVE != 0, row)
            partial[k, 0], partial[k, 1], partial[k, 2], partial[k, 3] = sums
        partial[k, 4] = count_equal(w, row[14]) if kind & TIES != 0 else _ZERO


@jit_loop
def mean_by_layer(edges: Array, places: Array, partial: Array, means: Array) -> None:
    """Means over each layer's weights, its chunks added up in their order."""
    for layer in range(places.shape[0]):
        total = 0.0
        for k in range(edges[layer], edges[layer + 1]):
            total += partial[k]
        means[layer] = total / places[layer, 3]


@jit_loop
def round_at_once(
    chunks: int, edges: Array, places: Array, rows: Array, bits: Array, partial: Array, means: Array
) -> None:
    """All that ``RoundingJob.run`` does, on one thread."""
    widest_vectors()
    largest_chunks(0, chunks, edges, places, bits)
    settle(edges, places, rows, bits)
    round_chunks(0, chunks, edges, places, rows, partial)
    mean_by_layer(edges, places, partial, means)


@jit_loop
def sum_by_layer(edges: Array, partial: Array, sums: Array) -> None:
    """Each layer's chunks added up in their order."""
    for layer in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            sums[layer, j] = 0.0
        for k in range(edges[layer], edges[layer + 1]):
            for j in range(sums.shape[1]):
                sums[layer, j] += partial[k, j]


@jit_loop
def back_at_once(chunks: int, edges: Array, places: Array, rows: Array, partial: Array, sums: Array) -> None:
    """``round_backward_chunks`` and the sums over each layer, on one thread."""
    widest_vectors()
    round_backward_chunks(0, chunks, edges, places, rows, partial)
    sum_by_layer(edges, partial, sums)
