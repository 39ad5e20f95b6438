"""WaveQ in any LightningModule: the penalty in the loss, and WaveQ's own step after the optimizer's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

if TYPE_CHECKING:
    from waveq.method.handle import WaveQ

__all__ = ["WaveQCallback"]


class WaveQCallback(Callback):
    """Trains with WaveQ in any LightningModule: adds the penalty to the loss, counts the optimizer's steps.

    Works with gradient accumulation, clipping, bf16 and DDP. The state travels in the module's own checkpoint, because
    it lives in the model's buffers.

    Args:
        wq: what `waveq.attach` gave for the module's network.

    Raises:
        ValueError: at the start of training, for a module with manual optimization or "16-mixed" precision.

    Example:
        >>> import waveq
        >>> wq = waveq.attach(torch.nn.Sequential(torch.nn.Linear(4, 2)), bits=3)
        >>> WaveQCallback(wq).wave_loss
        tensor(0.)
    """

    def __init__(self, wq: WaveQ) -> None:
        self.wq = wq
        self.wave_loss = torch.zeros(())
        self._seen_steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that Lightning will tell us about every step."""
        if not pl_module.automatic_optimization:
            raise ValueError("WaveQCallback needs automatic optimization; with manual, call wq.penalty() and wq.step()")
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise ValueError('precision "16-mixed" scales the loss; use "bf16-mixed" with WaveQCallback')
        self._seen_steps = trainer.global_step

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Add the penalty to the loss that is about to be differentiated."""
        penalty = self.wq.penalty()
        self.wave_loss = penalty.detach()
        loss.add_(penalty / trainer.accumulate_grad_batches)

    def on_train_batch_end(self, trainer: Trainer, *_unused: object) -> None:
        """Take WaveQ's own step whenever the optimizer took one."""
        if trainer.global_step > self._seen_steps:
            self._seen_steps = trainer.global_step
            self.wq.step()
