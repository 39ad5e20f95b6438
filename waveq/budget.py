"""Budgets: users say what the policy may cost, and dual ascent finds the price of a bit that gets there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from waveq.functional import BETA_MIN

__all__ = ["Budget", "CostTable", "parse_budget", "relative_bit_costs"]

# What each number of total bits costs in a layer, any unit: a plain weight per bit, or cost by total bits.
CostTable = Mapping[str, float | Mapping[int, float]]

REFERENCE_BITS = 8  # shares are of the cost at 8 bits in every layer
_GAIN = 0.02  # relative change of the price per step and unit of relative excess
_PRICE_RANGE = 1e3  # the price stays within this factor of where it began


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

    def price_step(self, log_price: float, total_bits: Mapping[str, float]) -> float:
        """One step of dual ascent on the logarithm of the price of a bit."""
        excess = self.value(total_bits) / self.limit - 1.0
        bound = math.log(_PRICE_RANGE)
        return min(bound, max(-bound, log_price + _GAIN * max(-5.0, min(5.0, 20.0 * excess))))

    def round(self, betas: Mapping[str, float], ceiled: Mapping[str, int], fixed: Mapping[str, int]) -> dict[str, int]:
        """Whole total bits within the limit: start from the ceilings, take back the least used bits first.

        Args:
            betas: real magnitude bits of the learned layers.
            ceiled: total bits that ceil(beta) asks for.
            fixed: total bits of layers that are not learned.
        """
        chosen = dict(ceiled)
        while self.value({**chosen, **fixed}) > self.limit * (1 + 1e-9):
            lowerable = [name for name in chosen if chosen[name] - 1 > BETA_MIN]
            if not lowerable:
                break
            used = {name: betas[name] - (chosen[name] - 2) for name in lowerable}
            chosen[min(lowerable, key=lambda name: (used[name], name))] -= 1
        return chosen


def _interpolate(costs: Mapping[int, float], bits: float) -> float:
    low = math.floor(bits)
    if low == bits or low + 1 not in costs:
        return costs[low]
    return costs[low] + (bits - low) * (costs[low + 1] - costs[low])


def parse_budget(target: Mapping[str, float], names: Sequence[str], layer_costs: CostTable | None) -> Budget:
    """Check ``target={"mean_bits": 3.85}`` or ``{"energy_pj": 0.4}`` and find the costs it speaks of.

    Raises:
        ValueError: not exactly one objective, a limit out of range, or a share without costs by bits.

    Example:
        >>> parse_budget({"mean_bits": 4.0}, ["a", "b"], None).value({"a": 3.0, "b": 4.5})
        3.75
    """
    if len(target) != 1:
        raise ValueError(f"target takes one objective, such as {{'mean_bits': 4.0}}, not {dict(target)!r}")
    ((objective, limit),) = target.items()
    if objective == "mean_bits":
        if not BETA_MIN + 1 <= limit <= 9:
            raise ValueError(f"target mean_bits must be 2 to 9 total bits, not {limit!r}")
        return Budget(objective, float(limit), {name: {b: float(b) for b in range(1, 10)} for name in names})
    if not 0 < limit <= 1:
        raise ValueError(f"target {objective} is a share of the cost at {REFERENCE_BITS} bits, 0 to 1, not {limit!r}")
    table = {name: costs for name, costs in (layer_costs or {}).items() if isinstance(costs, Mapping)}
    missing = [name for name in names if not set(range(2, REFERENCE_BITS + 1)) <= set(table.get(name, {}))]
    if missing:
        raise ValueError(
            f"target {objective} needs layer_costs with the cost of 2 to {REFERENCE_BITS} bits in every layer "
            f"(from stripes_sim.cost_table); missing for: {', '.join(missing)}"
        )
    lowest = sum(table[name][2] for name in names) / sum(table[name][REFERENCE_BITS] for name in names)
    if limit < lowest:
        raise ValueError(f"target {objective} = {limit} cannot be met: 2 bits in every layer still cost {lowest:.3f}")
    return Budget(objective, float(limit), {name: table[name] for name in names})


def relative_bit_costs(names: Sequence[str], layer_costs: CostTable | None) -> dict[str, float]:
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
    low, high = min(cost), max(cost)
    return (cost[high] - cost[low]) / (high - low) if high > low else math.nan
