"""What each layer may have, and what it costs: weight bits alone, or weight and input bits together.

Costs are multiplications x weight bits ("macs"), times input bits as well ("bitops"), or what the machine says of
weights that it reads bit by bit: energy or cycles of one image on Stripes.

A choice is a pair (weight bits, input bits); input bits of ``FLOAT_INPUTS`` leave the layer's inputs in floating point.
Tables are by layer and the choice's place in the order of rising cost, which is the form that ``waveq.allocate`` takes:
there a "number of bits" is only a name for a choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stripes_sim import LayerShape, Stripes, cost_table
from waveq.allocate import greedy_sensitivity, ilp, random_at_cost

__all__ = [
    "BITS",
    "FLOAT_INPUTS",
    "IMAGE_BITS",
    "MACHINE",
    "OBJECTIVES",
    "REFERENCE_BITS",
    "Choices",
    "Pair",
    "Policy",
    "choices_of",
]

BITS = tuple(range(2, 9))
REFERENCE_BITS = 3
"""Costs and limits are shares of what these bits everywhere cost."""
FLOAT_INPUTS = 0
IMAGE_BITS = 8
"""Of the first layer's inputs, which are pixels; they are left as they are and priced as what they are."""
MACHINE = ("energy_pj", "cycles")
OBJECTIVES = ("macs", "bitops", *MACHINE)
_TABLE = range(1, 10)  # weight bits that a price is asked for, while they are learned

Pair = tuple[int, int]
Policy = tuple[dict[str, int], dict[str, int]]
"""Weight bits of every layer, and input bits of those whose inputs are quantised."""
Table = dict[str, dict[int, float]]


@dataclass(frozen=True)
class Choices:
    """The choices of every layer, by rising cost.

    Attributes:
        pairs: by layer.
        by_weight: what a layer costs by weight bits, 1 to 9; with "bitops" for each bit of its inputs.
        objective: one of ``OBJECTIVES``.
    """

    pairs: Mapping[str, tuple[Pair, ...]]
    by_weight: Mapping[str, Mapping[int, float]]
    objective: str

    def cost_of(self, name: str, weight_bits: Any, input_bits: Any) -> Any:
        """What one layer costs, on straight lines between whole bits; numbers, or tensors with a gradient."""
        table, low = self.by_weight[name], min(int(weight_bits), _TABLE[-2])
        cost = table[low] + (weight_bits - low) * (table[low + 1] - table[low])
        if self.objective != "bitops":
            return cost
        return cost * (float(IMAGE_BITS) if isinstance(input_bits, int) and input_bits == FLOAT_INPUTS else input_bits)

    def costs(self) -> Table:
        """By layer and place, as shares of the cost of ``REFERENCE_BITS`` everywhere."""
        full = self.reference()
        return {
            name: {place: self.cost_of(name, *pair) / full for place, pair in enumerate(pairs)}
            for name, pairs in self.pairs.items()
        }

    def total(self, policy: Policy) -> float:
        """What a policy costs, in multiplications x bits."""
        bits, inputs = policy
        return math.fsum(self.cost_of(name, bits[name], inputs.get(name, FLOAT_INPUTS)) for name in self.pairs)

    def reference(self) -> float:
        """The cost of ``REFERENCE_BITS`` everywhere."""
        return self.total(self.uniform(REFERENCE_BITS, REFERENCE_BITS))

    def share(self, policy: Policy) -> float:
        """What a policy costs, as a share of ``REFERENCE_BITS`` everywhere."""
        return self.total(policy) / self.reference()

    def policy(self, places: Mapping[str, int]) -> Policy:
        """Places as bits."""
        pairs = {name: self.pairs[name][place] for name, place in places.items()}
        return (
            {name: weight for name, (weight, _) in pairs.items()},
            {name: inputs for name, (_, inputs) in pairs.items() if inputs != FLOAT_INPUTS},
        )

    def quantised(self) -> dict[str, bool]:
        """By layer, whether its inputs are quantised."""
        return {name: pairs[-1][1] != FLOAT_INPUTS for name, pairs in self.pairs.items()}

    def uniform(self, weight_bits: int, input_bits: int) -> Policy:
        """The same bits in all weights, and in all inputs that are quantised."""
        inputs = {name: input_bits for name, quantised in self.quantised().items() if quantised}
        return dict.fromkeys(self.pairs, weight_bits), inputs

    def random(self, limit: float, seed: int) -> Policy:
        """A random policy that uses the limit up; each seed is another one."""
        costs = self.costs()
        return self.policy(random_at_cost(costs, costs, limit, seed=seed))

    def greedy(self, weights: Table, inputs: Table, limit: float) -> Policy:
        """Step by step down along each layer's choices that no cheaper one beats."""
        losses, costs = self._losses(weights, inputs), self.costs()
        kept = {name: _unbeaten(costs[name], losses[name]) for name in costs}
        chosen = greedy_sensitivity(
            {name: {p: losses[name][p] for p in places} for name, places in kept.items()},
            {name: {p: costs[name][p] for p in places} for name, places in kept.items()},
            limit,
        )
        return self.policy(chosen)

    def ilp(self, weights: Table, inputs: Table, limit: float) -> Policy:
        """The least sum of losses within the limit."""
        return self.policy(ilp(self._losses(weights, inputs), self.costs(), limit))

    def _losses(self, weights: Table, inputs: Table) -> Table:
        """A pair loses what its weights and its inputs lose one by one."""
        return {
            name: {
                place: weights[name][w] + (inputs[name][a] if a != FLOAT_INPUTS else 0.0)
                for place, (w, a) in enumerate(pairs)
            }
            for name, pairs in self.pairs.items()
        }

    def whole(self, weights: Mapping[str, float], inputs: Mapping[str, float], limit: float) -> Policy:
        """Real bits as whole ones within the limit: all rounded down, then up where most is missing, while it fits."""
        real = {("w", name): bits for name, bits in weights.items()} | {("a", name): b for name, b in inputs.items()}
        chosen = {slot: min(max(math.floor(bits), BITS[0]), BITS[-1]) for slot, bits in real.items()}
        while (over := self.share(_split(chosen))) > limit * (1 + 1e-9):
            lowerable = [slot for slot in chosen if chosen[slot] > BITS[0]]
            if not lowerable:
                raise ValueError(f"limit {limit:g}: {BITS[0]} bits everywhere already cost {over:.4f}")
            chosen[min(lowerable, key=lambda slot: (real[slot] - chosen[slot], slot))] -= 1
        while raisable := [
            s for s in chosen if chosen[s] < BITS[-1] and self._fits({**chosen, s: chosen[s] + 1}, limit)
        ]:
            chosen[max(raisable, key=lambda slot: (real[slot] - chosen[slot], slot))] += 1
        return _split(chosen)

    def _fits(self, chosen: Mapping[tuple[str, str], int], limit: float) -> bool:
        return self.share(_split(chosen)) <= limit * (1 + 1e-9)

    def even(self, limit: float) -> float:
        """The real bits that would cost the limit if every operand had them."""
        low, high = float(BITS[0]), float(BITS[-1])
        for _ in range(50):
            middle = (low + high) / 2
            cost = math.fsum(
                self.cost_of(name, middle, middle if quantised else FLOAT_INPUTS)
                for name, quantised in self.quantised().items()
            )
            low, high = (middle, high) if cost < limit * self.reference() else (low, middle)
        return low


def choices_of(layers: Sequence[LayerShape], objective: str) -> Choices:
    """The choices of a network's layers in the order in which images meet them.

    Args:
        layers: of ``stripes_sim.trace``; the first one's inputs are images and stay in floating point.
        objective: one of ``OBJECTIVES``.

    Example:
        >>> from stripes_sim import LayerShape
        >>> two = [LayerShape(name=n, kind="linear", in_channels=4, out_channels=2) for n in "ab"]
        >>> both = choices_of(two, "bitops")
        >>> round(both.share(both.uniform(2, 2)), 3), len(both.pairs["a"]), len(both.pairs["b"])
        (0.606, 7, 49)
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective {objective!r} (known: {', '.join(OBJECTIVES)})")
    if objective in MACHINE:
        by_weight = cost_table(list(layers), Stripes(), bits=_TABLE).by_layer(objective)
    else:
        by_weight = {layer.name: {bits: float(layer.macs * bits) for bits in _TABLE} for layer in layers}
    pairs: dict[str, tuple[Pair, ...]] = {}
    for number, name in enumerate(by_weight):
        inputs = BITS if objective == "bitops" and number > 0 else (FLOAT_INPUTS,)
        every = [(weight, each) for weight in BITS for each in inputs]
        pairs[name] = tuple(sorted(every, key=_product))
    return Choices(pairs, by_weight, objective)


def _product(pair: Pair) -> tuple[int, Pair]:
    return pair[0] * (pair[1] or 1), pair


def _split(chosen: Mapping[tuple[str, str], int]) -> Policy:
    weights = {name: bits for (side, name), bits in chosen.items() if side == "w"}
    return weights, {name: bits for (side, name), bits in chosen.items() if side == "a"}


def _unbeaten(costs: Mapping[int, float], losses: Mapping[int, float]) -> list[int]:
    """Places by rising cost, each losing less than all before it, and the last of equal costs."""
    kept: list[int] = []
    for place in sorted(costs, key=lambda place: (costs[place], losses[place])):
        if not kept or losses[place] < losses[kept[-1]]:
            kept.append(place)
    return kept
