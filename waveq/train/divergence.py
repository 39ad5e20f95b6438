"""Training stops where numbers stop: at the first loss or weight that is NaN or infinite."""

from __future__ import annotations

import math

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

__all__ = ["Diverged", "StopsWhenDiverged", "first_without_numbers", "require_numbers"]

_TRY = "try a smaller lr, or clip_norm"


class Diverged(FloatingPointError):  # noqa: N818  (a state, as TrainingInterrupted is)
    """A loss or a weight that is no finite number; the text says where, and what to try."""


def first_without_numbers(network: nn.Module) -> str | None:
    """The name of the first parameter or buffer that holds NaN or infinity.

    Example:
        >>> first_without_numbers(nn.Linear(2, 2))
    """
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return name.replace("parametrizations.", "").removesuffix(".original")
    return None


def require_numbers(network: nn.Module, *, stage: str, step: int) -> None:
    """Before anything of the network is written.

    Raises:
        Diverged: some weight is NaN or infinite.
    """
    name = first_without_numbers(network)
    if name is not None:
        raise Diverged(f"training diverged: after step {step} of {stage}, {name} holds NaN or infinity; {_TRY}")


class StopsWhenDiverged(Callback):
    """Looks at every loss before its gradients are taken, penalties included: the weights are then still good.

    On a GPU, where each look would wait for the step, at so many losses at once.

    Args:
        stage: its name, for the error.
        every: steps between two looks on a GPU.
    """

    def __init__(self, stage: str, *, every: int) -> None:
        self._stage = stage
        self._every = every
        self._kept: list[tuple[int, Tensor]] = []

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Check, or keep for later."""
        step = trainer.global_step + 1
        if not loss.is_cuda:
            self._require(step, loss.item(), pl_module)
            return
        self._kept.append((step, loss.detach()))
        if len(self._kept) >= self._every:
            self.look(pl_module)

    def look(self, module: nn.Module) -> None:
        """Check what was kept.

        Raises:
            Diverged: names the first step whose loss is NaN or infinite.
        """
        kept, self._kept = self._kept, []
        if kept:
            for (step, _), value in zip(kept, torch.stack([loss for _, loss in kept]).tolist(), strict=True):
                self._require(step, value, module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch's result is measured after this."""
        self.look(pl_module)

    def _require(self, step: int, loss: float, module: nn.Module) -> None:
        if math.isfinite(loss):
            return
        name = first_without_numbers(getattr(module, "network", module))
        where = "all weights are finite" if name is None else f"{name} holds NaN or infinity"
        raise Diverged(f"training diverged: the loss of step {step} of {self._stage} is {loss} ({where}); {_TRY}")
