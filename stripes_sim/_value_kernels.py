"""Compiled loops over real values. No checks here: `stripes_sim.values` has made them.

Values lie in rows of one place each with its channels side by side, and one more row of what padding holds. ``index``
of shape (windows, taps) says which row a window meets with a tap. ``lanes`` channels are taken at once, ``chunks``
times until all channels are through. Kernels that begin with ``first_row`` and ``last_row`` are called without: threads
share the rows of ``out``. Their loops count from 0, in a part of the arrays: where a row might be negative, as far as
the compiler knows, it makes no vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from stripes_sim._jit import shared
from stripes_sim._wrapping import wrapping_loop

__all__ = [
    "any_set",
    "most_of_windows",
    "most_terms_of",
    "planes_of",
    "round_robin",
    "rounds",
    "run_ahead",
    "slowest_products",
]

_ONE = np.uint64(1)
_WORTH_A_THREAD = 20_000  # numbers written; with fewer, waking it costs more than it brings

Kernel = TypeVar("Kernel", bound=Callable[..., None])


def _shared_rows(kernel: Kernel) -> Callable[..., None]:
    """Called without its first two arguments: threads share the rows of the last one, which it writes."""
    loop = wrapping_loop(kernel)

    @wraps(kernel)
    def call(*arguments: Any) -> None:
        out = arguments[-1]
        shared(loop, len(out), *arguments, worth=max(1, _WORTH_A_THREAD * len(out) // max(1, out.size)))

    return call


@_shared_rows
def planes_of(first_row: int, last_row: int, values: Any, shift: int, mask: int, signed: bool, out: Any) -> None:
    """The words of `stripes_sim._words.plane_words` for one digit: ``values`` (N,) integers, ``out`` (N,) uint32."""
    values, out = values[first_row:last_row], out[first_row:last_row]
    for at in range(len(out)):
        part = np.int64(values[at]) >> shift
        planes = part & mask
        least = planes | 1
        if signed:
            least = (part ^ (part >> 63)) << 1 | 2
        out[at] = least | planes << 16


@_shared_rows
def most_terms_of(first_row: int, last_row: int, values: Any, digits: int, width: int, terms: Any, out: Any) -> None:
    """Most of the ``terms`` (65536,) uint8 of the digits of each magnitude: ``values`` (N,) integers, ``out`` uint8."""
    mask = (1 << width) - 1
    values, out = values[first_row:last_row], out[first_row:last_row]
    for at in range(len(out)):
        magnitude = abs(np.int64(values[at]))
        most = terms[magnitude & mask]
        for digit in range(1, digits):
            most = max(most, terms[magnitude >> (width * digit) & mask])
        out[at] = most


@_shared_rows
def any_set(first_row: int, last_row: int, words: Any, index: Any, lanes: int, out: Any) -> None:
    """Bits that any lane has set: ``words`` (rows, channels) uint32 -> ``out`` (windows, taps, chunks) uint32."""
    _windows, taps, chunks = out.shape
    channels = words.shape[1]
    index, out = index[first_row:last_row], out[first_row:last_row]
    for window in range(len(out)):
        for tap in range(taps):
            row = index[window, tap]
            for chunk in range(chunks):
                word = words[row, chunk * lanes]
                for channel in range(chunk * lanes + 1, min(channels, (chunk + 1) * lanes)):
                    word |= words[row, channel]
                out[window, tap, chunk] = word


@_shared_rows
def rounds(first_row: int, last_row: int, words: Any, index: Any, lanes: int, reach: int, out: Any) -> None:
    """Cycles that a column of term-serial lanes takes, at least 1; ``words`` (rows, channels) uint64, ``out`` int64.

    In a cycle each lane does its lowest term if that lies less than ``reach`` places above the lowest of all lanes.
    """
    _windows, taps, chunks = out.shape
    channels = words.shape[1]
    places = np.uint64(reach)
    index, out = index[first_row:last_row], out[first_row:last_row]
    for window in range(len(out)):
        left = np.empty(lanes, dtype=np.uint64)
        for tap in range(taps):
            row = index[window, tap]
            for chunk in range(chunks):
                first = chunk * lanes
                count = min(channels - first, lanes)
                every = np.uint64(0)
                for lane in range(count):
                    left[lane] = words[row, first + lane]
                    every |= left[lane]
                cycles = 0
                while every:
                    lowest = every & (~every + _ONE)
                    near = (lowest << places) - _ONE
                    every = np.uint64(0)
                    for lane in range(count):
                        reached = left[lane] & near
                        left[lane] ^= reached & (~reached + _ONE)
                        every |= left[lane]
                    cycles += 1
                out[window, tap, chunk] = max(cycles, 1)


@_shared_rows
def most_of_windows(first_row: int, last_row: int, counts: Any, index: Any, columns: int, out: Any) -> None:
    """Largest count of each channel over ``columns`` windows at once.

    ``counts`` (rows, channels) -> ``out`` (window sets, taps, channels) of the same type.
    """
    _sets, taps, channels = out.shape
    index, out = index[first_row * columns :], out[first_row:last_row]
    windows = index.shape[0]
    for first in range(len(out)):
        for tap in range(taps):
            for channel in range(channels):
                out[first, tap, channel] = 0
            for window in range(first * columns, min(windows, (first + 1) * columns)):
                row = index[window, tap]
                for channel in range(channels):
                    out[first, tap, channel] = max(out[first, tap, channel], counts[row, channel])


@_shared_rows
def slowest_products(first_row: int, last_row: int, most: Any, weights: Any, lanes: int, out: Any) -> None:
    """The largest product of counts that any of ``lanes`` has, at least 1.

    ``most`` (window sets, taps, channels) and ``weights`` (filter steps, taps, channels) uint8, ``out`` (window sets,
    filter steps, taps, chunks) int64.
    """
    _sets, taps, channels = most.shape
    most, out = most[first_row:last_row], out[first_row:last_row]
    for first in range(len(out)):
        for filters in range(weights.shape[0]):
            for tap in range(taps):
                for chunk in range(out.shape[3]):
                    slowest = 1
                    for channel in range(chunk * lanes, min(channels, (chunk + 1) * lanes)):
                        product = np.int64(most[first, tap, channel]) * np.int64(weights[filters, tap, channel])
                        slowest = max(slowest, int(product))
                    out[first, filters, tap, chunk] = slowest


@wrapping_loop
def run_ahead(costs: Any, filter_steps: int, busy: Any, earlier: Any, clock: Any) -> None:
    """Columns with registers for the next steps: each begins when it is free, but no more than that many ahead.

    ``costs`` (window sets, steps, columns); every set is done ``filter_steps`` times. ``busy`` (columns,) is when each
    column is free, ``earlier`` (registers,) when all were through with the last steps, ``clock`` the earliest begin of
    the next step and the slot of ``earlier`` that is next; all int64, all written.
    """
    sets, steps, columns = costs.shape
    ready, slot = clock[0], clock[1]
    for first in range(sets):
        for _ in range(filter_steps):
            for step in range(steps):
                latest = np.int64(0)
                for column in range(columns):
                    busy[column] = max(ready, busy[column]) + costs[first, step, column]
                    latest = max(latest, busy[column])
                ready = earlier[slot]
                earlier[slot] = latest
                slot = (slot + 1) % earlier.shape[0]
    clock[0], clock[1] = ready, slot


@wrapping_loop
def round_robin(costs: Any, columns: int) -> int:
    """Cycles until the last word is done: one arrives per cycle, and the next column is busy with it."""
    free = np.zeros(columns, dtype=np.int64)
    now = end = np.int64(0)
    column = 0
    for step in range(costs.shape[0]):
        now = max(now, free[column])
        free[column] = now + costs[step]
        end = max(end, free[column])
        now += 1
        column = (column + 1) % columns
    return int(end)
