"""Which policies are worth measuring when the machine is still open, and their accuracies.

Two ways differ: "learn" trains the bits at each machine's own prices; "allocate" measures one table of losses, a layer
at a time, and finds for each machine the policies that are best if losses add up. Both end in accuracies of one kind
(see `protocol`), so that they can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from waveq._names import check_choice
from waveq.codesign.campaign import fingerprint, versions
from waveq.codesign.machines import FOLDER, machines_of
from waveq.codesign.placement import STORE, own_bits
from waveq.codesign.protocol import Protocol, evaluation, require_choices
from waveq.codesign.space import CHOICES, TUNED_ROWS, run_protocol
from waveq.codesign.sweep import run_sweep
from waveq.codesign.sweep_grid import SweepGrid
from waveq.train.saying import Say, say_nothing
from waveq.train.trained_run import TrainedRun

if TYPE_CHECKING:
    from stripes_sim import Accelerator

__all__ = ["HOW", "measure_policies"]

HOW = ("allocate", "learn", "both")
_ALLOCATED_BY = ("energy_pj", "cycles")
_OF_ANOTHER_RUN = {"run_dir", "resume", "progress", "layer_costs", "target", "init", "pretrain_epochs", "distill"}
Policies = npt.NDArray[np.uint8]


def measure_policies(
    run: TrainedRun,
    grid: Mapping[str, Sequence[Any]],
    *,
    hardware: str | Path = "stripes",
    how: str = "allocate",
    choices: Sequence[int] = CHOICES,
    budgets: Sequence[float] = (0.3, 0.45),
    points: int = 8,
    protocol: Protocol | None = None,
    say: Say | None = None,
    engine: str = "serial",
    progress: bool = True,
    **engine_options: Any,
) -> pd.DataFrame:
    """Measure the run's policy, uniform ones, and those found for every machine of a grid; calling it again resumes.

    Args:
        run: a finished run; its float network is what every policy starts from. Accuracies go to its store, that of
            `enumerate_run`, and what is there counts too.
        grid, hardware: as for `machines.design_machines`.
        how: where policies come from: "allocate", "learn", or "both" of them.
        choices: bits that every layer may take.
        budgets: shares of what 8 bits cost in energy that bits are learned within, on each machine.
        points: policies of each machine's frontiers of predicted loss against energy and against cycles.
        protocol: how accuracies are measured; by default as the run's enumeration measured them.
        say: receives a line for each part of the work.
        engine, progress, engine_options: see `pareto.run_campaign`.

    Returns:
        A row for every policy in the store: bits by layer, accuracy (percent), and origin: "run", "uniform",
        "learned", "allocated", or "measured before".

    Raises:
        ValueError: unknown words and parameters; a store of another network, data or protocol.
    """
    import pareto
    from stripes_sim import load_hardware

    check_choice("how", how, HOW)
    require_choices(run.config, choices)
    speak, machines = say or say_nothing, machines_of(grid, load_hardware(hardware))
    chosen = protocol or run_protocol(run)
    evaluate = evaluation(run, chosen)
    names, widths = tuple(evaluate.names), sorted(choices)
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
                policies,
                evaluate.correct,
                store,
                engine=engine,
                progress=progress,
                unit_rows=TUNED_ROWS,
                **engine_options,
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
    return measured.assign(origin=[wanted.get(policy, "measured before") for policy in bits])


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
    told = run.config.model_dump(mode="json", exclude_none=True, exclude=_OF_ANOTHER_RUN)
    start = {} if run.float_weights is None else {"init": str(run.float_weights.absolute())}
    axes = {"target.energy_pj": list(budgets), **{name: list(values) for name, values in grid.items()}}
    sources = dict.fromkeys(told, str(run.path / "config.json"))
    base = {**told, **start, "bits": "learn"}
    sweep = SweepGrid(base=base, axes=axes, hardware=str(hardware), sources=sources)
    status = run_sweep(sweep, run.path / FOLDER, engine=engine, progress=progress, **engine_options)
    asked = {point.digest: point.run_name for point in sweep.points()}  # the folder may hold other grids too
    failed = {place: reason for place, reason in status.reasons.items() if status.points[place].digest in asked}
    if failed:
        place, reason = next(iter(failed.items()))
        raise ValueError(f"{len(failed)} runs failed, such as {status.points[place]}: {reason}")
    runs = run.path / FOLDER / "runs"
    return [tuple(TrainedRun(runs / name).policy.values()) for name in sorted(set(asked.values()))]
