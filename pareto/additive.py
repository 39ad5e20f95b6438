"""The frontier of all B^L policies of a deep network, when cost and loss both add up over layers.

Cost of a layer-by-layer accelerator adds exactly. Loss does so approximately; `pareto.losses` has the tables and the
means to measure how good that is. Under the model the frontier is exact: layers are added one at a time, and a partial
policy that another partial policy dominates can be dropped, because whatever is appended to both adds the same
(Nemhauser and Ullmann, "Discrete dynamic programming and capital allocation", Management Science 15 (1969)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pareto._check import Floats
from pareto._jit import compiled
from pareto.space import Policies
from pareto.tables import LayerTable, as_table, matched

__all__ = ["additive_frontier", "within_budget"]

_LARGEST = 20_000_000  # points of a partial frontier, some 2.5 GB of tables for 53 layers


def additive_frontier(
    cost_table: Any,
    loss_table: Any,
    epsilon: float = 0.0,
    *,
    bits: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The policies that no other policy beats in both the sum of costs and the sum of losses.

    Args:
        cost_table, loss_table: what each layer contributes at each bit width, in any form of `as_table`; both need
            the same layers and widths (in any order). Values may have either sign.
        epsilon: 0 for the exact frontier. Otherwise an error in units of loss, and the guarantee: for every policy
            of the space there is a returned one that costs no more and whose loss is higher by at most epsilon.
            (Each of the L steps keeps one of several points within epsilon / L, the cheapest.)
        bits, names: widths and layers of tables that are plain arrays.

    Returns:
        One row per point, cost rising and loss falling: a uint8 column per layer, then "cost" and "loss", which are
        `score_policies` of the returned policies. Of policies with the same cost and loss one is returned. Sums are
        float64: exact for integer tables up to 2**53, otherwise equal up to rounding.

    Raises:
        ValueError: tables that do not match (with layer and width), a negative epsilon, or a frontier beyond 20
            million points: give an epsilon then.

    >>> cost = {"conv": {2: 1, 4: 2}, "fc": {2: 10, 4: 20}}
    >>> loss = {"conv": {2: 5, 4: 0}, "fc": {2: 3, 4: 1}}
    >>> additive_frontier(cost, loss)
       conv  fc  cost  loss
    0     2   2  11.0   8.0
    1     4   2  12.0   3.0
    2     4   4  22.0   1.0
    """
    if not (isinstance(epsilon, (int, float)) and 0.0 <= epsilon < np.inf):
        raise ValueError(f"epsilon must be a finite number that is not negative, got {epsilon!r}")
    cost = as_table(cost_table, bits=bits, names=names, argument="cost_table")
    loss = matched(as_table(loss_table, bits=bits, names=names, argument="loss_table"), cost.space, "loss_table")
    layers = list(cost.space.names)
    steps = _steps(cost, loss, epsilon)
    policies = _policies(cost, steps)
    columns = {name: policies[:, number] for number, name in enumerate(layers)}
    frame = pd.DataFrame(columns).assign(cost=_sums(policies, cost), loss=_sums(policies, loss))
    frame = _strictly_better(frame)
    frame.attrs.update(layers=layers, sense={"cost": "min", "loss": "min"}, epsilon=float(epsilon))
    return frame


def within_budget(front: pd.DataFrame, budget: float) -> pd.Series[Any]:
    """The row of an additive frontier with the least loss that costs at most `budget`.

    Raises ValueError when even the cheapest costs more.

    >>> front = additive_frontier({"fc": {2: 10, 4: 20}}, {"fc": {2: 3, 4: 1}})
    >>> within_budget(front, 19.5).to_dict()
    {'fc': 2.0, 'cost': 10.0, 'loss': 3.0}
    """
    rows = int(np.searchsorted(front["cost"].to_numpy(), budget, side="right"))
    if rows == 0:
        raise ValueError(f"budget {budget:g} is below the cheapest policy, which costs {front['cost'].iloc[0]:g}")
    return front.iloc[rows - 1]


class _Step:
    """Partial frontier after one more layer: how each point came about."""

    def __init__(self, layer: str, widths: Policies, parents: npt.NDArray[np.int32], choices: Policies) -> None:
        self.layer = layer
        self.widths = widths
        self.parents = parents
        self.choices = choices


def _steps(cost: LayerTable, loss: LayerTable, epsilon: float) -> list[_Step]:
    costs, losses = np.zeros(1), np.zeros(1)
    steps: list[_Step] = []
    # Layers of little cost first: partial frontiers stay small for longer.
    for layer in sorted(cost.entries, key=lambda name: float(np.ptp(cost.entries[name]))):
        widths = np.array(cost.space.choices[layer], dtype=np.uint8)
        keep = _useful(cost.entries[layer], loss.entries[layer])
        costs, losses, parents, choices = _extend(
            costs,
            losses,
            cost.entries[layer][keep],
            loss.entries[layer][keep],
            epsilon / len(cost.entries),
            _LARGEST,
        )
        if len(costs) > _LARGEST:
            raise ValueError(
                f"the frontier of {len(steps) + 1} of {len(cost.entries)} layers has more than {_LARGEST:,} points; "
                "give an epsilon (in units of loss)"
            )
        steps.append(_Step(layer, widths[keep], parents, choices))
    return steps


def _useful(costs: Floats, losses: Floats) -> npt.NDArray[np.int64]:
    """The choices of one layer that are efficient among themselves, cost rising: no other is ever needed."""
    order = np.lexsort((losses, costs))
    lowest = np.minimum.accumulate(np.concatenate(([np.inf], losses[order][:-1])))
    return np.asarray(order[losses[order] < lowest])


def _policies(cost: LayerTable, steps: list[_Step]) -> Policies:
    """Walk back from every point of the last step."""
    columns = {name: number for number, name in enumerate(cost.space.names)}
    points: npt.NDArray[Any] = np.arange(len(steps[-1].parents))
    policies = np.empty((len(points), len(columns)), dtype=np.uint8)
    for step in reversed(steps):
        policies[:, columns[step.layer]] = step.widths[step.choices[points]]
        points = step.parents[points]
    return policies


def _sums(policies: Policies, table: LayerTable) -> Floats:
    """Sums in layer order, as `score_policies` would form them."""
    total = np.zeros(len(policies))
    dense = table.dense()
    for column in range(policies.shape[1]):
        total += dense[column, policies[:, column]]
    return total


def _strictly_better(frame: pd.DataFrame) -> pd.DataFrame:
    """Drop what rounding made equal or swapped: the sums above were added in another order than while searching."""
    frame = frame.sort_values(["cost", "loss"], kind="stable")
    losses = frame["loss"].to_numpy()
    lowest = np.minimum.accumulate(np.concatenate(([np.inf], losses[:-1])))
    return frame[losses < lowest].reset_index(drop=True)


@compiled
def _extend(
    costs: Floats, losses: Floats, more_cost: Floats, more_loss: Floats, slack: float, largest: int
) -> tuple[Floats, Floats, npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Every point with every choice of one more layer, less what is dominated or within `slack` of a cheaper one.

    The points shifted by one choice are still sorted, so this is a merge of as many sorted lists as there are choices.
    """
    points, choices = len(costs), len(more_cost)
    room = 2 * points + choices
    out_cost, out_loss = np.empty(room), np.empty(room)
    parents, picks = np.empty(room, np.int32), np.empty(room, np.uint8)
    heads = np.zeros(choices, np.int64)
    floor = losses[-1] + more_loss.min()  # the best loss of all: kept whatever the slack
    size = 0
    while True:
        pick, cost, loss = -1, np.inf, np.inf
        for choice in range(choices):
            head = heads[choice]
            if head < points:
                head_cost, head_loss = costs[head] + more_cost[choice], losses[head] + more_loss[choice]
                if head_cost < cost or (head_cost == cost and head_loss < loss) or pick < 0:
                    pick, cost, loss = choice, head_cost, head_loss
        if pick < 0 or size > largest:
            break
        heads[pick] += 1
        if size > 0 and (loss >= out_loss[size - 1] or (loss > out_loss[size - 1] - slack and loss > floor)):
            continue
        if size == room:
            room *= 2
            out_cost, out_loss = _roomier(out_cost, room), _roomier(out_loss, room)
            parents, picks = _roomier(parents, room), _roomier(picks, room)
        out_cost[size], out_loss[size], parents[size], picks[size] = cost, loss, heads[pick] - 1, pick
        size += 1
    return out_cost[:size].copy(), out_loss[:size].copy(), parents[:size].copy(), picks[:size].copy()


@compiled
def _roomier(array: npt.NDArray[Any], room: int) -> npt.NDArray[Any]:
    out = np.empty(room, array.dtype)
    for number in range(len(array)):
        out[number] = array[number]
    return out
