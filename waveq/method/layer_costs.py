"""What ``layer_costs`` may hold, looked at before anything is built on it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Integral, Real

__all__ = ["require_costs"]

_MOST_BITS = 16  # of a baseline, or of an input in floating point


def require_costs(layer_costs: Mapping[str, object] | None) -> None:
    """Costs by layer, by bits, or by bits of weight and input: all of them positive and finite, for 1 to 16 bits.

    Raises:
        ValueError: names the entry and what was expected.

    Example:
        >>> require_costs({"conv1": 3.0, "fc": {2: 1.0, 8: 0.0}})
        Traceback (most recent call last):
        ValueError: layer_costs['fc'][8] must be a positive, finite number, not 0.0
    """
    for layer, cost in (layer_costs or {}).items():
        _require(f"layer_costs[{layer!r}]", cost, tables=2)


def _require(where: str, cost: object, *, tables: int) -> None:
    if isinstance(cost, Mapping) and tables:
        for bits, inner in cost.items():
            if not isinstance(bits, Integral) or isinstance(bits, bool) or not 1 <= int(bits) <= _MOST_BITS:
                raise ValueError(f"{where} has costs by bits: a whole number from 1 to {_MOST_BITS}, not {bits!r}")
            _require(f"{where}[{bits}]", inner, tables=tables - 1)
    elif not isinstance(cost, Real) or isinstance(cost, bool) or not 0 < float(cost) < math.inf:
        raise ValueError(f"{where} must be a positive, finite number, not {cost!r}")
