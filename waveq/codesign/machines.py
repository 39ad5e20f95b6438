"""Bits and machine together: measured policies on every machine of a grid, and what designing both saves.

Accuracy does not ask which machine computes, so a policy is measured once and priced on all machines.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from waveq._names import nearest
from waveq.codesign.score import price_policies
from waveq.codesign.sweep_grid import machine_parameters
from waveq.train.trained_run import TrainedRun

if TYPE_CHECKING:
    from stripes_sim import Accelerator

__all__ = ["DESIGNS", "FOLDER", "SENSE", "MachineDesigns", "design_machines", "machines_of"]

FOLDER = "codesign"
SENSE = {"accuracy": "max", "energy_pj": "min", "cycles": "min", "area_mm2": "min"}
DESIGNS = ("neither", "machine", "bits", "both")


@dataclass(frozen=True, kw_only=True)
class MachineDesigns:
    """What came out.

    Attributes:
        frame: a row for each measured policy on each machine: the varied parameters, bits by layer, accuracy
            (percent), "origin" (allocated, learned, uniform, run, measured before), cycles, energy_pj, weight_bytes,
            area_mm2.
        front: its efficient rows in accuracy, energy, cycles and area.
        designs: the rows that use least energy within one envelope, by DESIGNS: uniform bits on the machine that is
            given, on the best machine; the best bits on that machine, on the best machine.
        envelope: accuracy (percent), cycles and area_mm2 that all four keep: those of "neither".
        layers: the columns of bits.
        parameters: the columns of machines.
    """

    frame: pd.DataFrame
    front: pd.DataFrame
    designs: Mapping[str, Mapping[str, Any]]
    envelope: Mapping[str, float]
    layers: tuple[str, ...]
    parameters: tuple[str, ...]

    def savings(self) -> dict[str, float]:
        """The share of energy that designing both saves over each of the other designs."""
        both = self.designs["both"]["energy_pj"]
        return {name: 1 - both / self.designs[name]["energy_pj"] for name in DESIGNS if name != "both"}


def machines_of(grid: Mapping[str, Sequence[Any]], base: Accelerator) -> dict[tuple[Any, ...], Accelerator]:
    """The machines of a grid by their parameters' values, the given one among them.

    Args:
        grid: parameter -> values.
        base: the machine whose other parameters stay as they are.

    Raises:
        ValueError: no parameter of a machine, or a value that it cannot have.

    Example:
        >>> from stripes_sim import Stripes
        >>> list(machines_of({"tiles": [4, 8]}, Stripes()))
        [(16,), (4,), (8,)]
    """
    known = machine_parameters()
    for name in grid:
        if name not in known:
            raise ValueError(f"grid: no hardware parameter is called {name!r}{nearest(name, known)}")
    found = {tuple(getattr(base, name) for name in grid): base}
    for values in itertools.product(*grid.values()):
        try:
            found.setdefault(values, replace(base, **dict(zip(grid, values, strict=True))))
        except (TypeError, ValueError) as error:
            raise ValueError(f"grid: {error}") from None
    return found


def design_machines(
    run: TrainedRun,
    measured: pd.DataFrame,
    grid: Mapping[str, Sequence[Any]],
    *,
    hardware: str | Path = "stripes",
    uniform: int = 4,
) -> MachineDesigns:
    """Price measured policies on every machine of a grid, and compare four designs within one envelope.

    Args:
        run: a finished run, whose network and bits of inputs are priced.
        measured: a row a policy: bits by layer, accuracy (percent), and origin where it is known; see
            `machine_policies.measure_policies`.
        grid: parameters of the machine and their values.
        hardware: the machine, by name or TOML file, whose other parameters stay as they are; it is on the grid in any
            case.
        uniform: bits of the uniform policy whose accuracy, cycles and area the designs keep.

    Raises:
        ValueError: no parameter of a machine, or called as a layer; the uniform policy is not among those measured.
    """
    import pareto
    from stripes_sim import load_hardware

    base, names = load_hardware(hardware), tuple(name for name in measured.columns if name in run.policy)
    if clash := sorted(set(names) & {*grid, *SENSE, "origin", "weight_bytes"}):
        raise ValueError(f"grid: a layer of the network is called {clash[0]!r} too")
    if not (measured[list(names)] == uniform).all(axis=1).any():
        raise ValueError(f"uniform: no accuracy of {uniform} bits in every layer is among the {len(measured)} policies")
    told = measured[[*names, "accuracy"]].assign(origin=measured.get("origin", "measured elsewhere"))
    frame = _priced(run, machines_of(grid, base), tuple(grid), names, told)
    given = tuple(getattr(base, name) for name in grid)
    designs, envelope = _designs(frame, tuple(grid), names, given, uniform)
    front = pareto.frontier(frame, sense=SENSE)
    return MachineDesigns(
        frame=frame, front=front, designs=designs, envelope=envelope, layers=names, parameters=tuple(grid)
    )


def _priced(
    run: TrainedRun,
    machines: Mapping[tuple[Any, ...], Accelerator],
    parameters: tuple[str, ...],
    names: tuple[str, ...],
    measured: pd.DataFrame,
) -> pd.DataFrame:
    from stripes_sim.energy import area_mm2

    rows = measured[list(names)].to_numpy(dtype=np.uint8)
    parts = []
    for values, machine in machines.items():
        costs = price_policies(run, machine, names, rows).assign(area_mm2=float(area_mm2(machine)["total"]))
        told = pd.DataFrame({name: [value] * len(rows) for name, value in zip(parameters, values, strict=True)})
        parts.append(pd.concat([told, measured.reset_index(drop=True), costs], axis=1))
    return pd.concat(parts, ignore_index=True)


def _designs(
    frame: pd.DataFrame, parameters: tuple[str, ...], names: tuple[str, ...], given: tuple[Any, ...], uniform: int
) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
    """The four designs, all within what uniform bits on the given machine reach and need."""
    same_bits = (frame[list(names)] == uniform).all(axis=1)
    same_machine = (frame[list(parameters)] == list(given)).all(axis=1)
    first = frame[same_bits & same_machine].iloc[0]
    envelope = {name: float(first[name]) for name in ("accuracy", "cycles", "area_mm2")}
    within = (
        (frame["accuracy"] >= envelope["accuracy"])
        & (frame["cycles"] <= envelope["cycles"])
        & (frame["area_mm2"] <= envelope["area_mm2"])
    )
    among = {
        "neither": same_bits & same_machine,
        "machine": same_bits & within,
        "bits": same_machine & within,
        "both": within,
    }
    found = {}
    for name, rows in among.items():
        best = frame[rows].sort_values("energy_pj", kind="stable").iloc[0]
        found[name] = {str(column): value for column, value in best.items()}
    return found, envelope
