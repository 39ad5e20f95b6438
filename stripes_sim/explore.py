"""The hardware side of co-design: one policy, or several, on every machine of a grid."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace

import pandas as pd

from stripes_sim.bits import nearest
from stripes_sim.energy import area_mm2
from stripes_sim.hardware import Accelerator, Stripes
from stripes_sim.layers import LayerShape

__all__ = ["AREA_NOTE", "DEFAULT_GRID", "explore"]

DEFAULT_GRID: dict[str, tuple[int, ...]] = {
    "tiles": (1, 2, 4, 8, 16, 32),
    "rows": (8, 16, 32),
    "columns": (8, 16),
    "activation_buffer_bytes": (2**18, 2**20, 2**22),
}
"""What `waveq explore` sweeps unless told otherwise."""

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
    rows = []
    for combination in itertools.product(*swept.values()):
        machine = replace(base, **dict(zip(swept, combination, strict=True)))  # type: ignore[arg-type]
        area = area_mm2(machine)["total"]
        for label, policy in named.items():
            result = machine.run(layers, policy, activation_bits, batch=batch, default_bits=default_bits)
            rows.append(
                {
                    **dict(zip(swept, combination, strict=True)),
                    "policy": label,
                    "cycles": result.cycles,
                    "compute_cycles": result.compute_cycles,
                    "seconds": result.seconds,
                    "energy_pj": result.energy_pj,
                    "utilisation": result.utilisation,
                    "area_mm2": area,
                    "bound": result.bound,
                }
            )
    return pd.DataFrame(rows)


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
