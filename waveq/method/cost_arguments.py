"""What ``target`` and ``layer_costs`` come to where a layer's cost depends on the bits of both operands."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from waveq.functional import BETA_MIN
from waveq.method.budget import REFERENCE_BITS, LayerCosts, has_pairs, parse_target
from waveq.method.operand_names import input_name
from waveq.method.pair_costs import FLOAT_INPUT_BITS, PairBudget, PairCosts, PairTable, TableSource, product_tables

__all__ = ["BITOPS", "resolve_pair_budget", "resolve_pairs"]

BITOPS = "bitops"
_LEAST = int(BETA_MIN) + 1


def resolve_pairs(
    target: Mapping[str, float] | None,
    weights: Mapping[str, int],
    inputs: Mapping[str, int],
    layer_costs: LayerCosts | None,
    *,
    most_bits: int,
    counted: TableSource,
) -> PairCosts | None:
    """The costs by the bits of both operands; None where costs depend on the weight's bits alone.

    Args:
        target: as given to ``attach``.
        weights: total bits by layer, 0 where they are learned.
        inputs: bits of the inputs by layer, 0 where they are learned.
        layer_costs: by layer.
        most_bits: where learned bits of weights begin.
        counted: counts the multiplications of each layer, where nobody says them.

    Raises:
        ValueError: a target or costs that say nothing of inputs whose bits are learned; a table with gaps.
    """
    objective = None if target is None else parse_target(target)[0]
    learned = 0 in inputs.values()
    if objective == "mean_bits" and learned:
        raise ValueError(
            'target mean_bits counts the bits of weights alone; with activation_bits="learn" say what both may cost: '
            'target={"bitops": 0.3}, multiplications x bits x bits as a share of 8 bits for both'
        )
    kinds = {_kind(cost) for cost in (layer_costs or {}).values()}
    if objective == BITOPS:
        if kinds - {"number"}:
            raise ValueError(
                f"target {BITOPS} is multiplications x bits x bits: layer_costs must give the number of "
                "multiplications of each layer, or be left out, and they are counted"
            )
        return _products(weights, layer_costs, counted)
    if "pairs" in kinds:
        return PairCosts(_checked(weights, inputs, layer_costs or {}, most_bits))
    if not learned or (layer_costs is None and objective is None):
        return None
    if objective is None and kinds == {"number"}:
        return _products(weights, layer_costs, counted)
    raise ValueError(
        f'{"layer_costs" if objective is None else f"target {objective}"} with activation_bits="learn" needs the cost '
        "by bits of both operands, layer_costs={layer: {weight bits: {input bits: cost}}}, from "
        "stripes_sim.cost_table(layers, hardware, bits=range(2, 9), activation_bits=(*range(2, 9), 16)); or, as a "
        'number, the multiplications of each layer, with target={"bitops": share} or none'
    )


def resolve_pair_budget(
    target: Mapping[str, float] | None,
    weights: Mapping[str, int],
    inputs: Mapping[str, int],
    pairs: PairCosts,
    *,
    learning: bool,
) -> PairBudget | None:
    """The budget over both operands, where one is set.

    Args:
        target: as given to ``attach``.
        weights: total bits by layer, 0 where they are learned.
        inputs: bits of the inputs by layer, 0 where they are learned.
        pairs: what layers cost.
        learning: whether any bits are learned.
    """
    if target is None:
        return None
    if not learning:
        raise ValueError('target drives learned bits; with preset bits there is nothing to drive (use bits="learn")')
    budget = PairBudget(*parse_target(target), pairs)
    if budget.ready:
        budget.check_reach({**weights, **{input_name(name): bits for name, bits in inputs.items()}})
    return budget


def _kind(cost: object) -> str:
    if not isinstance(cost, Mapping):
        return "number"
    return "pairs" if has_pairs(cost) else "by bits"


def _products(weights: Collection[str], layer_costs: LayerCosts | None, counted: TableSource) -> PairCosts:
    if layer_costs is not None:
        numbers: dict[str, Any] = dict(layer_costs)
        missing = [name for name in weights if name not in numbers]
        if missing:
            raise ValueError(f"layer_costs has no cost for: {', '.join(missing)}")
        for name in weights:
            if not (math.isfinite(numbers[name]) and numbers[name] > 0):
                raise ValueError(f"layer_costs[{name!r}] must be positive and finite, not {numbers[name]!r}")
        return PairCosts(product_tables({name: numbers[name] for name in weights}))
    return PairCosts(counted)


def _checked(
    weights: Mapping[str, int], inputs: Mapping[str, int], layer_costs: LayerCosts, most_bits: int
) -> dict[str, PairTable]:
    tables: dict[str, Any] = {}
    for name, bits in weights.items():
        table: Any = layer_costs.get(name)
        if not has_pairs(table):
            raise ValueError(
                f"layer_costs[{name!r}] must be a table by weight bits and input bits, as those of other layers are, "
                f"not {table!r}"
            )
        rows = {bits, REFERENCE_BITS} if bits else set(range(_LEAST, max(REFERENCE_BITS, most_bits) + 1))
        input_bits = inputs.get(name, FLOAT_INPUT_BITS)
        columns = {input_bits, REFERENCE_BITS} if input_bits else set(range(_LEAST, REFERENCE_BITS + 1))
        for w in sorted(rows):
            for a in sorted(columns):
                cost = table.get(w, {}).get(a)
                if cost is None or not (math.isfinite(cost) and cost > 0):
                    raise ValueError(
                        f"layer_costs[{name!r}][{w}][{a}], the cost at {w} bits of the weight and {a} of the input"
                        f"{' (floating point)' if a == FLOAT_INPUT_BITS else ''}, must be positive and finite, "
                        f"not {cost!r}"
                    )
        tables[name] = table
    return tables
