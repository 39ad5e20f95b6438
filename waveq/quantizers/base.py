"""What every weight quantiser says of itself, and the rounding that all uniform ones share."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from waveq.functional import Grid, round_to_grid

__all__ = ["TINY", "ScaleMode", "WeightQuantizer", "check_scale_mode", "straight_through"]

ScaleMode = Literal["none", "max", "learned"]
TINY = 1e-12  # an all-zero layer divides by this instead of by 0


class WeightQuantizer(nn.Module):
    """One layer's quantiser: w_q = gain(w) * Q(unit(w)), with Q the rounding to the grid on [-1, 1].

    A method says which tensor is rounded (``unit``, the u of the wave), on which grid (``grid``) and by what the levels
    are multiplied (``gain``). A method that does not fit this form overrides ``forward``; its ``unit`` and ``grid``
    must still put the zeros of the wave on its levels.

    Attributes:
        method: the name in the registry.
        scale: how the levels are scaled: "none" (as DoReFa and WRPN were published), "max" or "learned".
    """

    method: str = ""
    scale: ScaleMode = "none"

    def grid(self, total_bits: int | None = None) -> Grid:
        """The grid at a number of total bits; None asks for the grid while bits are learned (2 and more)."""
        raise NotImplementedError

    def unit(self, weight: Tensor) -> Tensor:
        """u: what is rounded, |u| <= 1 wherever levels exist; shape of weight, differentiable."""
        raise NotImplementedError

    def gain(self, weight: Tensor) -> Tensor:
        """The factor from grid to weights, 0-dim, positive."""
        raise NotImplementedError

    def forward(self, weight: Tensor, bits: Tensor, grid_scale: Tensor | None = None) -> Tensor:
        """Quantised weights for b = ``bits`` magnitude bits (0-dim) and the stretch c(beta) of the grid.

        One bit in total (b = 0) is for ``binarize``; here b >= 1.
        """
        return self.gain(weight) * round_to_grid(self.unit(weight), bits, grid=self.grid(), scale=grid_scale)

    def binarize(self, weight: Tensor) -> Tensor:
        """One bit: sign(w) E|w| with 0 -> +E|w|, straight-through (DoReFa eq. 7; WRPN uses the same)."""
        magnitude = weight.detach().abs().mean()
        return straight_through(weight, torch.where(weight.detach() < 0, -magnitude, magnitude))


def straight_through(value: Tensor, rounded: Tensor) -> Tensor:
    """``rounded`` going forward, the gradient of ``value`` going back.

    Example:
        >>> x = torch.tensor([0.2, 1.7], requires_grad=True)
        >>> y = straight_through(x, x.detach().round()); y.sum().backward(); y.tolist(), x.grad.tolist()
        ([0.0, 2.0], [1.0, 1.0])
    """
    result: Tensor = value + (rounded - value).detach()
    return result


def check_scale_mode(scale: str) -> ScaleMode:
    """The scale mode, or a ValueError that lists the known ones."""
    for mode in get_args(ScaleMode):
        if scale == mode:
            return mode  # type: ignore[no-any-return]
    raise ValueError(f"scale must be one of {', '.join(map(repr, get_args(ScaleMode)))}, not {scale!r}")
