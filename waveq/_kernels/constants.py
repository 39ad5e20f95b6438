"""Vectors that are the same in every step, made once."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

__all__ = ["constants"]


@functools.lru_cache(maxsize=256)
def constants(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A vector that is made once; nobody may write to it.

    Example:
        >>> constants((1.0, 2.0), torch.float32, torch.device("cpu"))
        tensor([1., 2.])
    """
    with torch.inference_mode(False):  # it may be used where gradients are
        return torch.tensor(values, dtype=dtype, device=device)
