"""TTQ, trained ternary quantisation (Zhu et al. 2017, arXiv 1612.01064)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from waveq.functional import Grid
from waveq.quantizers._piecewise import piecewise_coordinate
from waveq.quantizers.base import TINY, ScaleMode, WeightQuantizer, damped, kept_positive

__all__ = ["TTQ"]

THRESHOLD = 0.05  # t, as the paper's CIFAR-10 networks and tensorpack have it


class TTQ(WeightQuantizer):
    """Levels -W_n, 0, W_p, both learned: W_p above the threshold t max|w|, -W_n below its negative, 0 between (eq. 6).

    Gradients (eq. 7 and 8): to W_p the sum over the positive weights, to W_n minus the sum over the negative ones; to
    the weights themselves, W_p, 1 or W_n times the gradient of the quantised weight, by their level.

    Differences from the paper: W_p and W_n start at the mean size of the weights on their level, the best fit
    (tensorpack starts both at 1, which makes the gain of a layer without batch norm jump), and are kept positive. Their
    gradients, sums over up to N weights, are scaled by 1/sqrt(N), LSQ's cure: unscaled, the levels run away at rates
    that every other method trains well at.

    The wave's coordinate is -1, 0, 1 on the levels and -1/2, 1/2 on the thresholds, linear between: the wave pulls
    each weight to the level that it is rounded to. Should W_p be learned below the threshold, all weights above
    the threshold count as being on their level.

    Args:
        weight: the layer's weights, to start the levels from.
        total_bits: 2.
        scale: "learned" alone.
    """

    method = "ttq"
    scale_modes = ("learned",)
    bit_counts = range(2, 3)
    learns_bits = False

    def __init__(self, weight: Tensor, *, total_bits: int | None = None, scale: ScaleMode | None = None) -> None:
        super().__init__(weight, total_bits=total_bits, scale=scale)
        values = weight.detach().float()
        threshold = self._threshold(values)
        self.positive = nn.Parameter(_mean_size(values, values > threshold))
        self.negative = nn.Parameter(_mean_size(values, values < -threshold))

    @staticmethod
    def _threshold(weight: Tensor) -> Tensor:
        return THRESHOLD * weight.detach().abs().max()

    def grid(self, total_bits: int | None = None) -> Grid:
        """Mid-tread."""
        return Grid.MID_TREAD

    def coordinate(self, weight: Tensor, beta: Tensor) -> Tensor:
        """The piecewise linear coordinate; see the class."""
        threshold = self._threshold(weight)
        above = torch.maximum(kept_positive(self.positive), threshold)
        below = torch.maximum(kept_positive(self.negative), threshold)
        knots = torch.stack([-below, -threshold, torch.zeros_like(threshold), threshold, above])
        heights = torch.linspace(-1.0, 1.0, 5, device=weight.device, dtype=weight.dtype)
        return piecewise_coordinate(weight.reshape(1, -1), knots.to(weight.dtype)[None], heights).reshape(weight.shape)

    def pitch(self, weight: Tensor, bits: Tensor, grid_scale: Tensor) -> None:
        """Two distances, not one."""

    def forward(self, weight: Tensor, bits: Tensor, grid_scale: Tensor | None = None) -> Tensor:
        """Quantised weights; there is but one number of bits."""
        threshold = self._threshold(weight)
        damping = weight.numel() ** -0.5
        positive, negative = (
            damped(kept_positive(self.positive), damping),
            damped(kept_positive(self.negative), damping),
        )
        up, down = weight.detach() > threshold, weight.detach() < -threshold
        levels = torch.where(up, positive, torch.where(down, -negative, torch.zeros_like(positive)))
        slope = torch.where(up, positive, torch.where(down, negative, torch.ones_like(positive))).detach()
        return levels + slope * (weight - weight.detach())


def _mean_size(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean |v| of the chosen values; of all of them where none is chosen."""
    some = values[chosen] if bool(chosen.any()) else values
    return some.abs().mean().clamp_min(TINY)
