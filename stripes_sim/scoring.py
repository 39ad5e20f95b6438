"""Between the cost table and the kernels: groups of layers, threads, and the search for a wrong entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from stripes_sim.cost import CostTable

__all__ = ["group_tables", "totals"]

Floats = npt.NDArray[np.float64]
# sums of a group of layers share a table; beyond this many entries it would fall out of the first-level cache
_MOST_ENTRIES = 512


def group_tables(table: CostTable, objectives: tuple[str, ...]) -> tuple[Floats, int, int]:
    """Tables over groups of layers, (groups, S**g, K), the group size g, and the smallest bits.

    Bits are made contiguous (S of them, from smallest to largest): those in between that the table lacks are NaN.
    Layers that do not fill a group are left to the caller as a remainder of groups of one.
    """
    low, high = table.bits[0], table.bits[-1]
    span = high - low + 1
    dense = np.full((len(table.names), span, len(objectives)), np.nan)
    for k, key in enumerate(objectives):
        dense[:, np.array(table.bits) - low, k] = table.costs[key]
    size = max((g for g in (1, 2, 3) if span**g <= _MOST_ENTRIES), default=1)
    size = min(size, len(table.names))
    groups = len(table.names) // size
    sums = dense[: groups * size].reshape(groups, size, span, len(objectives))
    total = sums[:, 0]
    for member in range(1, size):
        total = (total[:, :, None, :] + sums[:, member, None, :, :]).reshape(groups, -1, len(objectives))
    return np.ascontiguousarray(total), size, low


def totals(table: CostTable, policies: npt.NDArray[np.uint8], objectives: tuple[str, ...]) -> Floats:
    """(K, N) totals of checked policies; raises through ``table.refuse`` where bits are not in the table."""
    from stripes_sim import _kernels

    low, high = table.bits[0], table.bits[-1]
    out = np.empty((len(objectives), len(policies)))
    if not len(policies):
        return out
    for start in range(0, len(objectives), 2):
        # the kernels add two objectives at once; an odd one is added with itself
        pair = objectives[start : start + 2]
        pair = (*pair, pair[-1])[:2]
        grouped, size, _ = group_tables(table, pair)
        rest = _rest(table, pair, size)
        sums = np.empty((2, len(policies)))
        fixed = np.array([table.fixed[key] for key in pair])
        if _kernels.score(policies.ravel(), policies.shape[1], size, low, high, grouped, rest, fixed, sums):
            table.refuse(policies)
        out[start : start + 2] = sums[: len(objectives) - start]
    if len(table.bits) < high - low + 1 and np.isnan(out).any():
        table.refuse(policies)
    return out


def _rest(table: CostTable, objectives: tuple[str, ...], size: int) -> Floats:
    """The dense (rest, S, K) table of the last layers that fill no group."""
    low, high = table.bits[0], table.bits[-1]
    first = len(table.names) // size * size
    dense = np.full((len(table.names) - first, high - low + 1, len(objectives)), np.nan)
    for k, key in enumerate(objectives):
        dense[:, np.array(table.bits) - low, k] = table.costs[key][first:]
    return dense
