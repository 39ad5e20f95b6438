"""Good policies of a run's network where the space is too large to enumerate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from waveq._files import write_json
from waveq._names import check_choice
from waveq.codesign.campaign import fingerprint, versions
from waveq.codesign.certainty import store_named
from waveq.codesign.frames import write_frame
from waveq.codesign.origins import record
from waveq.codesign.placement import STORE, Placement, own_bits, place
from waveq.codesign.protocol import Protocol, evaluation, require_choices
from waveq.codesign.score import OBJECTIVES, layer_energies, price_policies
from waveq.codesign.space import CHOICES, run_protocol
from waveq.codesign.training_gap import training_gap
from waveq.train.trained_run import TrainedRun

if TYPE_CHECKING:
    from stripes_sim import Accelerator

__all__ = ["DESCRIBED", "FOUND", "search_run"]

FOUND, DESCRIBED = "search.csv", "search.json"


def search_run(
    run: TrainedRun,
    hardware: Accelerator,
    *,
    choices: Sequence[int] = CHOICES,
    objective: str = "energy_pj",
    evaluations: int = 300,
    protocol: Protocol | None = None,
    floor: float | None = None,
    seed: int = 0,
    store: Path | None = None,
    retry_failed: bool = False,
    engine: str = "serial",
    progress: bool = True,
    **engine_options: Any,
) -> tuple[pd.DataFrame, pd.DataFrame, Placement | None]:
    """Measure the policies that are likely to lie on the frontier of accuracy and a cost; calling it again resumes.

    The run's own policy is measured first. Accuracies are kept where those of `enumerate_run` are: what one measured
    the other need not.

    Args:
        run: a finished run.
        hardware: the machine that prices policies.
        choices: bits that every quantised layer may take; each layer may also take the run's own.
        objective: one of `score.OBJECTIVES`.
        evaluations: how many policies of this space are measured in the end.
        protocol: how an accuracy is measured; by default as the run's enumeration measured it.
        floor: accuracy (percent) below which a policy is of no interest.
        seed: of the search.
        store: where accuracies are kept; by default RUN/enumeration.sqlite.
        retry_failed: forget which policies could not be evaluated.
        engine, progress, engine_options: see `pareto.run_campaign`.

    Returns:
        What is measured (bits by layer, accuracy in percent, costs; also RUN/search.csv), its frontier, and, where the
        objective is energy, how far the run's policy is from it.

    Raises:
        ValueError: an unknown objective; a store that belongs to another network, data or protocol.
    """
    import pareto

    check_choice("objective", objective, OBJECTIVES)
    require_choices(run.config, choices)
    chosen = protocol or run_protocol(run)
    evaluate = evaluation(run, chosen)
    names = evaluate.names
    own = own_bits(run.policy, names)
    space = pareto.DesignSpace({name: sorted({*choices, own[name]}) for name in names})
    identity = fingerprint(run, evaluate, chosen)

    def cost(policies: Any) -> Any:
        return price_policies(run, hardware, names, policies)[objective].to_numpy(dtype=np.float64)

    path = store or run.path / STORE
    with pareto.Store(path, layers=names, fingerprint=identity, versions=versions()) as results:
        found = pareto.search(
            space,
            evaluate.correct,
            cost=cost,
            cost_name=objective,
            include=np.array([list(own.values())], dtype=np.uint8),
            evaluations=evaluations,
            store=results,
            floor=floor,
            seed=seed,
            retry_failed=retry_failed,
            engine=engine,
            progress=progress,
            **engine_options,
        )
    frame = found.frame.drop(columns=objective)
    policies = frame[list(names)].to_numpy(dtype=np.uint8)
    frame = pd.concat([frame, price_policies(run, hardware, names, policies)], axis=1)
    front = pareto.frontier(frame, sense={"accuracy": "max", objective: "min"})
    front.attrs["layers"] = list(names)
    write_frame(run.path / FOUND, frame)
    described: dict[str, Any] = {
        "how": str(chosen),
        "hardware": hardware.name,
        "objective": objective,
        "choices": list(choices),
    }
    described |= {"evaluations": found.evaluations, "space": str(space.size), "ended": found.reason}
    described |= {"layer_energies": layer_energies(run, hardware, names, policies)}
    described |= store_named(path, run.path)
    write_json(run.path / DESCRIBED, {**described, "seed": seed, **identity, "versions": versions()})
    record(run.path, FOUND, [DESCRIBED, "policy.json"])
    if objective != "energy_pj":
        return frame, front, None
    placement = place(frame, front, own, store=path)
    gap = training_gap(run, identity, placement.own["accuracy"])
    return frame, front, replace(placement, training_gap=gap)
