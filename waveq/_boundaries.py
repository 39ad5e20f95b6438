"""The gradient of a clip where a value lies exactly on one of its bounds: ours to define, not torch's.

The largest weight of a layer and every input at the end of its range lie there, and ``torch.clamp`` has had three
answers: 1 from torch 2.6 to 2.13; in 2.14 0 for bounds that are numbers and 1/2 for bounds that are tensors. Every clip
of this package that a gradient flows through is this one or says how it differs (LSQ's eq. 3, PACT's alpha); the
compiled kernels have it too.

What the package takes from torch, where every version agrees and a test holds it: ``amax`` splits its gradient evenly
among equals, ``abs`` and ``relu`` have none at 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["clip"]


def clip(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """min(max(x, low), high) with the gradient 1 between the bounds and on them, 0 beyond.

    Bounds that are tensors get the gradient of the values strictly beyond them. A NaN stays one, without gradient.

    Args:
        x: values, any shape and floating dtype; the result has them too.
        low: the lower bound, broadcastable to x.
        high: the upper bound, above ``low``.

    Example:
        >>> x = torch.tensor([-3.0, -1.0, 0.5, 1.0, 3.0], requires_grad=True)
        >>> y = clip(x, -1.0, 1.0); y.sum().backward(); y.tolist(), x.grad.tolist()
        ([-1.0, -1.0, 0.5, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0, 0.0])
    """
    held = x.detach().clamp_min(low).clamp_max(high)
    return torch.where(held == x, x, held)  # one mask is all that the way back keeps
