"""Search a whole space of policies without storing it: the best policy within a budget, or the front of two totals.

Both objectives are additive over layers: a cost of the machine, and a loss such as the accuracy that each layer's bits
take away one at a time (a sensitivity table), or a second cost. Accuracies of whole policies are not additive; a front
found here is where to measure, not a result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

if TYPE_CHECKING:
    from stripes_sim.cost import CostTable

__all__ = ["Best", "Front", "stream_best", "stream_front"]

Floats = npt.NDArray[np.float64]
Loss = str | npt.ArrayLike | Mapping[str, Mapping[int, float]]
# totals of this many suffixes are tabulated at most
_SUFFIXES = 65536
_PARTS = 64
_MOST = 2**62


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best policy within a budget. ``policy`` is None where nothing fits; ``within`` of ``size`` policies do."""

    policy: dict[str, int] | None
    loss: float
    cost: float
    within: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Front:
    """Policies that no policy of the space beats in both totals, by rising cost; ``size`` is that of the space.

    ``policies`` is (F, L) uint8 in the order of ``names``, ``cost`` and ``loss`` are (F,). ``formed`` counts the
    policies whose totals were formed; the others were ruled out in blocks.
    """

    names: tuple[str, ...]
    policies: npt.NDArray[np.uint8]
    cost: Floats
    loss: Floats
    size: int
    formed: int

    def to_frame(self) -> pd.DataFrame:
        """One row a policy: cost, loss, then the bits by layer name."""
        return pd.DataFrame(
            {"cost": self.cost, "loss": self.loss, **dict(zip(self.names, self.policies.T, strict=True))}
        )


def stream_best(table: CostTable, loss: Loss, *, budget: float, objective: str = "energy_pj") -> Best:
    """The policy of least loss among all B**L whose cost is at most ``budget``, and how many do; exact.

    Args:
        table: costs by layer and bits.
        loss: an (L, B) array, a mapping layer -> bits -> loss, or the name of another objective of the table.
        budget: largest total of ``objective``, in its unit, layers without weights included.
        objective: which cost.

    Raises:
        ValueError: shapes that do not fit, NaN, an unknown objective, or a space of more than 2**62 policies.

    >>> from stripes_sim import LayerShape, Stripes, cost_table
    >>> net = [LayerShape(name=n, kind="linear", in_channels=512, out_channels=256) for n in ("a", "b")]
    >>> table = cost_table(net, Stripes(), bits=(2, 4, 8))
    >>> best = stream_best(table, [[3, 1, 0], [9, 4, 0]], budget=20, objective="compute_cycles")
    >>> best.policy, best.loss, best.within
    ({'a': 2, 'b': 8}, 3.0, 6)
    """
    from stripes_sim import _kernels_stream as kernels

    cost, losses, fixed = _objectives(table, loss, objective)
    head, suffix_cost, suffix_loss = _suffixes(cost, losses)
    order = np.argsort(suffix_cost, kind="stable")
    least = np.minimum.accumulate(suffix_loss[order])
    parts = min(_PARTS, cost.shape[1] ** head)
    out = np.empty((parts, 3))
    limit = float(budget) - fixed
    within = int(kernels.best_within(cost[:head], losses[:head], suffix_cost[order], least, limit, out))
    size = cost.shape[1] ** cost.shape[0]
    part = int(out[:, 0].argmin())
    if out[part, 1] < 0:
        return Best(policy=None, loss=float("inf"), cost=float("inf"), within=0, size=size)
    suffix = int(order[suffix_loss[order[: int(out[part, 2])]].argmin()])
    choices = [
        *_digits(int(out[part, 1]), head, cost.shape[1]),
        *_digits(suffix, len(cost) - head, cost.shape[1]),
    ]
    rows = np.arange(len(cost))
    return Best(
        policy={name: table.bits[choice] for name, choice in zip(table.names, choices, strict=True)},
        loss=float(losses[rows, choices].sum()),
        cost=float(cost[rows, choices].sum()) + fixed,
        within=within,
        size=size,
    )


def stream_front(table: CostTable, loss: Loss, *, objective: str = "energy_pj") -> Front:
    """All policies of the B**L that no other beats in both ``objective`` and loss (one of those with equal totals).

    Args, Raises: as in `stream_best`.

    >>> from stripes_sim import LayerShape, Stripes, cost_table
    >>> net = [LayerShape(name=n, kind="linear", in_channels=512, out_channels=256) for n in ("a", "b")]
    >>> table = cost_table(net, Stripes(), bits=(2, 4, 8))
    >>> stream_front(table, [[3, 1, 0], [9, 2, 0]], objective="compute_cycles").to_frame()
       cost  loss  a  b
    0   8.0  12.0  2  2
    1  12.0   5.0  2  4
    2  16.0   3.0  4  4
    3  24.0   1.0  4  8
    4  32.0   0.0  8  8
    """
    from stripes_sim import _kernels_stream as kernels

    cost, losses, fixed = _objectives(table, loss, objective)
    choices = cost.shape[1]
    head, suffix_cost, suffix_loss = _suffixes(cost, losses)
    # a suffix that another beats is beaten behind every prefix
    kept = _front_places(suffix_cost, suffix_loss)
    parts, room = min(_PARTS, choices**head), max(4096, 4 * len(kept))
    while True:
        fronts, indices = np.empty((parts, room, 2)), np.empty((parts, room), dtype=np.int64)
        sizes = np.zeros(parts, dtype=np.int64)
        formed = int(
            kernels.front_of_prefixes(
                cost[:head], losses[:head], suffix_cost[kept], suffix_loss[kept], fronts, indices, sizes
            )
        )
        if formed >= 0:
            break
        room *= 4
    points = np.concatenate([fronts[part, : sizes[part]] for part in range(parts)])
    index = np.concatenate([indices[part, : sizes[part]] for part in range(parts)])
    efficient = _front_places(points[:, 0], points[:, 1])
    prefixes, places = np.divmod(index[efficient], len(kept))
    policies = np.array(
        [
            [*_digits(int(prefix), head, choices), *_digits(int(kept[place]), len(cost) - head, choices)]
            for prefix, place in zip(prefixes, places, strict=True)
        ]
    )
    return Front(
        names=table.names,
        policies=np.array(table.bits, dtype=np.uint8)[policies],
        cost=points[efficient, 0] + fixed,
        loss=points[efficient, 1],
        size=choices ** len(cost),
        formed=formed,
    )


def _objectives(table: CostTable, loss: Loss, objective: str) -> tuple[Floats, Floats, float]:
    for name in (objective, loss) if isinstance(loss, str) else (objective,):
        table.check_objective(name)
    shape = (len(table.names), len(table.bits))
    if isinstance(loss, str):
        losses: Floats = table.costs[loss]
    elif isinstance(loss, Mapping):
        missing = [name for name in table.names if not set(table.bits) <= set(loss.get(name, {}))]
        if missing:
            raise ValueError(f"loss has no entry for all of {table.bits} bits in layer {missing[0]!r}")
        losses = np.array([[loss[name][bits] for bits in table.bits] for name in table.names], dtype=np.float64)
    else:
        losses = np.asarray(loss, dtype=np.float64)
    if losses.shape != shape:
        raise ValueError(
            f"loss must have one row per layer and one column per bits, {shape}, but it has {losses.shape}"
        )
    if not np.isfinite(losses).all():
        row, column = np.argwhere(~np.isfinite(losses))[0]
        raise ValueError(f"loss of layer {table.names[row]!r} at {table.bits[column]} bits is {losses[row, column]}")
    if shape[1] ** shape[0] > _MOST:
        raise ValueError(f"a space of {shape[1]}**{shape[0]} policies is more than 2**62: fix layers or drop bits")
    return np.ascontiguousarray(table.costs[objective]), np.ascontiguousarray(losses), table.fixed[objective]


def _suffixes(cost: Floats, loss: Floats) -> tuple[int, Floats, Floats]:
    """Number of prefix layers, and the totals of all suffixes, last layer fastest."""
    head = len(cost)
    totals = [np.zeros(1), np.zeros(1)]
    while head and len(totals[0]) * cost.shape[1] <= max(_SUFFIXES, cost.shape[1]):
        head -= 1
        totals = [(row[:, None] + total).ravel() for row, total in ((cost[head], totals[0]), (loss[head], totals[1]))]
    return head, totals[0], totals[1]


def _front_places(cost: Floats, loss: Floats) -> npt.NDArray[np.intp]:
    """Places of the points that no other beats, by rising cost: sort, then keep what lowers the least loss so far."""
    order = np.lexsort((loss, cost))
    least = np.minimum.accumulate(loss[order])
    return np.asarray(order[np.concatenate([[True], least[1:] < least[:-1]])])


def _digits(index: int, length: int, base: int) -> Sequence[int]:
    digits = []
    for _ in range(length):
        index, digit = divmod(index, base)
        digits.append(digit)
    return digits[::-1]
