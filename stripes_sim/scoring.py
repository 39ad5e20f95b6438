"""Between the cost table and the kernels: tables of summed layers, two objectives at a time, the last rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["totals"]

Floats = npt.NDArray[np.float64]
# tables of quads take 128 KiB for eight layers; beyond this they would crowd out the second-level cache
_MOST_QUAD_WORDS = 8
_WORTH_A_THREAD = 64  # chunks; below it waking a thread costs more than it saves


def totals(
    policies: npt.NDArray[np.uint8], bits: Sequence[int], costs: Sequence[Floats], fixed: Sequence[float]
) -> Floats | None:
    """Totals of many policies in K objectives: ``fixed`` plus the sum over layers of ``costs``.

    Args:
        policies: (N, L) bits, C-contiguous.
        bits: the B numbers of bits of the columns of ``costs``, ascending.
        costs: K arrays of shape (L, B).
        fixed: K numbers.

    Returns:
        (K, N) float64, or None where a policy has bits that are not in ``bits``.

    >>> totals(np.array([[2], [8]], dtype=np.uint8), (2, 8), [np.array([[4.0, 16.0]])], [1.0])
    array([[ 5., 17.]])
    """
    out = np.empty((len(costs), len(policies)))
    if not len(policies):
        return out
    known = True
    for start in range(0, len(costs), 2):
        if start + 1 < len(costs):
            known &= _score(policies, bits, costs[start : start + 2], fixed[start : start + 2], out[start : start + 2])
        else:
            # the kernels add two objectives at once: an odd one is added beside itself
            both = np.empty((2, len(policies)))
            known &= _score(policies, bits, [costs[start]] * 2, [fixed[start]] * 2, both)
            out[start] = both[0]
    gaps = len(bits) < bits[-1] - bits[0] + 1
    return out if known and not (gaps and np.isnan(out[:1]).any()) else None


def _dense_table(costs: Sequence[Floats], bits: Sequence[int], choices: int) -> Floats:
    """Costs as (W, 8, choices, 2): layers in words of eight, bits counted from the smallest.

    Bits that the table lacks are NaN, which marks their totals. Layers that only fill the last word cost nothing.
    """
    layers = len(costs[0])
    words = -(-layers // 8)
    dense = np.zeros((8 * words, choices, 2))
    dense[:layers] = np.nan
    for objective, values in enumerate(costs):
        dense[:layers, np.array(bits) - bits[0], objective] = values
    return dense.reshape(words, 8, choices, 2)


def _neighbours(tables: Floats) -> Floats:
    """Sums of neighbouring tables, the first one's code in the low bits: (W, 2m, S, 2) -> (W, m, S * S, 2)."""
    words, members, size, objectives = tables.shape
    pairs = tables[:, 0::2, None, :, :] + tables[:, 1::2, :, None, :]
    return np.ascontiguousarray(pairs.reshape(words, members // 2, size * size, objectives))


def _score(
    policies: npt.NDArray[np.uint8], bits: Sequence[int], costs: Sequence[Floats], fixed: Sequence[float], out: Floats
) -> bool:
    """Two objectives into ``out``, (2, N); False where bits are below the first or above the last of ``bits``."""
    from stripes_sim import _jit, _kernels, _lanes  # numba takes longer to import than a run takes

    low, high = bits[0], bits[-1]
    count, layers = policies.shape
    dense = _dense_table(costs, bits, 8 if high - low < 8 else 16)
    kernel, table = _kernel_and_table(dense, layers)
    # kernels read whole words, of several policies at once: the last ones are a copy with room behind it
    reach = 8 * len(dense)
    whole = (policies.size - reach) // layers + 1 if policies.size >= reach else 0
    whole -= whole % _lanes.AT_ONCE
    rest = -(-(count - whole) // _lanes.AT_ONCE) * _lanes.AT_ONCE
    tail = np.full(rest * layers + reach, low, dtype=np.uint8)
    tail[: (count - whole) * layers] = policies[whole:].ravel()
    last = np.empty((2, rest))
    bad = 0
    for rows, flat, part in ((whole, policies.ravel(), out), (rest, tail, last)):
        chunks = -(-rows // _kernels.CHUNK)
        given = (rows, flat, layers, low, high, table, np.array(fixed), part)
        bad += sum(_jit.shared(kernel, chunks, *given, worth=_WORTH_A_THREAD))
    out[:, whole:] = last[:, : count - whole]
    return not bad


def _kernel_and_table(dense: Floats, layers: int) -> tuple[Callable[..., int], Floats]:
    """The fastest kernel on this processor for these costs, and the table that it reads."""
    from stripes_sim import _kernels, _lanes

    few = dense.shape[2] == 8
    if few and _lanes.available():
        return _lanes.score_lanes, np.ascontiguousarray(dense.reshape(-1, 8, 2)[:layers].swapaxes(1, 2))
    pairs = _neighbours(dense)
    if few and len(pairs) <= _MOST_QUAD_WORDS:
        return _kernels.score_quads, _neighbours(pairs)
    return _kernels.score_pairs, pairs
