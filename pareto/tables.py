"""Per-layer tables: what each layer contributes at each bit width, and what whole policies sum up to.

Every objective that adds over layers (cycles and energy of a layer-by-layer accelerator, bytes, an additive
loss model) is a table of L layers by their bit widths; a policy picks one entry of each row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pareto._check import Floats, nearest
from pareto._jit import compiled, shared
from pareto._policies import policy_rows
from pareto.space import DesignSpace

__all__ = ["LayerTable", "as_table", "enumerate_costs", "matched", "score_policies"]

_WORTH_A_THREAD = 20_000  # policies; with fewer, waking it costs more than it brings


@dataclass(frozen=True)
class LayerTable:
    """One additive objective: `entries[layer][j]` is what `layer` contributes at `space.choices[layer][j]`
    bits.

    >>> table = as_table({"conv": {2: 1.0, 4: 2.0}, "fc": {2: 10.0, 8: 40.0}})
    >>> table.entries["fc"].tolist(), len(table.space)
    ([10.0, 40.0], 4)
    """

    space: DesignSpace
    entries: Mapping[str, Floats]

    def dense(self) -> Floats:
        """(L, 256) float64, indexed by the bit width itself; NaN where a width is not a choice."""
        dense = np.full((len(self.entries), 256), np.nan)
        for row, (name, widths) in enumerate(self.space.choices.items()):
            dense[row, list(widths)] = self.entries[name]
        return dense


def as_table(
    table: Any,
    *,
    bits: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    argument: str = "table",
) -> LayerTable:
    """Read a per-layer table from any of its plain forms.

    Args:
        table: a mapping layer -> {bits: value}; a DataFrame with layers as its index and bits as its columns;
            or an array of shape (L, B), which needs `bits`.
        bits: the B bit widths of the columns of an array.
        names: the L layer names of an array; default "layer0", "layer1", ...
        argument: what to call the table in messages.

    Raises:
        TypeError, ValueError: another form, a shape that does not fit, NaN or infinite entries (with their
            place).

    >>> as_table([[1, 2, 3], [4, 5, 6]], bits=(2, 4, 8)).space.names
    ('layer0', 'layer1')
    """
    if isinstance(table, LayerTable):
        return table
    if isinstance(table, Mapping):
        return _from_mapping(table, argument)
    if isinstance(table, pd.DataFrame):
        if not table.index.is_unique:
            raise ValueError(f"{argument} names layer {table.index[table.index.duplicated()][0]!r} twice")
        widths = [_as_width(column, argument) for column in table.columns]
        rows = zip(table.index, table.to_numpy(dtype=np.float64), strict=True)
        # NaN in a frame is how layers with different choices share one set of columns.
        return _from_mapping(
            {
                name: {width: value for width, value in zip(widths, row, strict=True) if not np.isnan(value)}
                for name, row in rows
            },
            argument,
        )
    array = np.asarray(table, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{argument} must have shape (layers, bit widths), got shape {array.shape}")
    if bits is None:
        raise ValueError(f"{argument} is an array: say which bit widths its {array.shape[1]} columns are with bits=...")
    if len(bits) != array.shape[1]:
        raise ValueError(f"{argument} has {array.shape[1]} columns, bits has {len(bits)} entries")
    names = [f"layer{row}" for row in range(len(array))] if names is None else names
    if len(names) != len(array):
        raise ValueError(f"{argument} has {len(array)} rows, names has {len(names)} entries")
    return _from_mapping(
        {name: dict(zip(bits, row, strict=True)) for name, row in zip(names, array, strict=True)}, argument
    )


def score_policies(
    policies: npt.ArrayLike,
    table: Any,
    *,
    bits: Sequence[int] | None = None,
) -> Floats:
    """Sum of table entries for each policy: (N, L) uint8 -> (N,) float64.

    Columns of `policies` are the layers of the table in its order. ValueError for a bit width that the table
    lacks (with its row and layer).

    >>> score_policies([[2, 2], [4, 8]], {"conv": {2: 1.0, 4: 2.0}, "fc": {2: 10.0, 8: 40.0}}).tolist()
    [11.0, 42.0]
    """
    layers = as_table(table, bits=bits)
    rows = policy_rows(policies, layers.space.names)
    scores = np.empty(len(rows))
    shared(_gather, len(rows), rows, layers.dense(), scores, worth=_WORTH_A_THREAD)
    bad = np.flatnonzero(np.isnan(scores))
    if bad.size:
        _explain_missing(rows[bad[0]], int(bad[0]), layers)
    return scores


def enumerate_costs(
    space: DesignSpace,
    costs: Mapping[str, Any],
    *,
    bits: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Every policy of `space` with its costs: one uint8 column per layer, one float64 column per objective.

    Args:
        space: the policies.
        costs: objective name (say "energy_pj") -> per-layer table, in any form of `as_table`.
        bits: bit widths of the columns where a table is a plain array, its rows being `space.names`.

    Raises:
        ValueError: a table lacks a layer or a bit width of the space, or the space is too large for one
            frame.

    >>> space = DesignSpace({"conv": (2, 4), "fc": (2, 8)})
    >>> frame = enumerate_costs(space, {"energy_pj": {"conv": {2: 1, 4: 2}, "fc": {2: 10, 8: 40}}})
    >>> frame["energy_pj"].tolist()
    [11.0, 41.0, 12.0, 42.0]
    """
    policies = space.policies()
    columns = {}
    for objective, given in costs.items():
        table = as_table(given, bits=bits, names=space.names, argument=f"costs[{objective!r}]")
        columns[objective] = score_policies(policies, matched(table, space, f"costs[{objective!r}]"))
    frame = space.frame(policies, **columns)
    frame.attrs["layers"] = list(space.names)
    return frame


def matched(table: LayerTable, space: DesignSpace, argument: str) -> LayerTable:
    """The part of `table` that `space` uses, in the order of `space`."""
    values = {}
    for name, widths in space.choices.items():
        if name not in table.entries:
            raise ValueError(f"{argument} lacks layer {name!r}{nearest(name, table.entries)}")
        known = dict(zip(table.space.choices[name], table.entries[name], strict=True))
        for width in widths:
            if width not in known:
                raise ValueError(f"{argument} has no value for layer {name!r} at {width} bits; it has {sorted(known)}")
        values[name] = np.array([known[width] for width in widths])
    return LayerTable(space=space, entries=values)


def _from_mapping(table: Mapping[Any, Any], argument: str) -> LayerTable:
    values = {}
    for name, row in table.items():
        if not isinstance(row, Mapping):
            raise TypeError(f"{argument}[{name!r}] must map bit widths to values, got {type(row).__name__}")
        numbers = np.array(list(row.values()), dtype=np.float64)
        wrong = np.flatnonzero(~np.isfinite(numbers))
        if wrong.size:
            width = list(row)[int(wrong[0])]
            raise ValueError(f"{argument}: layer {name!r} at {width} bits is {numbers[wrong[0]]}, not a finite number")
        values[name] = numbers
    space = DesignSpace({name: [_as_width(width, argument) for width in row] for name, row in table.items()})
    return LayerTable(space=space, entries=values)


def _as_width(width: Any, argument: str) -> int:
    try:
        whole = int(width)  # columns read from CSV are strings
    except (TypeError, ValueError, OverflowError):
        whole = -1
    if isinstance(width, bool) or whole < 0 or (not isinstance(width, str) and whole != width):
        raise ValueError(f"{argument}: {width!r} is not a bit width")
    return whole


def _explain_missing(policy: npt.NDArray[np.uint8], row: int, table: LayerTable) -> None:
    for (name, widths), width in zip(table.space.choices.items(), policy, strict=True):
        if int(width) not in widths:
            raise ValueError(f"policies: row {row} gives layer {name!r} {width} bits, the table has {widths}")


@compiled
def _gather(first: int, last: int, policies: npt.NDArray[np.uint8], dense: Floats, out: Floats) -> None:
    for row in range(first, last):
        total = 0.0
        for layer in range(policies.shape[1]):
            total += dense[layer, policies[row, layer]]
        out[row] = total
