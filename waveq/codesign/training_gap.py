"""How far a run's policy, measured as all policies are, lies below the network that was trained with its bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from waveq.train.trained_run import TrainedRun

__all__ = ["gap_sentence", "training_gap"]

_LEAST_POINTS, _LEAST_ERRORS = 1.0, 2.0


def training_gap(run: TrainedRun, described: Mapping[str, Any] | None, accuracy: float) -> dict[str, float] | None:
    """Both accuracies on the same images, where they are far apart.

    Args:
        run: a finished run.
        described: how policies were measured: enumeration.json or search.json.
        accuracy: percent, of the run's policy among them.

    Returns:
        Percents by name: "trained" (the final network), "float" (what every policy starts from), "measured". None where
        training has at most a point or two standard errors more, or was not measured on these images.
    """
    part = (described or {}).get("protocol", {}).get("part")
    if described is None or part not in ("validation", "test"):
        return None
    trained, measured = run.result[f"{part}_accuracy"], accuracy / 100
    error = ((trained * (1 - trained) + measured * (1 - measured)) / described["data"]["images"]) ** 0.5
    if 100 * (trained - measured) <= max(_LEAST_POINTS, 100 * _LEAST_ERRORS * error):
        return None
    return {"trained": 100 * trained, "float": 100 * run.result[f"float_{part}_accuracy"], "measured": accuracy}


def gap_sentence(gap: Mapping[str, float] | None) -> str:
    """What `training_gap` found, in words that begin with a space; nothing where it found nothing.

    Example:
        >>> print(gap_sentence({"trained": 91.0, "float": 62.0, "measured": 55.5}).strip())
        Trained with its bits it has 91.00 % on these images, 35.50 points more than the frontier gives it: there every
        policy starts from the float network, which has 62.00 %. Read ranks from it, not accuracies; more float training
        (waveq train --pretrain-epochs) or waveq enumerate --finetune-epochs bring the two together.
    """
    if gap is None:
        return ""
    return (
        f" Trained with its bits it has {gap['trained']:.2f} % on these images, {gap['trained'] - gap['measured']:.2f} "
        "points more than the frontier gives it: there every policy starts from the float network, which has "
        f"{gap['float']:.2f} %. Read ranks from it, not accuracies; more float training (waveq train "
        "--pretrain-epochs) or waveq enumerate --finetune-epochs bring the two together."
    )
