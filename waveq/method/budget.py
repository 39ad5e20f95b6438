"""Budgets: users say what the policy may cost, and dual ascent finds the price of a bit that gets there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from waveq.functional import BETA_MAX, BETA_MIN

__all__ = ["Budget", "LayerCosts", "merge_costs", "parse_budget", "relative_bit_costs"]

# What each number of total bits costs in a layer, any unit: a plain weight per bit, or cost by total bits.
LayerCosts = Mapping[str, float | Mapping[int, float]]

REFERENCE_BITS = 8  # shares are of the cost at 8 bits in every layer
_LEAST_BITS, _MOST_BITS = int(BETA_MIN) + 1, int(BETA_MAX) + 1


@dataclass(frozen=True)
class Budget:
    """A limit on the cost of a policy.

    Attributes:
        objective: "mean_bits", or the name of the cost that ``table`` holds ("energy_pj", "cycles").
        limit: mean total bits, or a share of the cost at 8 bits everywhere.
        table: cost by layer and total bits; for mean_bits every bit costs the same.
    """

    objective: str
    limit: float
    table: Mapping[str, Mapping[int, float]]

    def value(self, total_bits: Mapping[str, float]) -> float:
        """The cost of real-valued total bits in the limit's unit, linear between whole bits."""
        cost = sum(_interpolate(self.table[name], bits) for name, bits in total_bits.items())
        if self.objective == "mean_bits":
            return cost / len(total_bits)
        return cost / sum(self.table[name][REFERENCE_BITS] for name in total_bits)

    def round(self, betas: Mapping[str, float], ceiled: Mapping[str, int], fixed: Mapping[str, int]) -> dict[str, int]:
        """Whole total bits within the limit: start from the ceilings, take back the least used bits first.

        The last bit that is taken back may be a dear one and leave room for cheap ones: they go to the layers whose
        real bits lie highest above what they have, until no bit fits anywhere. Where the ceilings fit, they stay.

        Args:
            betas: real magnitude bits of the learned layers.
            ceiled: total bits that ceil(beta) asks for.
            fixed: total bits of layers that are not learned.
        """
        chosen = dict(ceiled)
        if self._fits({**chosen, **fixed}):
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
            if chosen[name] < min(_MOST_BITS, max(self.table[name]))
            and self._fits({**chosen, **fixed, name: chosen[name] + 1})
        ]:
            chosen[max(raisable, key=lambda name: (betas[name] + 1 - chosen[name], name))] += 1
        return chosen

    def _fits(self, total_bits: Mapping[str, float]) -> bool:
        return self.value(total_bits) <= self.limit * (1 + 1e-9)


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
    if not isinstance(target, Mapping):
        raise TypeError(f"target must name an objective, such as {{'mean_bits': 4.0}}, not {target!r}")
    if len(target) != 1:
        raise ValueError(f"target takes one objective, such as {{'mean_bits': 4.0}}, not {dict(target)!r}")
    ((objective, limit),) = target.items()
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise ValueError(f"target {objective} must be a number, not {limit!r}")
    if objective == "mean_bits":
        if not _LEAST_BITS <= limit <= 9:
            raise ValueError(f"target mean_bits must be {_LEAST_BITS} to 9 total bits, not {limit!r}")
        table: Mapping[str, Mapping[int, float]] = {name: {b: float(b) for b in range(1, 10)} for name in chosen}
    else:
        if not 0 < limit <= 1:
            raise ValueError(
                f"target {objective} is a share of the cost at {REFERENCE_BITS} bits, 0 to 1, not {limit!r} "
                "(the mean over layers is called mean_bits)"
            )
        table = _costs_by_bits(objective, chosen, layer_costs, most_bits)
    budget = Budget(objective, float(limit), table)
    lowest = budget.value({name: bits or _LEAST_BITS for name, bits in chosen.items()})
    if limit < lowest - 1e-9:
        raise ValueError(
            f"target {objective} = {limit} cannot be met: with {_LEAST_BITS} bits in every layer that is learned it is "
            f"still {lowest:.3f}"
        )
    return budget


def _costs_by_bits(
    objective: str, chosen: Mapping[str, int], layer_costs: LayerCosts | None, most_bits: int
) -> dict[str, Mapping[int, float]]:
    table = {name: costs for name, costs in (layer_costs or {}).items() if isinstance(costs, Mapping)}
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
    merged: dict[str, float | Mapping[int, float]] = {}
    for first, names in shared.items():
        costs = [layer_costs[name] for name in names if name in layer_costs]
        tables = [cost for cost in costs if isinstance(cost, Mapping)]
        if tables and len(tables) == len(costs):
            common = set.intersection(*(set(table) for table in tables))
            merged[first] = {bits: sum(table[bits] for table in tables) for bits in sorted(common)}
        elif costs:
            merged[first] = sum(_per_bit(cost) for cost in costs)
    return merged


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


def _per_bit(cost: float | Mapping[int, float]) -> float:
    if not isinstance(cost, Mapping):
        return float(cost)
    if len(cost) < 2:
        return math.nan
    low, high = min(cost), max(cost)
    return (cost[high] - cost[low]) / (high - low)
