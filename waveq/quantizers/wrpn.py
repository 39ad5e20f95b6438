"""WRPN's weight quantiser (Mishra et al. 2018, arXiv 1709.01134, eq. 1): clip and round on the mid-tread grid."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from waveq._kernels.levels import Number
from waveq.functional import Grid
from waveq.quantizers.base import TINY, Given, Levels, ScaleMode, WeightQuantizer, damped, kept_positive

__all__ = ["WRPN"]


class WRPN(WeightQuantizer):
    """u = clip(w / s, -1, 1) rounded to the mid-tread grid: 2^B - 1 levels, zero among them; two bits are ternary.

    As published (``scale="none"``) s = 1, and small weights all round to 0. ``scale="max"`` takes s = max|w|, the usual
    symmetric quantiser; ``scale="learned"`` trains s, starting from max|w|, with LSQ's gradient through the division
    and the product, damped by 1/sqrt(N) (Esser et al. 2020, section 2.2); below zero it counts as (almost) zero and
    keeps its gradient, so that it comes back. One bit is binary: the mid-rise grid.

    By channel, u_cj = clip(w_cj / s_c, -1, 1) with s_c = max_j|w_cj| or learned, N being the channel's number of
    weights.

    Args:
        weight: the layer's weights, to start a learned scale from.
        scale: "none", "max" or "learned".
        options: those of ``WeightQuantizer``; the range is the same for every number of bits.
    """

    method = "wrpn"
    by_channel = True

    def __init__(self, weight: Tensor, *, scale: ScaleMode | None = None, **options: Any) -> None:
        super().__init__(weight, scale=scale, **options)
        if self.scale == "learned":
            self.level_scale = nn.Parameter(self.largest_of(weight.detach()).clamp_min(TINY).float())

    def grid(self, total_bits: int | None = None) -> Grid:
        """Mid-tread from two bits on, mid-rise for one."""
        return Grid.MID_RISE if total_bits == 1 else Grid.MID_TREAD

    def levels(self, given: Given) -> Levels:
        """u = clip(w / s, -1, 1); the wave has s held: it would move a learned s to where every weight is 0."""
        k, s = given.steps, self._span(given)
        return Levels(
            pitch=given.stretch / k,
            low=-k,
            high=k,
            divisor=s,
            gain=s,
            bounds=(-1.0, 1.0),
            wave_divisor=s.detach() if isinstance(s, Tensor) else s,
        )

    def _span(self, given: Given) -> Number:
        """s: 1, max|w| or the learned scale, kept positive."""
        if self.scale == "learned":
            return damped(kept_positive(self.level_scale), given.count**-0.5)
        return 1.0 if self.scale == "none" else given.largest.clamp_min(TINY)
