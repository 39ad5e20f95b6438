"""A learned step changes by a tenth of itself in one optimizer step at most: it can neither vanish nor run away.

A channel whose weights all round to zero has no variance behind it, and batch norm divides by the root of its epsilon:
one such channel gives a layer's step a gradient hundreds of times as long as usual. The optimizer moves the step by a
fifth of itself for it, and momentum by as much again several times; below zero, where the step is held at almost zero,
the gradient is a million times as long, and the step never comes back. The published recipe has no remedy. Steps in use
are far below the bound: they move by a percent or two.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from waveq.method.settings import WaveLayer

__all__ = ["MOST_CHANGE", "StepBounds"]

MOST_CHANGE = 0.1
"""Of a learned step, in one step of the optimizer."""
_NOTHING = 1e-4  # that a step may grow to at once: a layer that begins with zeros has none yet


class StepBounds:
    """The learned steps of one model, held whenever one of torch's optimizers steps.

    Args:
        layers: what ``attach`` made.
    """

    def __init__(self, layers: Sequence[WaveLayer]) -> None:
        quantizers = [each for layer in layers for each in (layer.state.quantizer, layer.state.activation)]
        held = {id(each): each for each in quantizers if each is not None and each.bounded}
        self._steps: list[Tensor] = [getattr(each, name) for each in held.values() for name in each.bounded]
        self._before: tuple[Tensor, ...] | list[Tensor] = ()
        self._moving: list[Tensor] = []
        _held.add(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # a copy's steps are held too
        _held.add(self)

    @torch.no_grad()
    def remember(self, optimizer: Optimizer) -> None:
        """The optimizer is about to step; of the learned steps its own are held, nobody writes into the others."""
        if self._steps:
            its = {id(each) for group in optimizer.param_groups for each in group["params"]}
            self._moving = [step for step in self._steps if id(step) in its]
        self._before = torch._foreach_mul(self._moving, 1.0) if self._moving else ()

    @torch.no_grad()
    def hold(self) -> None:
        """The optimizer has stepped."""
        if self._before:
            most = torch._foreach_mul(self._before, 1.0 + MOST_CHANGE)
            torch._foreach_clamp_min_(most, _NOTHING)
            least = torch._foreach_mul(self._before, 1.0 / (1.0 + MOST_CHANGE))
            torch._foreach_minimum_(self._moving, most)
            torch._foreach_maximum_(self._moving, least)
            self._before = ()

    def remove(self) -> None:
        """The method is taken off the model."""
        self._steps, self._moving = [], []
        _held.discard(self)


_held: weakref.WeakSet[StepBounds] = weakref.WeakSet()


def _before_step(optimizer: Optimizer, *_unused: Any) -> None:
    for each in list(_held):
        each.remember(optimizer)


def _after_step(_optimizer: Optimizer, *_unused: Any) -> None:
    for each in list(_held):
        each.hold()


register_optimizer_step_pre_hook(_before_step)
register_optimizer_step_post_hook(_after_step)
