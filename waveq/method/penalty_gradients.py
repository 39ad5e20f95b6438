"""The penalty's gradients beside those of a backward pass that is over, for loops whose loss nobody can add to.

``torch.autograd.grad`` makes them, and they are added by hand: ``backward()`` would run the hooks of
DistributedDataParallel a second time, which has sent its gradients off already.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from waveq.method.operands import operands_of
from waveq.method.settings import WaveLayer

__all__ = ["add_penalty_gradients"]


@torch.no_grad()
def add_penalty_gradients(layers: Sequence[WaveLayer], penalty: Tensor, grad_scale: float) -> None:
    """Add d penalty to ``.grad`` of weights, learned scales and betas.

    Args:
        layers: what ``attach`` made.
        penalty: of this step, 0-dim, differentiable.
        grad_scale: what the betas' gradients, which no GradScaler knows of, still carry.
    """
    betas = [each.kept("beta") for each in operands_of(layers) if each.state.learns]
    scaled = [beta.grad for beta in betas if beta.grad is not None]
    if scaled and grad_scale != 1.0:
        torch._foreach_div_(scaled, grad_scale)
    parameters = [each for layer in layers for each in (layer.weight, *layer.state.parameters()) if each.requires_grad]
    leaves = [*parameters, *betas]
    for leaf, slope in zip(leaves, torch.autograd.grad(penalty, leaves, allow_unused=True), strict=True):
        if slope is None:
            continue
        if leaf.grad is None:
            leaf.grad = slope
        else:
            leaf.grad += slope
