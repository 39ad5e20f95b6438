"""Tensors as runs of memory: any dense layout is walked in the order in which it lies there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["dense", "flat", "like", "narrowed", "scalars", "vector", "widened"]

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


def flat(tensor: Tensor) -> Tensor:
    """A dense tensor's elements in the order in which they lie in memory, without a copy."""
    return tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())


def widened(tensor: Tensor) -> Tensor:
    """float32 for half precision, the tensor itself otherwise."""
    return tensor.float() if tensor.dtype in _HALF else tensor


def narrowed(tensor: Tensor, beside: Tensor) -> Tensor:
    """In the dtype of another tensor; itself where it has it."""
    return tensor if tensor.dtype == beside.dtype else tensor.to(beside.dtype)


def vector(values: Sequence[float]) -> Tensor:
    """Numbers as one float32 tensor on the CPU."""
    return torch.from_numpy(np.array(values, np.float32))


def scalars(values: Sequence[float]) -> list[Tensor]:
    """Numbers as 0-dim float32 tensors on the CPU; ``torch.tensor`` takes ten times as long for each."""
    table = np.array(values, np.float32)
    return [torch.from_numpy(table[i, ...]) for i in range(len(values))]
