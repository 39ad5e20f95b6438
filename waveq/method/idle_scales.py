"""Learned scales take part in a forward pass that does not use them, so that DistributedDataParallel waits for none.

While weights are still in floating point no gradient would reach what quantisers learn, and DDP stops at the second
step. A search for unused parameters (``find_unused_parameters=True``) costs time in every step; a gradient of zero does
not. Before the optimizer's step it is taken away again: an optimizer passes over what has no gradient, as it does in
one process, but decays what has one of zero.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

__all__ = ["with_idle"]


def with_idle(weight: Tensor, learned: Sequence[Tensor]) -> Tensor:
    """The same weight; where torch.distributed runs, ``learned`` get gradients of zero from it.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> with_idle(weight, [torch.tensor(0.5, requires_grad=True)]) is weight
        True
    """
    if not learned or not dist.is_available() or not dist.is_initialized() or not torch.is_grad_enabled():
        return weight
    used: Tensor = _Idle.apply(weight, *learned)
    return used


class _Idle(torch.autograd.Function):
    """The first of its inputs."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, *learned: Tensor) -> Tensor:
        ctx.learned = learned
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        _idle.update((id(each), each) for each in ctx.learned)
        return gradient, *(torch.zeros_like(each) for each in ctx.learned)


_idle: weakref.WeakValueDictionary[int, Tensor] = weakref.WeakValueDictionary()  # since the last step


def _before_step(_optimizer: Optimizer, *_unused: Any) -> None:
    if not _idle:
        return
    given = [each for each in _idle.values() if each.grad is not None]
    if given:  # the penalty may have given some of them more than zero
        moves = torch.stack([each.grad.any().to(given[0].device) for each in given if each.grad is not None])
        for each, moved in zip(given, moves.tolist(), strict=True):
            if not moved:
                each.grad = None
    _idle.clear()


register_optimizer_step_pre_hook(_before_step)
