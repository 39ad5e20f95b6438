"""DSQ, differentiable soft quantisation (Gong et al. 2019, arXiv 1908.05033), for weights and activations."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from waveq._boundaries import clip
from waveq.functional import Grid, frequency
from waveq.quantizers.activation import DataStarted, features_of
from waveq.quantizers.base import (
    TINY,
    Given,
    Levels,
    ScaleMode,
    WeightQuantizer,
    damped,
    kept_positive,
    straight_through,
)

__all__ = ["DSQ", "DSQActivation", "soft_round"]

SOFTNESS_START = 0.2
_SOFTNESS_RANGE = (1e-3, 0.5)  # at 0 the curve is the staircase itself; the paper's curves end at 1/2


class DSQ(WeightQuantizer):
    """2^B levels from -r to r, rounded to the nearest, with the gradient of a soft staircase; r and a are learned.

    Within the bin of width D and centre m the soft value is m + (D/2) tanh(k (x - m)) / (1 - a), k = ln(2/a - 1) / D
    (eq. 3 to 7), which meets the levels at the bin's ends. Going forward the sign of the tanh stands in its place, also
    in the product rule that gives r its gradient (as the rounded value does in LSQ's step).
    The range r starts at max|w| and a at 0.2; r is kept positive and a between 0.001 and 0.5.

    Differences from the paper: its range [l, u] has two ends; ours is symmetric, so that a weight stays a number times
    a half-integer (the mid-rise grid), which every export understands. The gradients of r and a, sums over N weights,
    are scaled by 1/sqrt(N), LSQ's cure: unscaled, r runs away at rates that every other method trains well at.

    The wave moves the weights alone, not r.

    Args:
        weight: the layer's weights, to start the range from.
        total_bits: not needed; the range is the same for every number of bits.
        scale: "learned" alone.
    """

    method = "dsq"
    activation = "dsq"
    scale_modes = ("learned",)

    def __init__(self, weight: Tensor, *, total_bits: int | None = None, scale: ScaleMode | None = None) -> None:
        super().__init__(weight, total_bits=total_bits, scale=scale)
        self.level_scale = nn.Parameter(weight.detach().abs().max().clamp_min(TINY).float())
        self.softness = nn.Parameter(torch.tensor(SOFTNESS_START, device=weight.device))

    def grid(self, total_bits: int | None = None) -> Grid:
        """Mid-rise for every number of bits."""
        return Grid.MID_RISE

    def levels(self, given: Given) -> Levels:
        """u = clip(w / r, -1, 1); the wave has r held."""
        k, r = given.steps, damped(kept_positive(self.level_scale), given.count**-0.5)
        return Levels(
            pitch=given.stretch / k,
            low=-k,
            high=k,
            divisor=r,
            gain=r,
            bounds=(-1.0, 1.0),
            wave_divisor=r.detach(),
        )

    def pitch(self, weight: Tensor, bits: Tensor, grid_scale: Tensor) -> Tensor:
        """2 r c / (2^B - 1), also for one bit."""
        return kept_positive(self.level_scale) * grid_scale / frequency(bits, Grid.MID_RISE)

    def forward(self, weight: Tensor, bits: Tensor, grid_scale: Tensor | None = None) -> Tensor:
        """Quantised weights; b = 0 is one bit, the levels -r and r."""
        steps = frequency(bits, Grid.MID_RISE)
        pitch = damped(kept_positive(self.level_scale), weight.numel() ** -0.5) / steps
        if grid_scale is not None:
            pitch = pitch * grid_scale
        softness = damped(kept_soft(self.softness), weight.numel() ** -0.5)
        return (soft_round(weight / pitch + steps, 2.0 * steps, softness) - steps) * pitch

    def binary_coordinate(self, weight: Tensor) -> Tensor:
        """The same as for more bits."""
        return self.coordinate(weight, torch.ones_like(self.level_scale))

    def binarize(self, weight: Tensor) -> Tensor:
        """One bit: -r or r, with the soft gradient."""
        return self(weight, weight.new_zeros(()))  # type: ignore[no-any-return]


class DSQActivation(DataStarted):
    """DSQ on [0, r], 2^k levels; inputs with a sign take [-r, r]. r starts at the first training batch's max|x|.

    The gradients of r and a are scaled by 1/sqrt(N), N the number of features of one sample.

    Args:
        bits: k, 1 to 8.

    Example:
        >>> DSQActivation(2)(torch.tensor([0.0, 0.8, 3.0])).tolist()
        [0.0, 1.0, 3.0]
    """

    method = "dsq"
    learns_bits = True

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.range = nn.Parameter(torch.tensor(1.0))
        self.softness = nn.Parameter(torch.tensor(SOFTNESS_START))

    def start(self, x: Tensor, signed: bool) -> None:
        """r from a batch."""
        self.range.copy_(self.shared(x.abs().max().clamp_min(TINY)))

    def quantize(self, x: Tensor, signed: bool) -> Tensor:
        """The values on the levels of the learned range."""
        most = 2.0**self.bits - 1.0
        offset = most / 2.0 if signed else 0.0
        damping = features_of(x) ** -0.5
        pitch = damped(kept_positive(self.range.to(x.dtype)), damping) / (most - offset)
        softness = damped(kept_soft(self.softness.to(x.dtype)), damping)
        return (soft_round(x / pitch + offset, x.new_tensor(most), softness) - offset) * pitch


def kept_soft(softness: Tensor) -> Tensor:
    """a, clamped to its range, with its own gradient outside too."""
    return straight_through(softness, softness.detach().clamp(*_SOFTNESS_RANGE))


def soft_round(index: Tensor, most: Tensor, softness: Tensor) -> Tensor:
    """clip(index, 0, most) to the nearest whole number, with the gradient of the soft staircase of eq. 3 to 7.

    In units of the bin's width, with d the distance from its middle, the staircase is
    floor + 1/2 + tanh(d ln(2/a - 1)) / (2 (1 - a)): floor at the bin's lower end and floor + 1 at its upper end.

    Args:
        index: values counted in levels from the lowest one, any shape.
        most: the highest level, a whole number, 0-dim, at least 1.
        softness: a, 0-dim, between 0 and 1: near 0 steps, near 1 a straight line.

    Example:
        >>> x = torch.tensor([0.5, 1.0], requires_grad=True)
        >>> y = soft_round(x, torch.tensor(3.0), torch.tensor(0.2)); y.sum().backward()
        >>> y.tolist(), [round(g, 3) for g in x.grad.tolist()]
        ([1.0, 1.0], [1.373, 0.494])
    """
    within = clip(index, 0.0, most)
    floor = torch.minimum(within.detach().floor(), most - 1.0)
    distance = within - floor - 0.5
    soft = floor + 0.5 + 0.5 * torch.tanh(distance * torch.log(2.0 / softness - 1.0)) / (1.0 - softness)
    return straight_through(soft, floor + (distance.detach() >= 0.0))
