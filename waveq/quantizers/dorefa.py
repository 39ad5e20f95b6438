"""DoReFa-Net's weight quantiser (Zhou et al. 2016, arXiv 1606.06160, eq. 8 and 9)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from waveq._kernels.levels import Number
from waveq.functional import Grid
from waveq.quantizers.base import TINY, Given, Levels, ScaleMode, WeightQuantizer

__all__ = ["DoReFa"]


class DoReFa(WeightQuantizer):
    """u = tanh(w) / max|tanh(w)| rounded to the mid-rise grid: 2^B levels, zero is none of them.

    As published (``scale="none"``) the weights always span [-1, 1] and the gradient flows through the maximum. A
    network without batch norm then sees every layer's gain jump by 1/max|w|. ``scale="max"`` multiplies the levels by
    max|w|, ``scale="learned"`` by a parameter that starts there; both treat the maximum as a constant.

    By channel, u_cj = tanh(w_cj) / max_j|tanh(w_cj)| and the levels are s_c u_q with s_c = max_j|w_cj| or a parameter
    that starts there: channel c's 2^B levels span its own weights.

    Args:
        weight: the layer's weights, to start a learned scale from.
        scale: "none", "max" or "learned".
        options: those of ``WeightQuantizer``; the range is the same for every number of bits.
    """

    method = "dorefa"
    squash = "tanh"
    by_channel = True

    def __init__(self, weight: Tensor, *, scale: ScaleMode | None = None, **options: Any) -> None:
        super().__init__(weight, scale=scale, **options)
        if self.scale == "learned":
            self.level_scale = nn.Parameter(self.largest_of(weight.detach()).clamp_min(TINY).float())

    def grid(self, total_bits: int | None = None) -> Grid:
        """Mid-rise for every number of bits."""
        return Grid.MID_RISE

    def levels(self, given: Given) -> Levels:
        """u = tanh(w) / max|tanh(w)|; the gain is 1, max|w| or the learned scale."""
        gain: Number
        if self.scale == "none":  # no gain takes the factor back that an all-zero layer's gradients would get
            divisor, gain = torch.where(given.reach > TINY, given.reach, 1.0), 1.0
        else:
            divisor = given.reach.detach().clamp_min(TINY)
            gain = self.level_scale if self.scale == "learned" else given.largest.clamp_min(TINY)
        k = given.steps
        return Levels(pitch=given.stretch / k, low=-k, high=k, divisor=divisor, gain=gain)
