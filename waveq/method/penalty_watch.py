"""Whether the penalty takes part in training: it is called, and a backward pass goes through it."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

__all__ = ["PenaltyWatch"]

_NEVER_CALLED = (
    "step() after an optimizer has moved the weights, but penalty() was never called: no wave acts on the weights and "
    "no price on the bits. Add it to the loss: loss = task_loss + wq.penalty()."
)
_NEVER_BACKWARD = (
    "penalty() was called, but no backward pass has gone through it: no wave acts on the weights and no price on the "
    "bits. Add it to the loss before backward(): loss = task_loss + wq.penalty(); loss.backward()."
)
_NO_GRADIENTS = (
    "step() found no gradients on the weights, so that the wave's strength cannot be measured and the wave stays off: "
    "call wq.step() after optimizer.step() and before zero_grad()."
)


class PenaltyWatch:
    """What became of the penalties of one handle.

    Args:
        versions: the weights' versions at present, added up.

    Attributes:
        works: whether a backward pass has gone through one, ever.
        finding: what to say of the bits if it has not; empty while there is nothing to say.
    """

    def __init__(self, versions: int) -> None:
        self.works = self._called = self._told_of_gradients = False
        self._reached = False  # since the last step
        self._versions = versions
        self.finding = ""

    def follow(self, total: Tensor) -> None:
        """A penalty was made."""
        self._called = True
        if torch.compiler.is_compiling():
            self.works = True  # nobody can tell: a compiled graph takes no notes
        elif total.requires_grad:
            total.register_hook(self._note)  # type: ignore[no-untyped-call]

    def judge(self, *, versions: int, trained: bool, needed: bool, missing: bool) -> None:
        """At a step: warn, once, of a penalty that takes no part.

        Args:
            versions: of the weights; where they stand still nothing was missed.
            trained: whether an optimizer has stepped over the weights.
            needed: whether the strengths ask for a penalty.
            missing: whether gradients were looked for in vain.
        """
        moved, self._versions = versions != self._versions, versions
        reached, self._reached = self._reached, False
        if reached and missing and moved and not self._told_of_gradients:
            self._told_of_gradients = True
            warnings.warn(_NO_GRADIENTS, stacklevel=4)
        if self.works or self.finding or not (needed and trained):
            return
        self.finding = _NEVER_BACKWARD if self._called else _NEVER_CALLED
        warnings.warn(self.finding, stacklevel=4)  # the caller of ``step``

    def _note(self, _gradient: Tensor) -> None:
        self.works = self._reached = True
        self.finding = ""
