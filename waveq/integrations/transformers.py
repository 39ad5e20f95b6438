"""WaveQ in transformers' stock Trainer: the penalty's gradients before the optimizer's step, WaveQ's own after it.

A callback cannot add to the loss. So the penalty is differentiated by itself once an optimizer step, in
``on_pre_optimizer_step``: after the gradients of all micro-batches have come together, were unscaled and clipped. The
clipping bounds the task's gradients alone.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn
from torch.optim import Optimizer

from waveq._lazy import needed_by
from waveq.integrations._handle import HandleOwner, require_moved
from waveq.method.attachment import WaveQ, attach

with needed_by("waveq.integrations.transformers"):
    from transformers import TrainerCallback
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

__all__ = ["WaveQCallback"]


class WaveQCallback(HandleOwner, TrainerCallback):  # type: ignore[misc]
    """Trains with WaveQ in transformers' Trainer, as it is.

    Either ``WaveQCallback(bits="learn").add_to(trainer)``, which attaches, counts the steps of the run and hands
    ``wq.metrics()`` to the trainer's loggers (TensorBoard, W&B, MLflow); or ``Trainer(callbacks=[WaveQCallback(wq)])``,
    where ``trainer.state.log_history`` says what holds for the whole model, and the loggers hear nothing. Works with
    gradient accumulation, fp16, bf16, DDP, and ``resume_from_checkpoint``: the state travels in the model's buffers.

    Args:
        wq: what ``waveq.attach`` gave for the trainer's model, from before the optimizer was built.
        options: of ``waveq.attach``, where ``wq`` is None.

    Attributes:
        wave_loss: the last penalty, 0-dim.

    Raises:
        TypeError: a handle and options, or an unknown option.
        ValueError: at the start of training, where nothing was attached; where the optimizer was built before
            ``attach`` and scales are learned; where it moves none of the weights (steps within the backward pass, a
            model that ``model_init`` has made since); with DeepSpeed; with ``load_best_model_at_end`` of a peft model;
            where a checkpoint did not reach the handle; two callbacks with one handle.
    """

    _attaches: ClassVar[str] = "add_to(trainer)"

    def __init__(self, wq: WaveQ | None = None, **options: Any) -> None:
        super().__init__(wq, options)
        self._loggers: list[TrainerCallback] = []

    def add_to(self, trainer: Trainer) -> WaveQ:
        """Attach to the model of a trainer that is yet to train, and join its callbacks.

        Returns:
            The handle.

        Raises:
            ValueError: the steps of the run cannot be counted, because its data have no length.
        """
        if self._wq is None:
            options = self._options
            if options.get("total_steps") is None:
                options = {**options, "total_steps": _total_steps(trainer)}
            self._wq = attach(trainer.model, **options)
        callbacks = trainer.callback_handler.callbacks
        self._loggers = [each for each in callbacks if isinstance(each, tuple(INTEGRATION_TO_CALLBACK.values()))]
        # before whoever prints the row that it adds to; the trainer may have been made with it
        callbacks[:] = [self, *(each for each in callbacks if each is not self)]
        self.require_alone(callbacks)
        return self.wq

    # ------------------------------------------------------------------ the trainer's events

    def on_init_end(self, args: TrainingArguments, *_unused: Any, model: nn.Module, **_unused_too: Any) -> None:
        """Attach, where no handle was given; the optimizer is built in ``train()``."""
        if self._wq is None:
            steps = {"total_steps": args.max_steps} if args.max_steps > 0 else {}
            self._wq = attach(model, **(steps | self._options))

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        optimizer: Optimizer,
        **_unused: Any,
    ) -> None:
        """Refuse before the first step what would not learn."""
        if self._wq is None:
            raise ValueError("WaveQCallback came too late to attach: WaveQCallback(...).add_to(trainer), then train()")
        if args.deepspeed:
            raise ValueError("WaveQCallback needs gradients in .grad, where DeepSpeed does not keep them")
        if args.load_best_model_at_end and hasattr(self.wq._model, "peft_config"):
            raise ValueError(
                "checkpoints of a peft model hold the adapters alone, so that load_best_model_at_end would join one "
                "step's adapters with the bits and scales of another: train without it"
            )
        require_moved(self.wq, [optimizer])
        _tell_ties(self.wq._model, attached=True)
        if self.wq.steps < state.global_step:
            raise ValueError(
                f"the trainer goes on at step {state.global_step}, WaveQ at step {self.wq.steps}: the checkpoint was "
                "written without WaveQ, or loaded before the model was attached"
            )
        if self.wq.learning and self.wq.total_steps != state.max_steps:
            warnings.warn(
                f"the trainer's run has {state.max_steps} steps, attach() was told total_steps={self.wq.total_steps}",
                stacklevel=2,
            )

    def on_pre_optimizer_step(self, *_unused: Any, optimizer: Optimizer, **_unused_too: Any) -> None:
        """Add the penalty's gradients; those of the weights have been unscaled and clipped by now."""
        scaler = getattr(optimizer, "scaler", None)  # accelerate's, with fp16
        self.wave_loss = self.wq.backward_penalty(grad_scale=1.0 if scaler is None else scaler.get_scale())

    def on_optimizer_step(self, *_unused: Any, **_unused_too: Any) -> None:
        """Take WaveQ's own step."""
        self.wq.step()

    def on_train_end(self, *_unused: Any, **_unused_too: Any) -> None:
        """Leave the model's ties as they were."""
        _tell_ties(self.wq._model, attached=False)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float],
        **others: Any,
    ) -> None:
        """Add what holds for the whole model to a row of training; the loggers get every layer's numbers too."""
        if "loss" not in logs or not state.is_world_process_zero:
            return
        row = self.row()
        whole = {name: value for name, value in row.items() if "/" not in name}
        logs.update(whole)
        state.log_history[-1].update(whole)
        for each in self._loggers:
            each.on_log(args, state, control, logs={name: row[name] for name in row if name not in whole}, **others)


def _total_steps(trainer: Trainer) -> int:
    """Optimizer steps of ``trainer.train()``, as the trainer will count them."""
    args = trainer.args
    if args.max_steps > 0:
        return int(args.max_steps)
    try:
        batches = len(trainer.get_train_dataloader())
    except TypeError:
        raise ValueError("the data have no length: give WaveQCallback total_steps, or the trainer max_steps") from None
    steps: int = math.ceil(args.num_train_epochs * max(1, -(-batches // args.gradient_accumulation_steps)))
    return steps


def _tell_ties(model: nn.Module, *, attached: bool) -> None:
    """Name tied weights as they are called while attached: files of safetensors take no tensor under two names.

    transformers leaves out what stands in ``_tied_weights_keys`` when it writes a checkpoint.
    """
    for module in model.modules():
        module.__dict__.pop("_tied_weights_keys", None)
        tied = getattr(module, "_tied_weights_keys", None)
        if attached and tied:
            module.__dict__["_tied_weights_keys"] = tied | {_inner(one): _inner(other) for one, other in tied.items()}


def _inner(name: str) -> str:
    """``lm_head.weight`` as ``lm_head.parametrizations.weight``; names of modules stay, whose tensors all match."""
    owner, _, tensor = name.rpartition(".")
    return f"{owner}.parametrizations.{tensor}" if tensor in ("weight", "bias") else name
