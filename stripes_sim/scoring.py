"""Between the cost table and the kernels: tables of summed layers, two objectives at a time, the last rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from stripes_sim.cost import CostTable

__all__ = ["totals"]

Floats = npt.NDArray[np.float64]
# tables of quads take 128 KiB for eight layers; beyond this they would crowd out the second-level cache
_MOST_QUAD_WORDS = 8


def dense_table(table: CostTable, objectives: tuple[str, str], choices: int) -> Floats:
    """Costs as (W, 8, choices, 2): layers in words of eight, bits counted from the smallest.

    Bits that the table lacks are NaN, which marks their totals. Layers that only fill the last word cost nothing.
    """
    layers = len(table.names)
    words = -(-layers // 8)
    dense = np.zeros((8 * words, choices, 2))
    dense[:layers] = np.nan
    for k, key in enumerate(objectives):
        dense[:layers, np.array(table.bits) - table.bits[0], k] = table.costs[key]
    return dense.reshape(words, 8, choices, 2)


def neighbours(tables: Floats) -> Floats:
    """Sums of neighbouring tables, the first one's code in the low bits: (W, 2m, S, 2) -> (W, m, S * S, 2)."""
    words, members, size, objectives = tables.shape
    pairs = tables[:, 0::2, None, :, :] + tables[:, 1::2, :, None, :]
    return np.ascontiguousarray(pairs.reshape(words, members // 2, size * size, objectives))


def totals(table: CostTable, policies: npt.NDArray[np.uint8], objectives: tuple[str, ...]) -> Floats:
    """(K, N) totals of uint8 policies; raises through ``table.refuse`` where bits are not in the table."""
    out = np.empty((len(objectives), len(policies)))
    if not len(policies):
        return out
    for start in range(0, len(objectives), 2):
        pair = objectives[start : start + 2]
        if len(pair) == 2:
            _score(table, policies, (pair[0], pair[1]), out[start : start + 2])
        else:
            # the kernels add two objectives at once: an odd one is added beside itself
            both = np.empty((2, len(policies)))
            _score(table, policies, (pair[0], pair[0]), both)
            out[start] = both[0]
    if len(table.bits) < table.bits[-1] - table.bits[0] + 1 and np.isnan(out).any():
        table.refuse(policies)
    return out


def _score(table: CostTable, policies: npt.NDArray[np.uint8], objectives: tuple[str, str], out: Floats) -> None:
    from stripes_sim import _kernels

    low, high = table.bits[0], table.bits[-1]
    layers = policies.shape[1]
    fixed = np.array([table.fixed[key] for key in objectives])
    code_bits = 3 if high - low < 8 else 4
    pairs = neighbours(dense_table(table, objectives, 1 << code_bits))
    quads = neighbours(pairs) if code_bits == 3 and len(pairs) <= _MOST_QUAD_WORDS else None
    # kernels read whole words: the last policies are scored from a copy with room behind it
    reach = 8 * len(pairs)
    whole = max(0, (policies.size - reach) // layers + 1) if policies.size >= reach else 0
    tail = np.full(len(policies[whole:]) * layers + reach, low, dtype=np.uint8)
    tail[:-reach] = policies[whole:].ravel()
    for flat, part in ((policies.ravel(), out[:, :whole]), (tail, out[:, whole:])):
        if quads is not None:
            bad = _kernels.score_quads(flat, layers, low, high, quads, fixed, part)
        else:
            bad = _kernels.score_pairs(flat, layers, low, high, code_bits, pairs, fixed, part)
        if bad:
            table.refuse(policies)
