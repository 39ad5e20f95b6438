"""The hardware side of co-design: one policy, or several, on every machine of a grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pandas as pd

from stripes_sim._machine_axis import machine_totals, side_by_side
from stripes_sim._packed import pack
from stripes_sim.bits import checked_batch, nearest, stationary_bits, streamed_bits
from stripes_sim.costs import LEVELS
from stripes_sim.dataflows import dataflow_named
from stripes_sim.hardware import Accelerator, Stripes
from stripes_sim.layers import LayerShape
from stripes_sim.parameters import Parameters

__all__ = ["AREA_NOTE", "DEFAULT_GRID", "explore"]

DEFAULT_GRID: dict[str, tuple[int, ...]] = {
    "tiles": (1, 2, 4, 8, 16, 32),
    "rows": (8, 16, 32),
    "columns": (8, 16),
    "activation_buffer_bytes": (2**18, 2**20, 2**22),
}
"""What `waveq explore` sweeps unless told otherwise."""

# machines that are scored at once: more would not stay in the processor's caches
_TOGETHER = 256
AREA_NOTE = (
    "area is an estimate from assumed constants (stripes_sim.energy.CONSTANTS: area_serial_lane, area_parallel_lane, "
    "area_buffer), good for comparing machines, not for a floor plan"
)


def explore(
    layers: Sequence[LayerShape],
    policies: int | Mapping[str, int] | Mapping[str, int | Mapping[str, int]] | Sequence[int | Mapping[str, int]],
    grid: Mapping[str, Sequence[object]] | None = None,
    *,
    hardware: Accelerator | None = None,
    activation_bits: int | Mapping[str, int] = 16,
    batch: int = 1,
    default_bits: int | None = None,
) -> pd.DataFrame:
    """Score policies on every combination of hardware parameters.

    Args:
        layers: the workload.
        policies: one policy (an int, or layer -> bits), a list of policies, or a mapping label -> policy in which
            at least one policy is itself a mapping.
        grid: parameter -> values, for any parameters of `stripes_sim.hardware.UNITS`; default `DEFAULT_GRID`.
        hardware: the machine whose other parameters stay as they are; default ``Stripes()``.
        activation_bits, batch, default_bits: as in `Accelerator.run`.

    Returns:
        One row per machine and policy: the grid's parameters, ``policy``, ``cycles``, ``compute_cycles``, ``seconds``,
        ``energy_pj``, ``utilisation`` (share of all lanes and cycles, memory stalls included, that did work),
        ``area_mm2`` (see `AREA_NOTE`), and ``bound``, the level that most cycles waited for. Ready for
        ``pareto.frontier``.

    Raises:
        ValueError, TypeError: an unknown parameter, an empty list, or what `Accelerator` and its ``run`` refuse.

    >>> net = [LayerShape(name="fc", kind="linear", in_channels=512, out_channels=256)]
    >>> explore(net, 4, {"tiles": (1, 2, 4)})[["tiles", "compute_cycles"]].values.tolist()
    [[1, 128], [2, 64], [4, 32]]
    """
    base = Stripes() if hardware is None else hardware
    swept = dict(DEFAULT_GRID if grid is None else grid)
    known = [field.name for field in fields(base)]
    for key, values in swept.items():
        if key not in known:
            raise ValueError(f"grid sweeps {key!r}, which is no hardware parameter{nearest(key, known)}")
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ValueError(f"grid[{key!r}] must be a list of values, but it is {values!r}")
    named = _named(policies)
    batch = checked_batch(batch)
    pack(layers)
    weight = np.hstack([stationary_bits(layers, policy, default_bits=default_bits) for policy in named.values()])
    activation = streamed_bits(layers, activation_bits, default_bits=default_bits)[:, None]
    machines = [dict(zip(swept, values, strict=True)) for values in itertools.product(*swept.values())]
    totals: dict[str, list[Any]] = {}
    rows: list[int] = []
    for chunk, hw in _alike(base, swept, machines):
        rows += chunk
        for key, total in machine_totals(hw, layers, weight, activation, batch, len(chunk)).items():
            totals.setdefault(key, []).append(total)
    order = np.argsort(rows, kind="stable")
    columns: dict[str, Any] = {key: [machine[key] for machine in machines for _ in named] for key in swept}
    columns["policy"] = [*named] * len(machines)
    columns.update({key: np.concatenate(parts)[order].ravel() for key, parts in totals.items()})
    columns["bound"] = [LEVELS[level] for level in columns["bound"]]
    return pd.DataFrame(columns)


def _alike(
    base: Accelerator, swept: Mapping[str, Sequence[object]], machines: Sequence[Mapping[str, object]]
) -> Iterator[tuple[list[int], Parameters]]:
    """Numbers of machines that can be scored at once, as they differ in numbers alone, and these machines."""
    numeric = [key for key in swept if all(_is_number(value) for value in swept[key])]
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, machine in enumerate(machines):
        groups.setdefault(tuple(machine[key] for key in swept if key not in numeric), []).append(number)
    for numbers in groups.values():
        first = _machine(base, machines[numbers[0]])
        if not dataflow_named(first.serial).broadcasts:
            yield from (([number], _machine(base, machines[number])) for number in numbers)
            continue
        for key in numeric:
            for value in swept[key]:
                _machine(first, {key: value})  # each value is checked, as a machine of its own
        for start in range(0, len(numbers), _TOGETHER):
            chunk = numbers[start : start + _TOGETHER]
            yield chunk, side_by_side(first, {key: [machines[n][key] for n in chunk] for key in numeric})


def _machine(base: Accelerator, changes: Mapping[str, object]) -> Accelerator:
    return replace(base, **changes)  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _named(
    policies: int | Mapping[str, int] | Mapping[str, int | Mapping[str, int]] | Sequence[int | Mapping[str, int]],
) -> dict[str, int | Mapping[str, int]]:
    """Policies by label; a mapping of numbers is one policy, a mapping that holds a mapping has labels."""
    if isinstance(policies, Mapping):
        labelled = any(isinstance(value, Mapping) for value in policies.values())
        return dict(policies) if labelled else {"policy": policies}  # type: ignore[dict-item]
    if isinstance(policies, Sequence) and not isinstance(policies, str):
        if not policies:
            raise ValueError("policies is empty: give an int, a mapping, or a list of them")
        return {_label(number, policy): policy for number, policy in enumerate(policies)}
    return {_label(0, policies): policies}


def _label(number: int, policy: int | Mapping[str, int]) -> str:
    return f"policy {number}" if isinstance(policy, Mapping) else f"{policy} bits"
