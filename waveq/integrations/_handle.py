"""What the callbacks of all trainers share: the handle, its row for loggers, whether the optimizer came too early."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch.optim import Optimizer

from waveq._names import nearest
from waveq.method.options import Method

if TYPE_CHECKING:
    from waveq.method.handle import WaveQ

__all__ = ["HandleOwner", "require_moved"]


class HandleOwner:
    """Has a handle, or what ``attach`` needs for one.

    Attributes:
        wave_loss: the last penalty, 0-dim.
    """

    _attaches: ClassVar[str]
    """The call that attaches, to be named where it has not been made yet."""

    def __init__(self, wq: WaveQ | None, options: Mapping[str, Any]) -> None:
        _check_options(wq, options)
        self._wq = wq
        self._options = dict(options)
        self.wave_loss = torch.zeros(())

    @property
    def wq(self) -> WaveQ:
        """The handle.

        Raises:
            RuntimeError: nothing is attached yet.
        """
        if self._wq is None:
            raise RuntimeError(f"WaveQCallback has attached nothing yet: {self._attaches} does")
        return self._wq

    def row(self) -> dict[str, float]:
        """What loggers are told: ``wq.metrics()`` and the last penalty."""
        return self.wq.metrics() | {"wave_loss": float(self.wave_loss)}

    def require_alone(self, callbacks: Iterable[object]) -> None:
        """Refuse a trainer in which more than one callback would take the steps of this handle.

        Raises:
            ValueError: there are two, or one stands there twice.
        """
        if sum(isinstance(each, HandleOwner) and each._wq is self._wq for each in callbacks) > 1:
            raise ValueError("two WaveQCallbacks of one handle would take two steps at a time: give the trainer one")


def _check_options(wq: WaveQ | None, options: Mapping[str, Any]) -> None:
    """Either a handle or options for ``attach``, which it knows.

    Raises:
        TypeError: both, or an unknown option.
    """
    known = [option.name for option in fields(Method)]
    for name in options:
        if name not in known:
            raise TypeError(f"{name!r} is no option of attach(){nearest(name, known)}")
    if wq is not None and options:
        raise TypeError(f"WaveQCallback got a handle and options for attach() ({', '.join(options)}): give one of them")


def require_moved(wq: WaveQ, optimizers: Iterable[Optimizer]) -> None:
    """Refuse to train where no optimizer moves the attached weights, or not what is learned beside them.

    Warns of layers that none moves while others are trained.

    Raises:
        RuntimeError: the model was finalised, or the method removed from it.
        ValueError: names layers.
    """
    wq._require_live("train")
    moved = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    trained = [layer for layer in wq._all if layer.weight.requires_grad]
    if trained and not any(id(layer.weight) in moved for layer in trained):
        raise ValueError(
            "the optimizer moves none of the weights that were attached: it is of another model, or takes its steps "
            "within the backward pass, before there is a penalty"
        )
    if left := [layer.name for layer in trained if id(layer.weight) not in moved]:
        warnings.warn(
            f"no optimizer moves the weights of {', '.join(left)}, which are quantised and get bits all the same: "
            "leave the layers out by skip=, or turn requires_grad off where the weights are to stay",
            stacklevel=2,
        )
    still = [
        layer.name
        for layer in trained
        if id(layer.weight) in moved and any(p.requires_grad and id(p) not in moved for p in layer.state.parameters())
    ]
    if still:
        raise ValueError(
            f"the optimizer was built before attach() and lacks what {wq.settings.quantizer} learns beside the weights "
            f'(scales, ranges) of {", ".join(still)}: build it afterwards, or attach with quantizer="dorefa", which '
            "learns none"
        )
