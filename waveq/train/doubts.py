"""What makes learned bits doubtful whatever comes out, and what only a network that got worse does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Doubts", "is_worse"]

_ERRORS = 2.0  # standard errors; fewer are a difference that other held-out images of the same kind would turn round


@dataclass(frozen=True)
class Doubts:
    """The findings of ``wq.diagnose()`` before the trained network is judged.

    Attributes:
        anyway: with ``task_kept``: what is doubtful however good the network is.
        otherwise: without: what is doubtful if it got worse.
    """

    anyway: Sequence[str]
    otherwise: Sequence[str]

    def and_then(self, later: Doubts) -> Doubts:
        """Those of the search, then those of the run with its bits."""
        return Doubts([*self.anyway, *later.anyway], [*self.otherwise, *later.otherwise])

    def left(self, accuracies: Mapping[str, float], *, images: int) -> list[str]:
        """Those that the validation images leave standing; test images decide nothing.

        Args:
            accuracies: "float_validation_accuracy" and "validation_accuracy", shares of 1.
            images: in the validation part.
        """
        before, after = accuracies["float_validation_accuracy"], accuracies["validation_accuracy"]
        return list(self.otherwise if is_worse(before, after, images) else self.anyway)


def is_worse(before: float, after: float, images: int) -> bool:
    """Whether an accuracy fell by more than chance: two standard errors of the difference of two binomial shares.

    Args:
        before, after: shares of 1, on so many images each.
        images: how many.

    Example:
        >>> is_worse(1.00, 0.979, 143), is_worse(1.00, 0.979, 1430)
        (False, True)
    """
    error = math.sqrt((before * (1.0 - before) + after * (1.0 - after)) / images)
    return before - after > _ERRORS * error
