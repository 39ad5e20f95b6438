"""How sure a run's frontier is: from the images that each policy gets right, which the campaign's store keeps."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from waveq._reading import read_object

__all__ = [
    "ALIKE",
    "HIGH",
    "LOW",
    "MEMBERSHIP",
    "UNKNOWN",
    "Certainty",
    "band_of",
    "certainty_of",
    "certainty_sentences",
    "gap_words",
    "store_beside",
    "store_named",
]

MEMBERSHIP, ALIKE, LOW, HIGH = "membership", "alike", "accuracy_low", "accuracy_high"
UNKNOWN = "unknown"
_ERRORS = 2.0  # so many standard errors are a difference
_RARE = 0.05
_COUNTS = ("images", "draws", "frontier_groups", "frontier_half", "possible")


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """What other images would have made of a frontier, and of one policy."""

    told: dict[str, Any]
    """For frontier.json and `certainty_sentences`; ``{"unknown": reason}`` where nothing can be told."""
    membership: npt.NDArray[np.float64] | None = None
    """By row of the table: the share of draws in which the policy is efficient."""
    front: pd.DataFrame | None = None
    """The frontier, cheapest first, with the columns membership, alike (those with one number cannot be told apart),
    accuracy_low and accuracy_high (percent)."""


def certainty_of(
    store: Path, frame: pd.DataFrame, front: pd.DataFrame, layers: Sequence[str], cost: str, own: int | None
) -> Certainty:
    """Draw the images again.

    Args:
        store: of the campaign that measured the table.
        frame: policies, with the columns "accuracy" and ``cost``.
        front: the efficient rows of it.
        layers: the columns of bits.
        cost: the column that is minimised.
        own: which row, counted from 0, is the run's policy.

    Raises:
        ValueError: a damaged store.
    """
    from pareto import Store, alike_steps, frontier_certainty

    if not store.is_file():
        return Certainty(told={UNKNOWN: f"{store.name}, which has the measurements, is gone"})
    with Store.read(store) as results:
        if set(results.layers) != set(layers):
            return Certainty(told={UNKNOWN: f"{store.name} has other layers"})
        correct = results.correct(frame[list(results.layers)].to_numpy(dtype=np.uint8))
    if correct is None:
        return Certainty(told={UNKNOWN: f"{store.name} has accuracies alone, not which images each policy gets right"})
    if not np.allclose(100.0 * correct.mean(axis=1), frame["accuracy"].to_numpy(dtype=np.float64), atol=1e-6):
        return Certainty(told={UNKNOWN: f"{store.name} has other accuracies than the table"})
    costs = frame[cost].to_numpy(dtype=np.float64)
    found = frontier_certainty(correct, costs)
    rows = frame.index.get_indexer(front.index)
    rows = rows[np.argsort(costs[rows], kind="stable")]
    steps = np.searchsorted(found.costs, costs[rows])
    table = frame.iloc[rows].assign(
        **{
            MEMBERSHIP: found.membership[rows],
            ALIKE: alike_steps(correct[rows], errors=_ERRORS) + 1,
            LOW: found.low[steps],
            HIGH: found.high[steps],
        }
    )
    table.attrs = dict(front.attrs)
    told: dict[str, Any] = {
        "images": correct.shape[1],
        "draws": found.draws,
        "frontier_groups": int(table[ALIKE].iloc[-1]),
        "frontier_half": int((table[MEMBERSHIP] >= 0.5).sum()),
        "possible": int((found.membership >= _RARE).sum()),
    }
    if own is not None:
        told |= {MEMBERSHIP: float(found.membership[own]), **_compared(correct, costs, own)}
    return Certainty(told=told, membership=found.membership, front=table)


def _compared(correct: npt.NDArray[np.bool_], costs: npt.NDArray[np.float64], own: int) -> dict[str, Any]:
    """One policy against the best of those that cost no more, and against each of them."""
    from pareto import paired_difference

    rivals = np.flatnonzero(costs <= costs[own])
    difference, error = paired_difference(correct[rivals], correct[own])
    alike = (np.abs(difference) <= _ERRORS * error) | (difference == 0)
    return {"accuracy_gap_error": float(error[difference.argmax()]), "no_dearer_alike": int(alike.sum()) - 1}


def store_named(store: Path, folder: Path) -> dict[str, str]:
    """Where the measurements of a table are, for the description beside it."""
    return {"store": os.path.relpath(store, folder)}


def store_beside(folder: Path, described: str, usual: str) -> Path:
    """The store that `store_named` told of in FOLDER/described; the usual one where it is not said.

    Raises:
        ValueError: a damaged description.
    """
    path = folder / described
    name = read_object(path).get("store", usual) if path.exists() else usual
    if not isinstance(name, str):
        raise ValueError(f"{path}: damaged: store is {name!r}, a text is expected; remove it and its step runs again")
    return folder / name


def band_of(front: pd.DataFrame | None, cost: str) -> pd.DataFrame | None:
    """x, low and high of the band about a frontier, where it is known."""
    if front is None or not {LOW, HIGH} <= set(front.columns):
        return None
    return front[[cost, LOW, HIGH]].set_axis(["x", "low", "high"], axis=1).reset_index(drop=True)


def gap_words(told: Mapping[str, Any] | None) -> str:
    """The standard error of the gap of accuracy, to be put after it."""
    error = (told or {}).get("accuracy_gap_error")
    return "" if not isinstance(error, float) else f", standard error {error:.2f}"


def certainty_sentences(told: Mapping[str, Any] | None) -> list[str]:
    """What `Certainty.told` says, in words.

    Example:
        >>> certainty_sentences({"unknown": "enumeration.sqlite is gone"})
        ['How sure the frontier is cannot be told: enumeration.sqlite is gone.']
    """
    if not told or UNKNOWN in told or any(not isinstance(told.get(name), int) for name in _COUNTS):
        reason = (told or {}).get(UNKNOWN, "it was found by an older version, and has to be found again")
        return [f"How sure the frontier is cannot be told: {reason}."]
    groups = told["frontier_groups"]
    sentences = [
        f"Other images would move it: of {told['draws']:,} draws of {told['images']:,} images from these, "
        f"{told['possible']:,} policies are efficient in at least {100 * _RARE:.0f} %, and {told['frontier_half']:,} "
        f"of the frontier's in half. By paired errors the frontier has {groups} "
        f"{'group' if groups == 1 else 'groups'} of policies that can be told apart in accuracy."
    ]
    if isinstance(told.get(MEMBERSHIP), float):
        others = told["no_dearer_alike"]
        sentences.append(
            f"The learned policy is efficient in {100 * told[MEMBERSHIP]:.0f} % of the draws; {others:,} other "
            f"{'policy' if others == 1 else 'policies'} of at most its energy cannot be told apart from it in accuracy "
            f"(within {_ERRORS:g} standard errors)."
        )
    return sentences
