"""Tensors as runs of memory: any dense layout is walked in the order in which it lies there."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["dense", "like", "narrowed", "widened"]

_HALF = (torch.float16, torch.bfloat16)


def dense(tensor: Tensor) -> Tensor:
    """The tensor itself where its elements fill one run of memory (channels_last does), a contiguous copy otherwise."""
    if tensor.is_contiguous() or _fills_a_run(tensor):
        return tensor
    return tensor.contiguous()


def _fills_a_run(tensor: Tensor) -> bool:
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def like(tensor: Tensor, layout: Tensor) -> Tensor:
    """``tensor`` in the memory order of ``layout``: itself if it has it, a copy otherwise."""
    if tensor.stride() == layout.stride():
        return tensor
    return torch.empty_like(layout, dtype=tensor.dtype).copy_(tensor)


def widened(tensor: Tensor) -> Tensor:
    """float32 for half precision, the tensor itself otherwise."""
    return tensor.float() if tensor.dtype in _HALF else tensor


def narrowed(tensor: Tensor, beside: Tensor) -> Tensor:
    """In the dtype of another tensor; itself where it has it."""
    return tensor if tensor.dtype == beside.dtype else tensor.to(beside.dtype)
