"""Bits of weights and inputs together, without gradients: every allocator over the pairs that a layer may have.

Losses are taken to add up, over layers and over the two operands of one: those that ``measured_table`` gives for a
``waveq.evaluate.pairs.PairEvaluator``, which changes one weight or input at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from waveq.allocate.problem import TOLERANCE, PlainTable, Table, as_table
from waveq.method.operand_names import input_name
from waveq.method.pair_costs import FLOAT_INPUT_BITS, PairTable

__all__ = ["PairPolicy", "allocate_pairs", "bitops_costs", "random_pairs", "uniform_pair"]


class PairPolicy(NamedTuple):
    """Bits by layer.

    Attributes:
        bits: of the weights.
        activation_bits: of the inputs; those in floating point are missing.
    """

    bits: dict[str, int]
    activation_bits: dict[str, int]


class _Pair(NamedTuple):
    cost: float
    loss: float
    weight: int
    inputs: int


def bitops_costs(
    multiplications: Mapping[str, float], bits: Sequence[int], input_bits: Sequence[int], *, inputs: Sequence[str]
) -> dict[str, PairTable]:
    """Multiplications x weight bits x input bits, at the bits that there are to choose from.

    Args:
        multiplications: by layer.
        bits: of weights.
        input_bits: of the inputs.
        inputs: the layers whose inputs are quantised; those of others count as 16 bits.

    Example:
        >>> bitops_costs({"a": 2.0, "b": 1.0}, (2, 4), (3,), inputs=["b"])
        {'a': {2: {16: 64.0}, 4: {16: 128.0}}, 'b': {2: {3: 6.0}, 4: {3: 12.0}}}
    """
    return {
        name: {w: {a: count * w * a for a in (input_bits if name in inputs else (FLOAT_INPUT_BITS,))} for w in bits}
        for name, count in multiplications.items()
    }


def allocate_pairs(
    allocate: Callable[..., dict[str, int]],
    losses: Table,
    costs: Mapping[str, PairTable],
    budget: float,
) -> PairPolicy:
    """``ilp`` or ``greedy_sensitivity`` over pairs of bits.

    Each layer's choices are its pairs, in the order of their costs; those that cost more than another one and lose no
    less are left out.

    Args:
        allocate: the method.
        losses: by operand ("conv1", "conv1 (inputs)") and bits.
        costs: by layer, weight bits and input bits; 16 stands for inputs in floating point.
        budget: the most that the costs may add up to.

    Raises:
        ValueError: losses that lack an operand or its bits; see the methods.

    Example:
        >>> from waveq.allocate import ilp
        >>> losses = {"a": {2: 0.5, 4: 0.0}, "a (inputs)": {2: 0.1, 4: 0.0}, "b": {2: 0.2, 4: 0.0}}
        >>> costs = bitops_costs({"a": 1.0, "b": 0.1}, (2, 4), (2, 4), inputs=["a"])
        >>> allocate_pairs(ilp, losses, costs, 12.0)
        PairPolicy(bits={'a': 4, 'b': 2}, activation_bits={'a': 2})
    """
    table = as_table(losses)
    pairs = {layer: _pairs(layer, rows, table) for layer, rows in costs.items()}
    chosen = allocate(
        {layer: {k: pair.loss for k, pair in enumerate(those, start=1)} for layer, those in pairs.items()},
        {layer: {k: pair.cost for k, pair in enumerate(those, start=1)} for layer, those in pairs.items()},
        budget,
    )
    return _policy({layer: pairs[layer][k - 1] for layer, k in chosen.items()})


def random_pairs(costs: Mapping[str, PairTable], budget: float, *, seed: int = 0) -> PairPolicy:
    """Random bits that use the budget up, as ``random_at_cost`` draws them: of weights and inputs each for itself.

    Args:
        costs: by layer, weight bits and input bits.
        budget: the most that the costs may add up to.
        seed: of NumPy's generator; each seed is another policy.

    Raises:
        ValueError: the budget cannot be met.

    Example:
        >>> random_pairs(bitops_costs({"a": 1.0, "b": 1.0}, (2, 3), (2, 3), inputs=["a", "b"]), 8.0)
        PairPolicy(bits={'a': 2, 'b': 2}, activation_bits={'a': 2, 'b': 2})
    """
    choices = {
        (layer, axis): sorted(bits)
        for layer, rows in costs.items()
        for axis, bits in enumerate((rows, next(iter(rows.values()))))
    }

    def fits(places: Mapping[tuple[str, int], int]) -> bool:
        bits = {key: choices[key][place] for key, place in places.items()}
        return sum(rows[bits[name, 0]][bits[name, 1]] for name, rows in costs.items()) <= budget * (1 + TOLERANCE)

    if not fits(dict.fromkeys(choices, 0)):
        raise ValueError(f"budget {budget!r} cannot be met: the fewest bits everywhere cost more")
    generator = np.random.default_rng(seed)
    places = {key: int(generator.integers(len(bits))) for key, bits in choices.items()}
    while not fits(places):
        lowerable = [key for key, place in places.items() if place > 0]
        places[lowerable[int(generator.integers(len(lowerable)))]] -= 1
    while able := [
        key for key, place in places.items() if place + 1 < len(choices[key]) and fits({**places, key: place + 1})
    ]:
        places[able[int(generator.integers(len(able)))]] += 1
    bits = {key: choices[key][place] for key, place in places.items()}
    return _policy({name: _Pair(0.0, 0.0, bits[name, 0], bits[name, 1]) for name in costs})


def uniform_pair(costs: Mapping[str, PairTable], budget: float) -> PairPolicy:
    """The dearest pair of bits that all layers can have alike within the budget; wider weights on a tie.

    Args:
        costs: by layer, weight bits and input bits.
        budget: the most that the costs may add up to.

    Raises:
        ValueError: no pair fits.

    Example:
        >>> uniform_pair(bitops_costs({"a": 1.0, "b": 1.0}, (2, 3), (2, 3), inputs=["a", "b"]), 13.0)
        PairPolicy(bits={'a': 3, 'b': 3}, activation_bits={'a': 2, 'b': 2})
    """
    weights = set.intersection(*(set(rows) for rows in costs.values()))
    quantised = [rows for rows in costs.values() if not _in_floating_point(rows)]
    inputs = set.intersection(*(set(row) for rows in quantised for row in rows.values())) if quantised else {0}
    fitting = []
    for w in weights:
        for a in inputs:
            chosen = {
                layer: _Pair(rows[w][b], 0.0, w, b)
                for layer, rows in costs.items()
                for b in (FLOAT_INPUT_BITS if _in_floating_point(rows) else a,)
            }
            total = sum(pair.cost for pair in chosen.values())
            if total <= budget * (1 + TOLERANCE):
                fitting.append((total, w, chosen))
    if not fitting:
        raise ValueError(f"no pair of bits that all layers share costs at most {budget!r}")
    return _policy(max(fitting, key=lambda each: each[:2])[2])


def _in_floating_point(rows: PairTable) -> bool:
    return all(set(row) == {FLOAT_INPUT_BITS} for row in rows.values())


def _pairs(layer: str, rows: PairTable, losses: PlainTable) -> list[_Pair]:
    """A layer's choices that are worth their cost, by rising cost."""
    found = sorted(
        _Pair(cost, _loss(losses, layer, w) + _input_loss(losses, layer, a), w, a)
        for w, row in rows.items()
        for a, cost in row.items()
    )
    kept: list[_Pair] = []
    for pair in found:
        if not kept or pair.loss < kept[-1].loss:
            kept.append(pair)
    return kept


def _input_loss(losses: PlainTable, layer: str, bits: int) -> float:
    return 0.0 if bits == FLOAT_INPUT_BITS else _loss(losses, input_name(layer), bits)


def _loss(losses: PlainTable, operand: str, bits: int) -> float:
    try:
        return float(losses[operand][bits])
    except KeyError:
        raise ValueError(f"losses says nothing of {operand!r} at {bits} bits") from None


def _policy(chosen: Mapping[str, _Pair]) -> PairPolicy:
    return PairPolicy(
        {layer: pair.weight for layer, pair in chosen.items()},
        {layer: pair.inputs for layer, pair in chosen.items() if pair.inputs != FLOAT_INPUT_BITS},
    )
