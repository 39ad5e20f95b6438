"""Learned scales take part in a forward pass that does not use them, so that DistributedDataParallel waits for none.

While weights are still in floating point no gradient would reach what quantisers learn, and DDP stops at the second
step. A search for unused parameters (``find_unused_parameters=True``) costs time in every step; a gradient of zero does
not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

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
        ctx.save_for_backward(*learned)
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient, *(torch.zeros_like(each) for each in ctx.saved_tensors)
