"""Budgets: users say what the policy may cost, and dual ascent finds the price of a bit that gets there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from waveq.functional import BETA_MAX, BETA_MIN

__all__ = [
    "REFERENCE_BITS",
    "AnyBudget",
    "Budget",
    "LayerCosts",
    "has_pairs",
    "merge_costs",
    "parse_budget",
    "parse_target",
    "relative_bit_costs",
]

# What each number of total bits costs in a layer, any unit: a plain weight per bit, cost by total bits, or cost by
# total bits of the weight and then by bits of the input.
LayerCosts = Mapping[str, float | Mapping[int, float] | Mapping[int, Mapping[int, float]]]

REFERENCE_BITS = 8  # shares are of the cost at 8 bits in every layer
_LEAST_BITS, _MOST_BITS = int(BETA_MIN) + 1, int(BETA_MAX) + 1


@dataclass(frozen=True)
class AnyBudget:
    """A limit on the cost of a policy.

    Attributes:
        objective: what is limited.
        limit: in the unit of ``value``.
        counts_inputs: whether ``value`` wants the bits of inputs too.
    """

    objective: str
    limit: float

    counts_inputs: ClassVar[bool] = False

    @property
    def ready(self) -> bool:
        """Whether ``value`` can be asked for."""
        return True

    def value(self, total_bits: Mapping[str, float]) -> float:
        """The cost of real-valued total bits in the limit's unit, linear between whole bits.

        Args:
            total_bits: by operand.
        """
        raise NotImplementedError

    def most_bits(self, name: str) -> int:
        """The most total bits of an operand that there is a cost for."""
        raise NotImplementedError

    def round(self, betas: Mapping[str, float], ceiled: Mapping[str, int], fixed: Mapping[str, int]) -> dict[str, int]:
        """Whole total bits within the limit: start from the ceilings, take back the least used bits first.

        The last bit that is taken back may be a dear one and leave room for cheap ones: they go to the operands whose
        real bits lie highest above what they have, until no bit fits anywhere. Where the ceilings fit, they stay; but
        for costs of both operands, which the last steps of the search overshoot by several percent: what is left of the
        budget then goes the same way.

        Args:
            betas: total bits less one, real, of what is learned.
            ceiled: total bits that ceil(beta) asks for.
            fixed: total bits of what is not learned.
        """
        chosen = dict(ceiled)
        if self._fits({**chosen, **fixed}) and not self.counts_inputs:
            return chosen
        while not self._fits({**chosen, **fixed}):
            lowerable = [name for name in chosen if chosen[name] > _LEAST_BITS]
            if not lowerable:
                break
            used = {name: betas[name] - (chosen[name] - 2) for name in lowerable}
            chosen[min(lowerable, key=lambda name: (used[name], name))] -= 1
        while raisable := [
            name
            for name in chosen
            if chosen[name] < min(_MOST_BITS, self.most_bits(name))
            and self._fits({**chosen, **fixed, name: chosen[name] + 1})
        ]:
            chosen[max(raisable, key=lambda name: (betas[name] + 1 - chosen[name], name))] += 1
        return chosen

    def _fits(self, total_bits: Mapping[str, float]) -> bool:
        return self.value(total_bits) <= self.limit * (1 + 1e-9)

    def check_reach(self, chosen: Mapping[str, int]) -> None:
        """Refuse a limit below what the fewest bits cost.

        Args:
            chosen: total bits by operand, 0 where they are learned.

        Raises:
            ValueError: names the objective and what it is at the least.
        """
        what, rest = "layer", ""
        if self.counts_inputs:
            what, rest = "weight and input", " (inputs in floating point count as 16 bits)"
        lowest = self.value({name: bits or _LEAST_BITS for name, bits in chosen.items()})
        if self.limit < lowest - 1e-9:
            raise ValueError(
                f"target {self.objective} = {self.limit} cannot be met: with {_LEAST_BITS} bits in every "
                f"{what} that is learned it is still {lowest:.3f}{rest}"
            )


@dataclass(frozen=True)
class Budget(AnyBudget):
    """A limit on what the bits of weights cost.

    Attributes:
        objective: "mean_bits", or the name of the cost that ``table`` holds ("energy_pj", "cycles").
        limit: mean total bits, or a share of the cost at 8 bits everywhere.
        table: cost by layer and total bits; for mean_bits every bit costs the same.
    """

    table: Mapping[str, Mapping[int, float]]

    def value(self, total_bits: Mapping[str, float]) -> float:
        """Mean bits, or the share of the cost at 8 bits."""
        cost = sum(_interpolate(self.table[name], bits) for name, bits in total_bits.items())
        if self.objective == "mean_bits":
            return cost / len(total_bits)
        return cost / sum(self.table[name][REFERENCE_BITS] for name in total_bits)

    def most_bits(self, name: str) -> int:
        """The most bits in a layer's table."""
        return max(self.table[name])


def _interpolate(costs: Mapping[int, float], bits: float) -> float:
    low = math.floor(bits)
    if low == bits or low + 1 not in costs:
        return costs[low]
    return costs[low] + (bits - low) * (costs[low + 1] - costs[low])


def parse_budget(
    target: Mapping[str, float], chosen: Mapping[str, int], layer_costs: LayerCosts | None, *, most_bits: int = 8
) -> Budget:
    """Check ``target={"mean_bits": 3.85}`` or ``{"energy_pj": 0.4}`` and find the costs it speaks of.

    Args:
        target: one objective and its limit.
        chosen: total bits by layer, 0 where they are learned.
        layer_costs: cost by layer and total bits, for shares.
        most_bits: where learned bits begin.

    Raises:
        TypeError: the target is no mapping.
        ValueError: not exactly one objective, a limit out of range or out of reach, or a share without costs by bits.

    Example:
        >>> parse_budget({"mean_bits": 4.0}, {"a": 0, "b": 0}, None).value({"a": 3.0, "b": 4.5})
        3.75
    """
    objective, limit = parse_target(target)
    if objective == "mean_bits":
        if not _LEAST_BITS <= limit <= 9:
            raise ValueError(f"target mean_bits must be {_LEAST_BITS} to 9 total bits, not {limit!r}")
        table: Mapping[str, Mapping[int, float]] = {name: {b: float(b) for b in range(1, 10)} for name in chosen}
    else:
        table = _costs_by_bits(objective, chosen, layer_costs, most_bits)
    budget = Budget(objective, limit, table)
    budget.check_reach(chosen)
    return budget


def parse_target(target: Mapping[str, float]) -> tuple[str, float]:
    """The objective and its limit.

    Raises:
        TypeError: the target is no mapping.
        ValueError: not exactly one objective, or a share that is none.
    """
    if not isinstance(target, Mapping):
        raise TypeError(f"target must name an objective, such as {{'mean_bits': 4.0}}, not {target!r}")
    if len(target) != 1:
        raise ValueError(f"target takes one objective, such as {{'mean_bits': 4.0}}, not {dict(target)!r}")
    ((objective, limit),) = target.items()
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise ValueError(f"target {objective} must be a number, not {limit!r}")
    if objective != "mean_bits" and not 0 < limit <= 1:
        raise ValueError(
            f"target {objective} is a share of the cost at {REFERENCE_BITS} bits, 0 to 1, not {limit!r} "
            "(the mean over layers is called mean_bits)"
        )
    return objective, float(limit)


def _costs_by_bits(
    objective: str, chosen: Mapping[str, int], layer_costs: LayerCosts | None, most_bits: int
) -> dict[str, Mapping[int, float]]:
    table: dict[str, Any] = {name: costs for name, costs in (layer_costs or {}).items() if isinstance(costs, Mapping)}
    learned = set(range(_LEAST_BITS, max(REFERENCE_BITS, most_bits) + 1))
    for name, bits in chosen.items():
        needed = {bits, REFERENCE_BITS} if bits else learned
        missing = sorted(needed - set(table.get(name, {})))
        if missing:
            raise ValueError(
                f"target {objective} needs layer_costs with the cost by total bits of every layer (from "
                f"stripes_sim.cost_table); layer {name!r} lacks {', '.join(map(str, missing))} bits"
            )
        for count in needed:
            cost = table[name][count]
            if not (math.isfinite(cost) and cost > 0):
                raise ValueError(f"layer_costs[{name!r}][{count}] must be positive and finite, not {cost!r}")
    return {name: table[name] for name in chosen}


def merge_costs(layer_costs: LayerCosts | None, shared: Mapping[str, Sequence[str]]) -> LayerCosts | None:
    """Costs by weight: layers that share one weight share its bits, and together pay for them.

    Args:
        layer_costs: cost by layer.
        shared: names of the layers that use each weight, by the first of them.

    Example:
        >>> merge_costs({"a": 1.0, "b": 2.0, "c": 4.0}, {"a": ("a", "c"), "b": ("b",)})
        {'a': 5.0, 'b': 2.0}
    """
    if layer_costs is None:
        return None
    merged: dict[str, Any] = {}
    for first, names in shared.items():
        costs = [layer_costs[name] for name in names if name in layer_costs]
        tables = [cost for cost in costs if isinstance(cost, Mapping)]
        if len(costs) == 1 or (tables and len(tables) == len(costs)):
            merged[first] = _summed(costs)
        elif costs:
            merged[first] = sum(_per_bit(cost) for cost in costs)
    return merged


def _summed(costs: Sequence[Any]) -> Any:
    """The sum of tables of one kind, at the bits that all of them have."""
    if not isinstance(costs[0], Mapping):
        return sum(costs)
    common = set.intersection(*(set(table) for table in costs))
    return {bits: _summed([table[bits] for table in costs]) for bits in sorted(common)}


def has_pairs(cost: object) -> bool:
    """Whether a layer's cost is a table by the bits of both operands."""
    return isinstance(cost, Mapping) and any(isinstance(row, Mapping) for row in cost.values())


def relative_bit_costs(names: Sequence[str], layer_costs: LayerCosts | None) -> dict[str, float]:
    """c_i of eq. 2.2: what one bit of each layer costs, with mean 1 (all 1 without ``layer_costs``).

    Raises:
        ValueError: a layer without a cost, or one that is not positive and finite.

    Example:
        >>> relative_bit_costs(["a", "b"], {"a": 3.0, "b": {2: 10.0, 8: 16.0}})
        {'a': 1.5, 'b': 0.5}
    """
    if layer_costs is None:
        return dict.fromkeys(names, 1.0)
    missing = [name for name in names if name not in layer_costs]
    if missing:
        raise ValueError(f"layer_costs has no cost for: {', '.join(missing)}")
    costs = {name: _per_bit(layer_costs[name]) for name in names}
    for name, cost in costs.items():
        if not (math.isfinite(cost) and cost > 0):
            raise ValueError(f"layer_costs[{name!r}] must be positive and finite per bit, not {cost!r}")
    mean = sum(costs.values()) / len(costs)
    return {name: cost / mean for name, cost in costs.items()}


def _per_bit(cost: Any) -> float:
    if not isinstance(cost, Mapping):
        return float(cost)
    if len(cost) < 2:
        return math.nan
    low, high = min(cost), max(cost)
    return float(cost[high] - cost[low]) / float(high - low)
