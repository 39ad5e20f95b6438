"""DoReFa-Net's weight quantiser (Zhou et al. 2016, arXiv 1606.06160, eq. 8 and 9)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from waveq._kernels.recipe import TINY, Coordinate, Leaf, Number, Rounding, at_least
from waveq.functional import Grid
from waveq.quantizers.base import ScaleMode, WeightQuantizer

__all__ = ["DoReFa"]


class DoReFa(WeightQuantizer):
    """u = tanh(w) / max|tanh(w)| rounded to the mid-rise grid: 2^B levels, zero is none of them.

    As published (``scale="none"``) the weights always span [-1, 1] and the gradient flows through the maximum. A
    network without batch norm then sees every layer's gain jump by 1/max|w|. ``scale="max"`` multiplies the levels by
    max|w|, ``scale="learned"`` by a parameter that starts there; both treat the maximum as a constant.

    Args:
        weight: the layer's weights, to start a learned scale from.
        total_bits: not needed; the range is the same for every number of bits.
        scale: "none", "max" or "learned".
    """

    method = "dorefa"

    def __init__(self, weight: Tensor, *, total_bits: int | None = None, scale: ScaleMode | None = None) -> None:
        super().__init__(weight, total_bits=total_bits, scale=scale)
        if self.scale == "learned":
            self.level_scale = nn.Parameter(weight.detach().abs().max().clamp_min(TINY).float())

    def grid(self, total_bits: int | None = None) -> Grid:
        """Mid-rise for every number of bits."""
        return Grid.MID_RISE

    def unit(self, weight: Tensor) -> Tensor:
        """tanh(w) / max|tanh(w)|."""
        squashed = torch.tanh(weight)
        largest = squashed.abs().amax()  # its gradient is split among equals
        if self.scale == "none":  # no gain takes the factor back that an all-zero layer's gradients would get
            return squashed / torch.where(largest > TINY, largest, 1.0)
        return squashed / largest.detach().clamp_min(TINY)

    def gain(self, weight: Tensor) -> Tensor:
        """1, max|w| or the learned scale."""
        if self.scale == "learned":
            return self.level_scale
        return weight.new_ones(()) if self.scale == "none" else weight.detach().abs().max().clamp_min(TINY)

    def compiles(self) -> bool:
        """Yes, unless a subclass has other formulas."""
        return self.computes_as(DoReFa)

    def coordinate_recipe(self, weight: Tensor, largest: Number, beta: Number) -> Coordinate:
        """tanh over its own largest value; see ``unit``."""
        free = self.scale == "none"
        divisor: Number
        if isinstance(largest, Tensor):
            most = torch.tanh(largest)
            divisor = torch.where(most > TINY, most, 1.0) if free else most.clamp_min(TINY)
        else:
            divisor = math.tanh(largest)
            divisor = divisor if divisor > TINY else (1.0 if free else TINY)
        return Coordinate("tanh", divisor, largest, 0.0, 0.0, through_largest=free)

    def rounding_recipe(self, weight: Tensor, largest: Number, bits: Number, grid_scale: Number) -> Rounding:
        """See ``forward``."""
        coordinate = self.coordinate_recipe(weight, largest, bits)
        steps: Number = 2.0**bits - self.grid().deficit
        gain: Number = 1.0
        leaves: tuple[Leaf, ...] = ()
        if self.scale == "learned":
            gain = self.level_scale
            if isinstance(bits, float):
                gain, leaves = self.level_scale.item(), (Leaf(self.level_scale, gain=1.0),)
        elif self.scale == "max":
            gain = at_least(largest, TINY)
        follows, pitch = self.scale == "max", grid_scale / steps
        return Rounding(coordinate, pitch, gain, -steps, steps, self.grid().shift, True, True, follows, leaves)
