"""What the tests of quantisers share."""

from __future__ import annotations

import torch
from torch import Tensor

LEARNED_LEVELS = ("dsq", "lqnets", "lsq", "ttq")


def random_weight(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same for the same seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradient(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Of the sum of ``output``."""
    return torch.autograd.grad(output.sum(), inputs)


def tensor(*values: float) -> Tensor:
    """float32."""
    return torch.tensor(values)
