"""A bit-allocation problem: what each number of bits costs and loses in each layer, and how much may be spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from waveq._names import nearest

__all__ = [
    "TOLERANCE",
    "PlainTable",
    "Problem",
    "Table",
    "as_table",
    "make_problem",
    "mean_bits_costs",
    "policy_cost",
    "tabulate",
]

# {layer: {total bits: value}}: the form of waveq's layer_costs, for losses too
PlainTable = Mapping[str, Mapping[int, float]]
# that, or a frame of layers (index) by total bits (columns): what waveq.allocate.losstables gives
Table = PlainTable | pd.DataFrame
Floats = npt.NDArray[np.float64]

TOLERANCE = 1e-6  # share of the budget that sums of floats, and the solver, may lie over it


@dataclass(frozen=True)
class Problem:
    """A checked problem. Layers may have different bits to choose from.

    Attributes:
        names: the L layers.
        bits: for each layer its choices of total bits, ascending.
        loss: for each layer the loss at each choice, float64.
        cost: for each layer the cost at each choice, float64, never falling with the bits.
        budget: the most that the costs may add up to.
    """

    names: tuple[str, ...]
    bits: tuple[tuple[int, ...], ...]
    loss: tuple[Floats, ...]
    cost: tuple[Floats, ...]
    budget: float

    def fits(self, cost: float) -> bool:
        """Whether a total cost is within the budget."""
        return cost <= self.budget * (1 + TOLERANCE)

    def total_cost(self, chosen: Sequence[int]) -> float:
        """Cost of one choice (an index into its bits) for each layer."""
        return math.fsum(cost[index] for cost, index in zip(self.cost, chosen, strict=True))

    def as_policy(self, chosen: Sequence[int]) -> dict[str, int]:
        """Total bits by layer."""
        return {name: bits[index] for name, bits, index in zip(self.names, self.bits, chosen, strict=True)}


def make_problem(losses: Table, costs: Table, budget: float) -> Problem:
    """Check the tables against each other.

    Raises:
        ValueError: layers or bits that the tables do not share, values that are not finite, a cost that is negative or
            falls with the bits, or a budget that is not finite or that the fewest bits everywhere already exceed.

    Example:
        >>> make_problem({"a": {2: 1.0, 4: 0.0}}, {"a": {2: 5.0, 4: 9.0}}, 7.0).bits
        ((2, 4),)
    """
    losses, costs = as_table(losses), as_table(costs)
    if not costs:
        raise ValueError("costs names no layer")
    for name in losses:
        if name not in costs:
            raise ValueError(f"losses names {name!r}, which costs does not{nearest(name, costs)}")
    names = tuple(costs)
    bits, loss, cost = [], [], []
    for name in names:
        if name not in losses:
            raise ValueError(f"costs names {name!r}, which losses does not{nearest(name, losses)}")
        choices = tuple(sorted(costs[name]))
        if not choices or set(choices) != set(losses[name]):
            raise ValueError(
                f"layer {name!r} has losses for {_span(losses[name])} and costs for {_span(choices)} bits; "
                "they must agree"
            )
        bits.append(choices)
        loss.append(_values("losses", name, losses[name], choices))
        cost.append(_values("costs", name, costs[name], choices))
        if cost[-1][0] < 0 or bool((np.diff(cost[-1]) < 0).any()):
            raise ValueError(f"costs[{name!r}] is negative or falls as bits rise: {dict(costs[name])!r}")
    if not math.isfinite(budget):
        raise ValueError(f"budget must be a finite number in the unit of the costs, not {budget!r}")
    least = math.fsum(values[0] for values in cost)
    if not least <= budget * (1 + TOLERANCE):
        raise ValueError(f"budget {budget!r} cannot be met: the fewest bits in every layer cost {least:g}")
    return Problem(names, tuple(bits), tuple(loss), tuple(cost), float(budget))


def _span(choices: Mapping[int, float] | Sequence[int]) -> str:
    return ", ".join(map(str, sorted(choices))) or "no"


def _values(what: str, name: str, row: Mapping[int, float], choices: Sequence[int]) -> Floats:
    values = np.array([row[b] for b in choices], dtype=np.float64)
    if not bool(np.isfinite(values).all()):
        raise ValueError(f"{what}[{name!r}] holds a value that is not finite: {dict(row)!r}")
    return values


def as_table(table: Table) -> PlainTable:
    """A mapping as it is, a frame row by row; a missing value of a frame is a choice that its layer does not have.

    Example:
        >>> as_table(pd.DataFrame([[1.0, 2.0], [3.0, None]], index=["a", "b"], columns=[2, 4]))
        {'a': {2: 1.0, 4: 2.0}, 'b': {2: 3.0}}
    """
    if not isinstance(table, pd.DataFrame):
        return table
    return {str(name): {int(b): float(v) for b, v in row.dropna().items()} for name, row in table.iterrows()}  # type: ignore[call-overload]


def tabulate(names: Sequence[str], bits: Sequence[int], values: npt.ArrayLike) -> dict[str, dict[int, float]]:
    """An (L, B) array as a table; ``stripes_sim.cost_table`` gives names, bits and such arrays.

    Raises:
        ValueError: a shape that is not (len(names), len(bits)).

    Example:
        >>> tabulate(["a", "b"], [2, 4], [[1, 2], [3, 6]])
        {'a': {2: 1.0, 4: 2.0}, 'b': {2: 3.0, 4: 6.0}}
    """
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (len(names), len(bits)):
        raise ValueError(f"values must have shape {(len(names), len(bits))} (layers, bits), not {array.shape}")
    return {
        name: {int(b): float(v) for b, v in zip(bits, row, strict=True)} for name, row in zip(names, array, strict=True)
    }


def mean_bits_costs(names: Sequence[str], bits: Sequence[int] = range(2, 9)) -> dict[str, dict[int, float]]:
    """The table whose total is the policy's mean number of bits, each layer counting once.

    Example:
        >>> policy_cost(mean_bits_costs(["a", "b"]), {"a": 3, "b": 4})
        3.5
    """
    return {name: {int(b): b / len(names) for b in bits} for name in names}


def policy_cost(costs: Table, policy: Mapping[str, int]) -> float:
    """What a policy costs.

    Raises:
        ValueError: a layer or a number of bits that the table does not have.

    Example:
        >>> policy_cost({"a": {2: 5.0, 4: 9.0}}, {"a": 4})
        9.0
    """
    costs = as_table(costs)
    for name, bits in policy.items():
        if name not in costs:
            raise ValueError(f"the policy names {name!r}, which costs does not{nearest(name, costs)}")
        if bits not in costs[name]:
            raise ValueError(f"costs[{name!r}] has {_span(costs[name])} bits, not {bits!r}")
    return math.fsum(costs[name][bits] for name, bits in policy.items())
