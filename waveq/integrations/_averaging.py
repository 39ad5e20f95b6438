"""Lightning's averaged copies of a module: made of what is attached, with the run's own bits.

Averages of bits, of steps and of betas are none of any run. So before such a copy is validated, written or taken over,
it is given the state of the run as it is; its weights and learned scales stay averages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from torch import Tensor

from waveq.method.checkpoint import ROOT_COUNTS, ROOT_SEAL, ROOT_STATE

if TYPE_CHECKING:
    from waveq.method.handle import WaveQ

__all__ = ["come_first", "copy_anew", "keep_state"]

_Averaging = StochasticWeightAveraging | WeightAveraging


def come_first(trainer: Trainer, callback: Callback) -> None:
    """Put a callback before those that average, whose events it must precede."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if any(True for _ in _averaging(callbacks[: callbacks.index(callback)])):
        # another list: the trainer is going through the present one
        trainer.callbacks = [callback, *(each for each in callbacks if each is not callback)]  # type: ignore[attr-defined]


def copy_anew(trainer: Trainer, pl_module: LightningModule) -> None:
    """Replace the copies that were made before the module was attached."""
    for each in _averaging(trainer.callbacks):  # type: ignore[attr-defined]
        if each._average_model is not None:
            each.setup(trainer, pl_module, "fit")


@torch.no_grad()
def keep_state(trainer: Trainer, pl_module: LightningModule, wq: WaveQ) -> None:
    """Give the averaged copies the buffers of the method as they are in the module."""
    for each in _averaging(trainer.callbacks):  # type: ignore[attr-defined]
        if isinstance(each, WeightAveraging) and each._average_model is not None:
            kept = {id(buffer) for buffer in _state(wq)}
            theirs = dict(each._average_model.module.named_buffers())
            for name, buffer in pl_module.named_buffers():
                if id(buffer) in kept:
                    theirs[name].copy_(buffer)


def _state(wq: WaveQ) -> Iterator[Tensor]:
    for layer in wq._all:
        yield from layer.state.buffers()
    for name in (*ROOT_STATE, ROOT_SEAL, ROOT_COUNTS):
        if name in wq._model._buffers:
            yield wq._model.get_buffer(name)


def _averaging(callbacks: list[Callback]) -> Iterator[_Averaging]:
    return (each for each in callbacks if isinstance(each, _Averaging))
