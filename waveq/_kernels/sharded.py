"""DTensors: whether a tensor is one, and the whole of it. For plain ones nothing of torch.distributed is imported."""

from __future__ import annotations

import sys

from torch import Tensor

__all__ = ["gathered", "is_sharded", "largest"]


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is a DTensor, of which this process holds a part.

    Example:
        >>> import torch
        >>> is_sharded(torch.ones(3))
        False
    """
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def gathered(tensor: Tensor) -> Tensor:
    """The whole tensor; of a DTensor every process must ask for it."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def largest(values: Tensor) -> Tensor:
    """The largest value of a DTensor, 0-dim; its gradient goes to it, in equal parts where there are several.

    As ``amax``, whose backward pass divides by the number of largest values of this process, which may be none.
    """
    there = values.detach() == values.detach().amax()
    return (values * there).sum() / there.sum()
