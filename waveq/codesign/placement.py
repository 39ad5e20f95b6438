"""Where a policy lies among all policies: the frontier of accuracy and energy, and how far from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from waveq._files import write_json
from waveq._reading import read_object
from waveq.codesign.certainty import Certainty, certainty_of, store_beside
from waveq.codesign.frames import write_frame
from waveq.codesign.origins import record
from waveq.codesign.training_gap import training_gap
from waveq.method.operand_names import input_name
from waveq.policy import Policy
from waveq.train.trained_run import TrainedRun

__all__ = [
    "DESCRIBED",
    "FRONT",
    "PLACED",
    "SENSE",
    "STORE",
    "TABLE",
    "Placement",
    "own_bits",
    "place",
    "place_run",
]

SENSE = {"accuracy": "max", "energy_pj": "min"}
TABLE, FRONT, PLACED = "policies.csv", "frontier.csv", "frontier.json"
STORE, DESCRIBED = "enumeration.sqlite", "enumeration.json"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a policy lies among all policies."""

    frame: pd.DataFrame
    front: pd.DataFrame
    """The efficient rows, with the columns of `Certainty.front` where those are known."""
    own: dict[str, float]
    """Accuracy (percent) and costs of the run's policy under the common protocol."""
    efficient: bool
    """Whether no policy is better in one objective and not worse in the other."""
    accuracy_gap: float
    """Points of accuracy that the best policy of at most the same energy has more; 0 on the frontier."""
    energy_gap_pj: float
    """Energy that the cheapest policy of at least the same accuracy needs less; 0 on the frontier."""
    certainty: Certainty | None = None
    """What other images would have made of it; None where no store was named."""
    training_gap: Mapping[str, float] | None = None
    """What training with the policy's bits reached, where that is far above; see `training_gap`."""

    def summary(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "policies": len(self.frame),
            "frontier": len(self.front),
            "own": self.own,
            "efficient": self.efficient,
            "accuracy_gap": self.accuracy_gap,
            "energy_gap_pj": self.energy_gap_pj,
            "certainty": None if self.certainty is None else self.certainty.told,
            "training_gap": self.training_gap,
        }


def own_bits(policy: Policy, columns: Iterable[str]) -> dict[str, int]:
    """A policy's bits in the columns of a table of policies: of layers, and of inputs ("conv1 (inputs)").

    Args:
        policy: of the run.
        columns: any; those that are neither are left out.

    Example:
        >>> own_bits(Policy({"a": 3, "b": 4}, activation_bits={"b": 2}), ["a", "b", "b (inputs)", "accuracy"])
        {'a': 3, 'b': 4, 'b (inputs)': 2}
    """
    known = dict(policy) | {input_name(name): bits for name, bits in policy.activation_bits.items()}
    return {name: known[name] for name in columns if name in known}


def place_run(run: TrainedRun, frame: pd.DataFrame, folder: Path | None = None) -> Placement:
    """The frontier of accuracy and energy, and the run's policy against it.

    Args:
        run: a finished run.
        frame: its table of policies, RUN/policies.csv.
        folder: where frontier.csv and frontier.json are written; None is the run's own, which then knows what they were
            made from.

    Raises:
        ValueError: the run's policy is not in the table; nothing is written.
    """
    from pareto import frontier

    front = frontier(frame, sense=SENSE)
    store = store_beside(run.path, DESCRIBED, STORE)
    placement = place(frame, front, own_bits(run.policy, frame.columns), store=store)
    described = read_object(run.path / DESCRIBED) if (run.path / DESCRIBED).exists() else None
    placement = replace(placement, training_gap=training_gap(run, described, placement.own["accuracy"]))
    target = folder or run.path
    write_frame(target / FRONT, placement.front)
    write_json(target / PLACED, placement.summary())
    if target.resolve() == run.path.resolve():
        for name in (FRONT, PLACED):
            record(run.path, name, [TABLE, "policy.json"])
    return placement


def place(
    frame: pd.DataFrame, front: pd.DataFrame, policy: Mapping[str, int], *, store: Path | None = None
) -> Placement:
    """Find a policy in a table of policies, and how far it is from the frontier of accuracy and energy.

    Args:
        frame: one row a policy, with accuracy and energy_pj.
        front: the efficient rows of it.
        policy: bits by column.
        store: of the campaign that measured them, for how sure all that is.

    Raises:
        ValueError: the policy is not in the table.
    """
    found = np.ones(len(frame), dtype=np.bool_)
    for name, bits in policy.items():
        found &= frame[name].to_numpy() == bits
    if not found.any():
        raise ValueError(f"policy {dict(policy)} is not among the {len(frame)} policies of the table")
    own = frame[found].iloc[0]
    accuracy, energy = float(own["accuracy"]), float(own["energy_pj"])
    better = frame[frame["energy_pj"] <= energy]["accuracy"].max() - accuracy
    cheaper = energy - frame[frame["accuracy"] >= accuracy]["energy_pj"].min()
    row = int(found.argmax())
    sure = None if store is None else certainty_of(store, frame, front, list(policy), "energy_pj", row)
    metrics = [column for column in ("accuracy", "energy_pj", "cycles", "weight_bytes") if column in frame.columns]
    return Placement(
        frame=frame,
        front=front if sure is None or sure.front is None else sure.front,
        own={column: float(own[column]) for column in metrics},
        efficient=bool(better <= 0 and cheaper <= 0),
        accuracy_gap=float(better),
        energy_gap_pj=float(cheaper),
        certainty=sure,
    )
