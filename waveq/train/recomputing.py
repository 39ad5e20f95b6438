"""Activation checkpointing: blocks of a network keep their inputs alone, and compute the rest anew going back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

__all__ = ["blocks_of", "recomputed"]


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The modules with layers inside that stand in the network itself, or in a sequence of it.

    Raises:
        ValueError: there are none, so that nothing would be saved.

    Example:
        >>> from waveq.zoo import build
        >>> len(blocks_of(build("resnet20")))
        9
    """
    standing = [
        each
        for child in network.children()
        for each in (child.children() if isinstance(child, nn.Sequential | nn.ModuleList) else [child])
    ]
    blocks = [each for each in standing if _has_layers(each) and any(True for _ in each.parameters())]
    if not blocks:
        raise ValueError(
            f"checkpoint_activations: {type(network).__name__} has no blocks of layers that could be computed anew"
        )
    return blocks


def _has_layers(module: nn.Module) -> bool:
    """Whether there is more inside than the parametrisation of a layer."""
    return any(name != "parametrizations" for name, _ in module.named_children())


@contextmanager
def recomputed(network: nn.Module) -> Iterator[None]:
    """Within, blocks in training keep their inputs alone; the same numbers, for one more forward pass of each."""
    blocks = blocks_of(network)
    for block in blocks:
        block.forward = _Anew(block)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


class _Anew:
    """A block's forward pass, twice in training."""

    def __init__(self, block: nn.Module) -> None:
        self._block = block

    def __call__(self, *args: Any) -> Any:
        block = self._block
        forward = type(block).forward.__get__(block)
        if not (block.training and torch.is_grad_enabled()):
            return forward(*args)
        return checkpoint(forward, *args, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_stay(self._block)


@contextmanager
def _statistics_stay(block: nn.Module) -> Iterator[None]:
    """Batch norm has seen the batch already."""
    norms = [each for each in block.modules() if isinstance(each, _BatchNorm)]
    before = [(each.momentum, each.num_batches_tracked) for each in norms]
    for each in norms:
        each.momentum = 0.0
        each.num_batches_tracked = None if each.num_batches_tracked is None else each.num_batches_tracked.clone()
    try:
        yield
    finally:
        for each, (momentum, count) in zip(norms, before, strict=True):
            each.momentum, each.num_batches_tracked = momentum, count
