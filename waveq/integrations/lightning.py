"""WaveQ in any LightningModule: attached before the optimizers are made, the penalty in the loss, a step of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from waveq._extras import needed_by
from waveq.integrations._handle import check_options, require_moved

with needed_by("waveq.integrations.lightning"):
    from lightning.pytorch import Callback, LightningModule, Trainer

if TYPE_CHECKING:
    from waveq.method.handle import WaveQ

__all__ = ["WaveQCallback"]


class WaveQCallback(Callback):
    """Trains with WaveQ in any LightningModule: adds the penalty to the loss, counts the optimizer's steps, logs.

    Works with gradient accumulation, clipping (which sees task and penalty together), 16-bit precision and DDP. The
    state travels in the module's own checkpoint, because it lives in the model's buffers. The trainer's loggers get
    ``wq.metrics()`` and "wave_loss".

    Args:
        wq: what ``waveq.attach`` gave for the module's network. None attaches in ``setup``: once data and module are
            there, before weights are restored and optimizers made.
        network: where ``wq`` is None, the attribute of the module that is attached, with dots where it lies deeper; by
            default the module itself.
        log_every: optimizer steps between two rows for the loggers; None is the trainer's ``log_every_n_steps``, 0
            logs nothing.
        options: of ``waveq.attach``; ``total_steps`` is counted where it is not given and the trainer's run has an end.

    Attributes:
        wave_loss: the last penalty, 0-dim.

    Raises:
        TypeError: a handle and options, or an unknown option.
        ValueError: at the start of training, for a module with manual optimization, or an optimizer that was built
            before ``attach`` where scales are learned.

    Example:
        >>> import waveq
        >>> wq = waveq.attach(torch.nn.Sequential(torch.nn.Linear(4, 2)), bits=3)
        >>> WaveQCallback(wq).wave_loss
        tensor(0.)
        >>> WaveQCallback(bit=3)
        Traceback (most recent call last):
        TypeError: 'bit' is no option of attach(); did you mean 'bits'?
    """

    def __init__(
        self, wq: WaveQ | None = None, *, network: str = "", log_every: int | None = None, **options: Any
    ) -> None:
        check_options(wq, options)
        self._wq = wq
        self.wave_loss = torch.zeros(())
        self._network, self._options, self._log_every = network, options, log_every
        self._seen_steps = 0
        self._grad_scale = 1.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach, where no handle was given."""
        if self._wq is not None:
            return
        from waveq.method.attachment import attach  # half a second

        options = self._options
        if stage == "fit" and options.get("total_steps") is None:
            steps = trainer.estimated_stepping_batches  # -1 or inf where nobody can count them
            options = {**options, "total_steps": int(steps) if 0 < steps < math.inf else None}
        self._wq = attach(pl_module.get_submodule(self._network), **options)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that Lightning will tell us about every step."""
        if not pl_module.automatic_optimization:
            raise ValueError("WaveQCallback needs automatic optimization; with manual, call wq.penalty() and wq.step()")
        require_moved(self.wq, trainer.optimizers)
        self._seen_steps = trainer.global_step

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Add the penalty to the loss that is about to be differentiated."""
        penalty = self.wq.penalty()
        self.wave_loss = penalty.detach()
        scaler = getattr(trainer.precision_plugin, "scaler", None)  # "16-mixed": the loss has been scaled already
        loss.add_((penalty if scaler is None else scaler.scale(penalty)) / trainer.accumulate_grad_batches)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Note what the betas' gradients are scaled with, before the scaler changes its mind."""
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._grad_scale = 1.0 if scaler is None else scaler.get_scale()

    def on_train_batch_end(self, trainer: Trainer, *_unused: object) -> None:
        """Take WaveQ's own step whenever the optimizer took one, and log where a row is due."""
        if trainer.global_step == self._seen_steps:
            return
        self._seen_steps = trainer.global_step
        self.wq.step(grad_scale=self._grad_scale)
        usual: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # the logger connector sets it
        every = usual if self._log_every is None else self._log_every
        if every and trainer.global_step % every == 0 and trainer.loggers:
            row = self.wq.metrics() | {"wave_loss": float(self.wave_loss)}
            for logger in trainer.loggers:
                logger.log_metrics(row, step=trainer.global_step)

    @property
    def wq(self) -> WaveQ:
        """The handle.

        Raises:
            RuntimeError: nothing is attached yet.
        """
        if self._wq is None:
            raise RuntimeError("WaveQCallback has attached nothing yet: trainer.fit() does")
        return self._wq
