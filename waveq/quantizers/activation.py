"""DoReFa's activation quantiser (arXiv 1606.06160, eq. 11), and what it does where activations have a sign."""

from __future__ import annotations

import torch
from torch import Tensor

from waveq.quantizers.base import straight_through

__all__ = ["check_activation_bits", "quantize_activation"]


def quantize_activation(x: Tensor, bits: int, *, signed: bool = False) -> Tensor:
    """round((2^k - 1) clip(x, 0, 1)) / (2^k - 1), straight-through inside the range and no gradient outside.

    With ``signed`` (inputs that no ReLU has made positive) the range is [-1, 1] and the grid m/(2^(k-1) - 1), the sign
    taking one of the k bits; one signed bit is the sign itself.

    Args:
        x: activations, any shape and floating dtype.
        bits: k, 1 to 8.
        signed: whether negative values carry information.

    Raises:
        ValueError: bits is not a whole number from 1 to 8.

    Example:
        >>> quantize_activation(torch.tensor([-0.3, 0.2, 0.6, 1.7]), 1).tolist()
        [0.0, 0.0, 1.0, 1.0]
        >>> quantize_activation(torch.tensor([-0.9, 0.2]), 2, signed=True).tolist()
        [-1.0, 0.0]
    """
    check_activation_bits(bits)
    clipped = torch.clamp(x, -1.0 if signed else 0.0, 1.0)
    if signed and bits == 1:
        return straight_through(clipped, torch.where(clipped.detach() < 0, -1.0, 1.0).to(x.dtype))
    steps = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    return straight_through(clipped, torch.round(clipped.detach() * steps) / steps)


def check_activation_bits(bits: object) -> int:
    """The bits, or a ValueError that names the range."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8:
        raise ValueError(f"activation bits must be a whole number from 1 to 8, not {bits!r}")
    return bits
