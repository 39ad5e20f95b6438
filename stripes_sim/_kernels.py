"""Compiled loops over many policies. No checks here: `stripes_sim.cost` has made them.

Policies come as bytes, costs as tables over groups of layers: with S bit choices, g layers share one table of
``S**g`` sums, so a policy of L layers takes L/g lookups instead of L.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

__all__ = ["score"]

CHUNK = 1024


@numba.njit(cache=True, nogil=True)
def _widest(flat: Any, start: int, stop: int, low: int) -> Any:
    """Largest ``byte - low`` in wrapping bytes: more than ``high - low`` when any byte is out of range."""
    widest = np.uint8(0)
    smallest = np.uint8(low)
    for i in range(start, stop):
        widest = max(widest, np.uint8(flat[i] - smallest))
    return np.int64(widest)


@numba.njit(cache=True, nogil=True)
def _sum_row(flat: Any, at: Any, size: Any, span: Any, low: Any, table: Any, rest: Any) -> tuple[float, float]:
    # unsigned indices: signed ones would be tested for "counts from the end" at each access
    one, two = np.uint64(1), np.uint64(2)
    entries, groups = np.uint64(table.shape[1]), np.uint64(table.shape[0])
    sums = table.reshape(-1)
    first = second = 0.0
    base = np.uint64(0)
    if size == np.uint64(3):
        shift = low * (span * span + span + one)
        for _ in range(groups):
            a, b, c = np.uint64(flat[at]), np.uint64(flat[at + one]), np.uint64(flat[at + two])
            code = (base + (a * span + b) * span + c - shift) * two
            first += sums[code]
            second += sums[code + one]
            at += np.uint64(3)
            base += entries
    elif size == two:
        shift = low * (span + one)
        for _ in range(groups):
            a, b = np.uint64(flat[at]), np.uint64(flat[at + one])
            code = (base + a * span + b - shift) * two
            first += sums[code]
            second += sums[code + one]
            at += two
            base += entries
    else:
        for _ in range(groups):
            code = (base + np.uint64(flat[at]) - low) * two
            first += sums[code]
            second += sums[code + one]
            at += one
            base += entries
    for layer in range(rest.shape[0]):
        code = np.uint64(flat[at]) - low
        first += rest[layer, code, 0]
        second += rest[layer, code, 1]
        at += one
    return first, second


@numba.njit(cache=True, nogil=True, parallel=True)
def score(flat: Any, layers: int, size: int, low: int, high: int, table: Any, rest: Any, fixed: Any, out: Any) -> int:
    """Two totals for each policy: ``fixed`` plus the sum of its groups' and remaining layers' costs.

    Args:
        flat: (N * layers,) uint8, policy after policy.
        layers: L.
        size: layers per group, 1 to 3.
        low, high: smallest and largest bits of the tables, S = high - low + 1 choices.
        table: (L // size, S**size, 2) float64.
        rest: (L % size, S, 2) float64, the layers after the last whole group.
        fixed: (2,) float64.
        out: (2, N) float64, written.

    Returns:
        The number of chunks with bits outside low..high; their rows are not written.
    """
    n = flat.shape[0] // layers
    bad = 0
    for chunk in numba.prange((n + CHUNK - 1) // CHUNK):
        start, stop = chunk * CHUNK, min(n, (chunk + 1) * CHUNK)
        if _widest(flat, start * layers, stop * layers, low) > high - low:
            bad += 1
        else:
            at = np.uint64(start * layers)
            for row in range(start, stop):
                first, second = _sum_row(
                    flat, at, np.uint64(size), np.uint64(high - low + 1), np.uint64(low), table, rest
                )
                out[0, row] = fixed[0] + first
                out[1, row] = fixed[1] + second
                at += np.uint64(layers)
    return bad
