"""Bits and machine together: the policies of a run that are worth their cost, on every machine of a grid.

Accuracy does not ask which machine computes, so a policy is measured once and priced on all machines. Which policies
are measured is where two ways differ: "learn" trains the bits at each machine's own prices; "allocate" measures one
table of losses, a layer at a time, and finds for each machine the policies that are best if losses add up. Both end in
accuracies of one kind (see `protocol`), so that they can be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from waveq._names import check_choice, nearest
from waveq.codesign.campaign import fingerprint, versions
from waveq.codesign.placement import own_bits
from waveq.codesign.protocol import Protocol, evaluation
from waveq.codesign.score import price_policies
from waveq.codesign.space import CHOICES, STORE, TUNED_ROWS, run_protocol
from waveq.codesign.sweep import run_sweep
from waveq.codesign.sweep_grid import SweepGrid, machine_parameters
from waveq.train.trained_run import TrainedRun

if TYPE_CHECKING:
    from stripes_sim import Accelerator

__all__ = ["COSTS", "DESIGNS", "FOLDER", "HOW", "MachineDesigns", "design_machines", "machines_of"]

FOLDER = "codesign"
HOW = ("allocate", "learn", "both")
COSTS = ("energy_pj", "cycles", "area_mm2")
SENSE = {"accuracy": "max", **dict.fromkeys(COSTS, "min")}
DESIGNS = ("neither", "machine", "bits", "both")
_ALLOCATED_BY = ("energy_pj", "cycles")
_RUNTIME = {"run_dir", "resume", "progress", "layer_costs", "target", "init", "pretrain_epochs", "distill"}
Policies = npt.NDArray[np.uint8]


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
    grid: Mapping[str, Sequence[Any]],
    *,
    hardware: str | Path = "stripes",
    how: str = "allocate",
    choices: Sequence[int] = CHOICES,
    budgets: Sequence[float] = (0.3, 0.45),
    points: int = 8,
    uniform: int = 4,
    protocol: Protocol | None = None,
    say: Callable[[str], None] | None = None,
    engine: str = "serial",
    progress: bool = True,
    **engine_options: Any,
) -> MachineDesigns:
    """Measure policies for every machine of a grid, and price all of them on all machines; calling it again resumes.

    Args:
        run: a finished run; its float network is what every policy starts from. Accuracies go to its store, that of
            `enumerate_run`, and what is there counts too.
        grid: parameters of the machine and their values.
        hardware: the machine, by name or TOML file, whose other parameters stay as they are; it is on the grid in any
            case.
        how: where policies come from: "allocate", "learn", or "both" of them.
        choices: bits that every layer may take.
        budgets: shares of what 8 bits cost in energy that bits are learned within, on each machine.
        points: policies of each machine's frontiers of predicted loss against energy and against cycles.
        uniform: bits of the uniform policy whose accuracy, cycles and area the designs keep.
        protocol: how accuracies are measured; by default as the run's enumeration measured them.
        say: receives a line for each part of the work.
        engine, progress, engine_options: see `pareto.run_campaign`.

    Raises:
        ValueError: unknown words and parameters; a store of another network, data or protocol.
    """
    import pareto
    from stripes_sim import load_hardware

    check_choice("how", how, HOW)
    speak, base = say or _silent, load_hardware(hardware)
    machines = machines_of(grid, base)
    chosen = protocol or run_protocol(run)
    evaluate = evaluation(run, chosen)
    names = tuple(evaluate.names)
    if clash := sorted(set(names) & {*grid, *SENSE, "origin", "weight_bytes"}):
        raise ValueError(f"grid: a layer of the network is called {clash[0]!r} too")
    widths = sorted({*choices, uniform})
    wanted = {tuple(own_bits(run.policy, names).values()): "run"}
    wanted |= {(width,) * len(names): "uniform" for width in widths}
    if how != "allocate":
        speak(f"bits learned at the prices of {len(machines)} machines, for {len(budgets)} budgets each")
        learned = _learned(run, grid, hardware, budgets, engine, progress, engine_options)
        wanted |= dict.fromkeys(learned, "learned")
    identity = fingerprint(run, evaluate, chosen)
    with pareto.Store(run.path / STORE, layers=names, fingerprint=identity, versions=versions()) as store:

        def accuracies(policies: Policies) -> npt.NDArray[np.float64]:
            speak(f"accuracy of {len(policies)} policies: {chosen}")
            found = pareto.run_campaign(
                policies, evaluate, store, engine=engine, progress=progress, unit_rows=TUNED_ROWS, **engine_options
            )
            by_policy = found.set_index(list(names))["accuracy"]
            return np.array([by_policy.get(tuple(row), np.nan) for row in policies.tolist()])

        if how != "learn":
            speak(f"one table of losses, {len(names)} layers by {len(widths)} bits, for {len(machines)} machines")
            score = accuracies if chosen.finetune_epochs else lambda policies: -evaluate.losses(policies)
            for policy in _allocated(run, names, score, machines.values(), widths, points):
                wanted.setdefault(policy, "allocated")
        accuracies(np.array(list(wanted), dtype=np.uint8))
        measured = store.frame()
    bits = measured[list(names)].itertuples(index=False, name=None)
    measured = measured.assign(origin=[wanted.get(policy, "measured before") for policy in bits])
    frame = _priced(run, machines, tuple(grid), names, measured)
    given = tuple(getattr(base, name) for name in grid)
    designs, envelope = _designs(frame, tuple(grid), names, given, uniform)
    front = pareto.frontier(frame, sense=SENSE)
    return MachineDesigns(
        frame=frame, front=front, designs=designs, envelope=envelope, layers=names, parameters=tuple(grid)
    )


def _allocated(
    run: TrainedRun,
    names: Sequence[str],
    score: Callable[[Policies], npt.NDArray[np.float64]],
    machines: Iterable[Accelerator],
    widths: Sequence[int],
    points: int,
) -> dict[tuple[int, ...], None]:
    """Policies spread evenly over each machine's frontiers of predicted loss and cost, in a fixed order."""
    import pareto
    from stripes_sim import cost_table

    space = pareto.DesignSpace(dict.fromkeys(names, tuple(widths)))
    losses = pareto.measured_losses(dict.fromkeys(names, max(widths)), score, space)
    found: dict[tuple[int, ...], None] = {}
    for machine in machines:
        costs = cost_table(run.layers, machine, bits=widths, activation_bits=run.activation_bits())
        for objective in _ALLOCATED_BY:
            table = {name: row for name, row in costs.by_layer(objective).items() if name in space.names}
            front = pareto.additive_frontier(table, losses)[list(space.names)]
            spread = np.unique(np.linspace(0, len(front) - 1, min(points, len(front))).round().astype(int))
            found |= dict.fromkeys(front.iloc[spread].astype(int).itertuples(index=False, name=None))
    return found


def _learned(
    run: TrainedRun,
    grid: Mapping[str, Sequence[Any]],
    hardware: str | Path,
    budgets: Sequence[float],
    engine: str,
    progress: bool,
    engine_options: Mapping[str, Any],
) -> list[tuple[int, ...]]:
    """The policies of a sweep that begins at the run's float network."""
    told = run.config.model_dump(mode="json", exclude_none=True, exclude=_RUNTIME)
    start = {} if run.float_weights is None else {"init": str(run.float_weights.absolute())}
    axes = {"target.energy_pj": list(budgets), **{name: list(values) for name, values in grid.items()}}
    sweep = SweepGrid(base={**told, **start, "bits": "learn"}, axes=axes, hardware=str(hardware))
    status = run_sweep(sweep, run.path / FOLDER, engine=engine, progress=progress, **engine_options)
    if status.reasons:
        place, reason = next(iter(status.reasons.items()))
        raise ValueError(f"{len(status.reasons)} runs failed, such as {status.points[place]}: {reason}")
    asked = {point.run_digest for point in sweep.points()}
    runs = {point.run_name for point in status.points if point.run_digest in asked}
    found = []
    for name in sorted(runs):
        policy = TrainedRun(run.path / FOLDER / "runs" / name).policy
        found.append(tuple(policy.values()))
    return found


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
    found = {name: frame.loc[frame.loc[rows, "energy_pj"].idxmin()].to_dict() for name, rows in among.items()}
    return found, envelope


def _silent(_line: str) -> None:
    """Say nothing."""
