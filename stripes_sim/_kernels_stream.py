"""Compiled walks over every policy of a space, none of them stored.

The space is cut into prefixes (the first layers) and suffixes (the rest), whose totals stand in two short arrays.
``tables`` are (L, B); a policy's index counts its choices in base B, last layer fastest.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

__all__ = ["best_within", "front_of_prefixes"]


@numba.njit(cache=True, nogil=True)
def _prefix_total(table: Any, index: int) -> Any:
    total = 0.0
    for layer in range(table.shape[0] - 1, -1, -1):
        total += table[layer, index % table.shape[1]]
        index //= table.shape[1]
    return total


@numba.njit(cache=True, nogil=True, parallel=True)
def best_within(cost: Any, loss: Any, suffix_cost: Any, least_loss: Any, budget: float, out: Any) -> Any:
    """Count the policies within the budget and note, per part of the space, the best one.

    Behind one prefix the suffixes that still fit are a leading piece of the sorted ones, so that a search in
    log2(S) steps counts them all and finds their least loss.

    Args:
        cost, loss: (P, B) tables of the prefix layers (P may be 0).
        suffix_cost: (S,) totals of all suffixes, ascending.
        least_loss: (S,) least loss of the suffixes up to and including each.
        budget: largest cost allowed.
        out: (parts, 3) float64, written: least loss of the part, index of its prefix (-1 if none), suffixes that fit.

    Returns:
        How many policies of the space cost at most ``budget``.
    """
    prefixes, parts = cost.shape[1] ** cost.shape[0], out.shape[0]
    counts = np.zeros(parts, dtype=np.int64)
    for part in numba.prange(parts):
        best, where, fitting, within = np.inf, -1, 0, 0
        for prefix in range(part * prefixes // parts, (part + 1) * prefixes // parts):
            left = budget - _prefix_total(cost, prefix)
            low, high = 0, suffix_cost.shape[0]
            while low < high:
                middle = (low + high) // 2
                if suffix_cost[middle] <= left:
                    low = middle + 1
                else:
                    high = middle
            within += low
            if low:
                total = _prefix_total(loss, prefix) + least_loss[low - 1]
                if total < best:
                    best, where, fitting = total, prefix, low
        counts[part] = within
        out[part, 0], out[part, 1], out[part, 2] = best, where, fitting
    return counts.sum()


@numba.njit(cache=True, nogil=True)
def _insert(front: Any, index: Any, size: int, cost: float, loss: float, policy: int) -> Any:
    """Put a point into a front sorted by cost unless a point there is as good; drop what it beats."""
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        if front[middle, 0] <= cost:
            low = middle + 1
        else:
            high = middle
    if low > 0 and front[low - 1, 1] <= loss:
        return size
    # equal cost and more loss stands just before: it is beaten too
    start = low - 1 if low > 0 and front[low - 1, 0] == cost else low
    stop = low
    while stop < size and front[stop, 1] >= loss:
        stop += 1
    moved = size - stop
    if start + 1 < stop:
        for i in range(moved):
            front[start + 1 + i] = front[stop + i]
            index[start + 1 + i] = index[stop + i]
    elif start + 1 > stop:
        for i in range(moved - 1, -1, -1):
            front[start + 1 + i] = front[stop + i]
            index[start + 1 + i] = index[stop + i]
    front[start, 0], front[start, 1], index[start] = cost, loss, policy
    return start + 1 + moved


@numba.njit(cache=True, nogil=True, parallel=True)
def front_of_prefixes(
    cost: Any, loss: Any, suffix_cost: Any, suffix_loss: Any, fronts: Any, indices: Any, sizes: Any
) -> Any:
    """The running front of each part of the space.

    Args:
        cost, loss: (P, B) tables of the prefix layers.
        suffix_cost, suffix_loss: (S,) totals of the suffixes that no other suffix beats, by rising cost.
        fronts: (parts, room, 2) float64, written: cost and loss, by rising cost.
        indices: (parts, room) int64, written: prefix index * S + place in the suffix arrays.
        sizes: (parts,) int64, written.

    Returns:
        How many points were formed and compared (the rest was ruled out by their block's best corner); negative if a
        front outgrew its room.
    """
    prefixes, parts, suffixes = cost.shape[1] ** cost.shape[0], fronts.shape[0], suffix_cost.shape[0]
    formed = np.zeros(parts, dtype=np.int64)
    full = np.zeros(parts, dtype=np.int64)
    least_cost, least_loss = suffix_cost[0], suffix_loss[suffixes - 1]
    for part in numba.prange(parts):
        front, index, size = fronts[part], indices[part], 0
        for prefix in range(part * prefixes // parts, (part + 1) * prefixes // parts):
            base_cost, base_loss = _prefix_total(cost, prefix), _prefix_total(loss, prefix)
            low, high = 0, size
            while low < high:
                middle = (low + high) // 2
                if front[middle, 0] <= base_cost + least_cost:
                    low = middle + 1
                else:
                    high = middle
            if low > 0 and front[low - 1, 1] <= base_loss + least_loss:
                continue
            if size + suffixes > front.shape[0]:
                full[part] = 1
                break
            formed[part] += suffixes
            for s in range(suffixes):
                size = _insert(
                    front, index, size, base_cost + suffix_cost[s], base_loss + suffix_loss[s], prefix * suffixes + s
                )
        sizes[part] = size
    return -1 if full.any() else formed.sum()
