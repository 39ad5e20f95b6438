"""WaveQ in any LightningModule: attached before the optimizers are made, the penalty in the loss, a step of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor
from torch.optim import Optimizer

from waveq._lazy import needed_by
from waveq._names import nearest
from waveq.integrations import _averaging
from waveq.integrations._handle import HandleOwner, require_moved
from waveq.method.checkpoint import ROOT_STATE
from waveq.method.fingerprint import steps_told

with needed_by("waveq.integrations.lightning"):
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import BatchSizeFinder, GradientAccumulationScheduler
    from lightning.pytorch.utilities.model_helpers import is_overridden

if TYPE_CHECKING:
    from waveq.method.handle import WaveQ

__all__ = ["WaveQCallback"]


class WaveQCallback(HandleOwner, Callback):
    """Trains with WaveQ in any LightningModule: adds the penalty to the loss, counts the optimizer's steps, logs.

    Works with gradient accumulation, clipping (which sees task and penalty together), 16-bit precision and DDP, with
    averaged weights (their bits are the run's) and Tuner. The state travels in the module's own checkpoint, because it
    lives in the model's buffers. The trainer's loggers get ``wq.metrics()`` and "wave_loss".

    Args:
        wq: what ``waveq.attach`` gave for the module's network. None attaches when ``fit`` begins: once data and module
            are there, after the module's own ``setup`` and ``configure_model``, before weights are restored and
            optimizers made. ``validate``, ``test`` and ``predict`` attach where they are given a checkpoint of one
            that was attached.
        network: where ``wq`` is None, the attribute of the module that is attached, with dots where it lies deeper; by
            default the module itself.
        log_every: optimizer steps between two rows for the loggers; None is the trainer's ``log_every_n_steps``, 0
            logs nothing.
        options: of ``waveq.attach``; ``total_steps`` is counted where it is not given and the trainer's run has an end.

    Attributes:
        wave_loss: the last penalty, 0-dim.

    Raises:
        TypeError: a handle and options, or an unknown option.
        ValueError: at the start of training, for a module with manual optimization or without that network, a batch
            size that is to be found after steps were counted, two callbacks with one handle, or an optimizer that was
            built before ``attach`` where scales are learned.

    Example:
        >>> import torch, waveq
        >>> wq = waveq.attach(torch.nn.Sequential(torch.nn.Linear(4, 2)), bits=3)
        >>> WaveQCallback(wq).wave_loss
        tensor(0.)
        >>> WaveQCallback(bit=3)
        Traceback (most recent call last):
        TypeError: 'bit' is no option of attach(); did you mean 'bits'?
    """

    _attaches: ClassVar[str] = "trainer.fit()"

    def __init__(
        self, wq: WaveQ | None = None, *, network: str = "", log_every: int | None = None, **options: Any
    ) -> None:
        super().__init__(wq, options)
        self._network, self._log_every = network, log_every
        self._counted: int | None = None  # steps, where nobody told them
        self._waiting: Callable[..., None] | None = None
        self._seen_steps = 0
        self._grad_scale = 1.0

    # ------------------------------------------------------------------ attaching

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach, where no handle was given, as soon as the module has all its layers."""
        _averaging.come_first(trainer, self)
        if stage != "fit":
            if self._wq is None:  # the network as it is, unless it is given the weights of one that was attached
                self._waiting = _after(pl_module, "on_load_checkpoint", partial(self._attach_as, trainer, pl_module))
            return
        counts = self._options.get("total_steps") is None and (self._wq is None or self._counted)
        counted = _count_steps(trainer) if counts else None
        if self._wq is not None and self._counted and self.wq.steps == 0 and counted != self._counted:
            self._wq.remove()  # it was for a Tuner, which has found other batches since
            self._wq = None
        if self._wq is None:
            self._counted = counted
            then = partial(self._attach, trainer, pl_module, counted)
            if is_overridden("setup", pl_module) or is_overridden("configure_model", pl_module):
                _after(pl_module, "configure_model", then)  # it may make layers in either
            else:
                then()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait for no checkpoint any longer."""
        if self._waiting is not None and pl_module.__dict__.get("on_load_checkpoint") is self._waiting:
            del pl_module.on_load_checkpoint
        self._waiting = None

    def _attach_as(self, trainer: Trainer, pl_module: LightningModule, checkpoint: Mapping[str, Any]) -> None:
        """Attach where a checkpoint is one of an attached network."""
        state = checkpoint["state_dict"]
        if any(key.endswith(ROOT_STATE) for key in state):
            self._attach(trainer, pl_module, steps_told(state))

    def _attach(self, trainer: Trainer, pl_module: LightningModule, counted: int | None) -> None:
        from waveq.method.attachment import attach  # half a second

        try:
            network = pl_module.get_submodule(self._network)
        except AttributeError:
            known = [name for name, _ in pl_module.named_modules() if name]
            raise ValueError(
                f"WaveQCallback(network={self._network!r}): {type(pl_module).__name__} has no such module"
                f"{nearest(self._network, known)}"
            ) from None
        steps = {} if self._options.get("total_steps") is not None else {"total_steps": counted}
        self._wq = attach(network, **(self._options | steps))
        _averaging.copy_anew(trainer, pl_module)

    # ------------------------------------------------------------------ the trainer's events

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that Lightning will tell us about every step."""
        if not pl_module.automatic_optimization:
            raise ValueError("WaveQCallback needs automatic optimization; with manual, call wq.penalty() and wq.step()")
        require_moved(self.wq, trainer.optimizers)
        self.require_alone(trainer.callbacks)  # type: ignore[attr-defined]  # the callback connector sets it
        self._seen_steps = trainer.global_step
        _go_on_in_data(trainer)

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
        if trainer.fit_loop._skip_backward:
            return  # the epoch in which averaged weights get their batch norm
        self.wq.step(grad_scale=self._grad_scale)
        usual: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # the logger connector sets it
        every = usual if self._log_every is None else self._log_every
        if every and trainer.global_step % every == 0 and trainer.loggers:
            row = self.row()
            for logger in trainer.loggers:
                logger.log_metrics(row, step=trainer.global_step)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Averaged weights that are about to be validated have the run's bits."""
        self._keep_state(trainer, pl_module)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """So have those that are about to be written."""
        self._keep_state(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """And those that are about to become the module's."""
        self._keep_state(trainer, pl_module)

    def _keep_state(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._wq is not None and trainer.state.fn == "fit":
            _averaging.keep_state(trainer, pl_module, self._wq)


def _after(pl_module: LightningModule, hook: str, then: Callable[..., None]) -> Callable[..., None]:
    """Have ``then`` called with what a hook of the module gets, after it and once."""
    own = getattr(pl_module, hook)

    def both(*given: Any) -> None:
        own(*given)
        delattr(pl_module, hook)  # the module's own again
        then(*given)

    setattr(pl_module, hook, both)
    return both


def _count_steps(trainer: Trainer) -> int | None:
    """Optimizer steps of the whole run; None where nobody can count them.

    Raises:
        ValueError: the batches will change afterwards.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(each, BatchSizeFinder) and not each._early_exit for each in callbacks):
        raise ValueError(
            "BatchSizeFinder changes the steps of the run after WaveQCallback has counted them: find the size before "
            "fit(), by Tuner(trainer).scale_batch_size(module), or give WaveQCallback total_steps"
        )
    steps, batches = trainer.estimated_stepping_batches, trainer.num_training_batches
    epochs = range(trainer.max_epochs or 0)
    for each in callbacks:  # Lightning itself counts as if the first epoch's accumulation were that of all
        if isinstance(each, GradientAccumulationScheduler) and epochs and batches < math.inf:
            planned = sum(math.ceil(batches / each.get_accumulate_grad_batches(epoch)) for epoch in epochs)
            steps = planned if trainer.max_steps == -1 else min(planned, trainer.max_steps)
    return int(steps) if 0 < steps < math.inf else None


def _go_on_in_data(trainer: Trainer) -> None:
    """Tell data with a state their place in a checkpoint.

    Lightning does when it loads them; but counting the steps has loaded them before the checkpoint was read.
    """
    loop = trainer.fit_loop
    if loop._combined_loader_states_to_load and loop._data_fetcher is not None:
        loop._load_combined_loader_states()
        iter(loop._data_fetcher)
