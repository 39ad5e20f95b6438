"""What layers cost by the bits of both operands: the weight's and the input's.

A multiplication takes bits x bits, so that the price of a bit of the one depends on the bits of the other. Costs
between whole bits are interpolated linearly in both, and the price of a bit is the slope of that between neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from waveq.method.budget import REFERENCE_BITS, AnyBudget
from waveq.method.operand_names import input_name

__all__ = ["FLOAT_INPUT_BITS", "PairBudget", "PairCosts", "PairTable", "TableSource", "product_tables"]

FLOAT_INPUT_BITS = 16  # what inputs in floating point are priced as
PairTable = Mapping[int, Mapping[int, float]]  # cost by total bits of the weight, then by bits of the input


class TableSource(Protocol):
    """Who knows the tables later."""

    def tables(self) -> Mapping[str, PairTable] | None:
        """None until then."""


class PairCosts:
    """Cost by layer and bits of both operands.

    Args:
        tables: cost by layer, weight bits and input bits, or who knows them later.

    Example:
        >>> costs = PairCosts(product_tables({"a": 10.0, "b": 1.0}))
        >>> costs.value({"a": 2.0, "a (inputs)": 2.5, "b": 4})
        114.0
        >>> costs.slopes({"a": 2.0, "a (inputs)": 2.5, "b": 4})
        {'a': 25.0, 'a (inputs)': 20.0, 'b': 16.0}
    """

    def __init__(self, tables: Mapping[str, PairTable] | TableSource) -> None:
        self._tables = tables

    @property
    def tables(self) -> Mapping[str, PairTable] | None:
        """The tables, or None while they are not known."""
        return self._tables if isinstance(self._tables, Mapping) else self._tables.tables()

    def value(self, total_bits: Mapping[str, float]) -> float:
        """The cost of real-valued bits.

        Args:
            total_bits: by operand (``input_name`` of the layer for inputs); inputs that are missing are in floating
                point, 16 bits.
        """
        tables = self._known()
        return sum(
            _at(tables[layer], w, _input_bits(total_bits, layer)) for layer, w in total_bits.items() if layer in tables
        )

    def reference(self, total_bits: Mapping[str, float]) -> float:
        """The cost of the same layers at 8 bits of both operands."""
        tables = self._known()
        return sum(tables[layer][REFERENCE_BITS][REFERENCE_BITS] for layer in total_bits if layer in tables)

    def slopes(self, total_bits: Mapping[str, float]) -> dict[str, float]:
        """What one more bit of each operand costs, at the bits of the other."""
        tables, found = self._known(), {}
        for layer, w in total_bits.items():
            if layer in tables:
                a = _input_bits(total_bits, layer)
                low = _below(w, tables[layer])
                found[layer] = _at(tables[layer], low + 1, a) - _at(tables[layer], low, a)
                if input_name(layer) in total_bits:
                    low = _below(a, next(iter(tables[layer].values())))
                    found[input_name(layer)] = _at(tables[layer], w, low + 1) - _at(tables[layer], w, low)
        return found

    def relative(self, total_bits: Mapping[str, float]) -> dict[str, float]:
        """``slopes`` over their mean: c_i of eq. 2.2, at the present bits; all 1 while the costs are not known."""
        if self.tables is None:
            return dict.fromkeys(total_bits, 1.0)
        slopes = self.slopes(total_bits)
        mean = sum(slopes.values()) / len(slopes)
        return {name: slope / mean if mean > 0.0 else 1.0 for name, slope in slopes.items()}

    def _known(self) -> Mapping[str, PairTable]:
        tables = self.tables
        if tables is None:
            raise RuntimeError(
                "what the layers cost is not known: their multiplications are counted in the forward passes of the "
                "first step, and no layer was called (a compiled graph calls none). Give them to attach: "
                "layer_costs={layer: multiplications}"
            )
        return tables


def _input_bits(total_bits: Mapping[str, float], layer: str) -> float:
    return total_bits.get(input_name(layer), FLOAT_INPUT_BITS)


def _below(bits: float, columns: Mapping[int, object]) -> int:
    """The whole bits at or below; one lower where there is nothing above."""
    low = math.floor(bits)
    return low if low + 1 in columns else low - 1


def _at(table: PairTable, w: float, a: float) -> float:
    low = math.floor(w)
    if low == w:
        return _between(table[low], a)
    return _between(table[low], a) + (w - low) * (_between(table[low + 1], a) - _between(table[low], a))


def _between(row: Mapping[int, float], a: float) -> float:
    low = math.floor(a)
    return row[low] if low == a else row[low] + (a - low) * (row[low + 1] - row[low])


def product_tables(multiplications: Mapping[str, float]) -> dict[str, PairTable]:
    """Multiplications x weight bits x input bits.

    Args:
        multiplications: of each layer, in any unit common to all.

    Example:
        >>> product_tables({"a": 10.0})["a"][2][4]
        80.0
    """
    inputs = (*range(1, 9), FLOAT_INPUT_BITS)
    return {
        name: {w: {a: float(count) * w * a for a in inputs} for w in range(1, 10)}
        for name, count in multiplications.items()
    }


@dataclass(frozen=True)
class PairBudget(AnyBudget):
    """A limit on what both operands cost together, as a share of 8 bits for both.

    Attributes:
        objective: "bitops", or what the tables hold ("energy_pj", "cycles").
        limit: the share.
        costs: of the layers.
    """

    costs: PairCosts

    counts_inputs = True

    @property
    def ready(self) -> bool:
        """Whether the costs are known."""
        return self.costs.tables is not None

    def value(self, total_bits: Mapping[str, float]) -> float:
        """The cost of real-valued bits, relative to 8 bits of both operands in the same layers."""
        return self.costs.value(total_bits) / self.costs.reference(total_bits)

    def most_bits(self, name: str) -> int:
        """The most bits that there is a cost for."""
        tables = self.costs.tables or {}
        return max(tables[name]) if name in tables else REFERENCE_BITS
