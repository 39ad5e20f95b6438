"""LSQ, learned step size quantisation (Esser et al. 2020, arXiv 1902.08153), for weights and activations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from waveq._kernels.activations import fused_round_by_step
from waveq._kernels.backends import engine_for
from waveq._kernels.levels import rounded
from waveq.functional import Grid, power_of_two
from waveq.quantizers.activation import DataStarted, features_of
from waveq.quantizers.base import TINY, Given, Levels, WeightQuantizer, damped, kept_positive

__all__ = ["LSQ", "LSQActivation", "lsq_start", "lsq_steps", "quantize_by_step"]

_REFERENCE_BITS = 4  # in whose steps the range of a layer with learned bits is counted


class LSQ(WeightQuantizer):
    """w_q = s round(clip(w/s, -Q_N, Q_P)) with Q_N = 2^(B-1), Q_P = 2^(B-1) - 1 and the step s learned (eq. 1 and 2).

    s starts at 2 E|w| / sqrt(Q_P); its gradient (eq. 3) is scaled by 1 / sqrt(N Q_P), N the layer's number of weights.
    The levels are the mid-tread grid of u = w / (s Q_P) with one more level below -1.

    While bits are learned the range s Q_P is what stays when beta moves: the step at b magnitude bits is the range
    over 2^b - 1, stretched by c(beta). It starts as max|w| and never gets longer: LSQ's own start at 8 bits would be
    several times as long, and a shorter one clips weights, whose gradients at 8 bits have thrown a range off by a
    factor of two hundred. Each time beta falls below a whole number of bits, a range that is longer than LSQ's start at
    the bits that are left is shortened to it: the range of 8 bits is several times too long for 2 or 3, so that weights
    suffered from it, and the task priced few bits too high. When the bits freeze, s starts again as above, from the
    weights of then.

    s is kept positive: below zero it counts as (almost) zero and keeps its gradient, so that it comes back; in training
    it gets there no more, because one step of the optimizer changes it by a tenth at most (``bounded``). The wave
    moves the weights alone; through s it would find its own trivial minimum, a step so large that all weights are 0.

    By channel there is a step s_c for each, which starts at 2 E_j|w_cj| / sqrt(Q_P); N is the channel's number of
    weights, and all that is said above of a layer's range holds for each channel's.

    Args:
        weight: the layer's weights, to start the step from.
        total_bits: B, 2 to 9; None while bits are learned.
        options: those of ``WeightQuantizer``; scale is "learned" alone.
    """

    method = "lsq"
    activation = "lsq"
    scale_modes = ("learned",)
    bit_counts = range(2, 10)
    by_channel = True
    bounded = ("step",)

    reference_steps: Tensor

    def __init__(self, weight: Tensor, *, total_bits: int | None = None, **options: Any) -> None:
        super().__init__(weight, total_bits=total_bits, **options)
        _, most = lsq_steps(total_bits or _REFERENCE_BITS, signed=True)
        values = _wide(weight.detach())
        start = lsq_start(self.mean_of(values), most) if total_bits else self.largest_of(values) / most
        self.step = nn.Parameter(start.clamp_min(TINY))
        self.register_buffer("reference_steps", torch.tensor(float(most), device=weight.device, dtype=values.dtype))

    def grid(self, total_bits: int | None = None) -> Grid:
        """Mid-tread for every number of bits."""
        return Grid.MID_TREAD

    @torch.no_grad()
    def restart(self, weight: Tensor, total_bits: int) -> None:
        """The step that LSQ starts from at these bits, kept as the step at the bits that its range is counted in."""
        self.step.copy_(self._start(weight, total_bits))

    @torch.no_grad()
    def follow_bits(self, weight: Tensor, before: int, now: int) -> None:
        """The range stays within max|w| and, with every bit that is lost, within LSQ's start at the bits left."""
        longest = self.largest_of(_wide(weight)) / self.reference_steps
        if now < before:
            longest = torch.minimum(longest, self._start(weight, now))
        self.step.copy_(torch.minimum(self.step, longest.clamp_min(TINY)))

    def _start(self, weight: Tensor, total_bits: int) -> Tensor:
        """LSQ's first range at these bits, as the step at the bits that ranges are counted in."""
        _, most = lsq_steps(total_bits, signed=True)
        return lsq_start(self.mean_of(_wide(weight)), most) * most / self.reference_steps

    @property
    def span(self) -> Tensor:
        """The range s Q_P at the bits that it is counted in, positive."""
        return kept_positive(self.step) * self.reference_steps

    def levels(self, given: Given) -> Levels:
        """u = w; the wave acts on w / (s Q_P), clipped to the levels at beta: from -1 - 1/(2^beta - 1) to 1."""
        most = given.steps
        ratio = self.reference_steps / most * given.stretch
        # divided by ratio^2, the gradient moves the step at these bits as if it were the parameter
        factor = (given.count * most) ** -0.5 / ratio.detach().square()
        return Levels(
            pitch=damped(kept_positive(self.step), factor) * ratio,
            low=-most - 1.0,
            high=most,
            closed=False,
            wave_divisor=self.span.detach(),
            wave_bounds=(-1.0 - 1.0 / (power_of_two(given.beta) - 1.0), 1.0),
        )


class LSQActivation(DataStarted):
    """x_q = s round(clip(x/s, 0, Q_P)), Q_P = 2^k - 1; inputs with a sign take Q_N = 2^(k-1), Q_P = 2^(k-1) - 1.

    s starts at 2 E|x| / sqrt(Q_P) of the first training batch. Its gradient is scaled by 1 / sqrt(N Q_P), N the number
    of features of one sample. s is kept positive as for weights.

    Args:
        bits: k, 2 to 8.

    Example:
        >>> lsq = LSQActivation(2)
        >>> y = lsq(torch.tensor([[0.1, 0.9, 2.0, 9.0]]))
        >>> round(lsq.step.item(), 4), y.unique().numel()
        (3.4641, 3)
    """

    method = "lsq"
    fewest_bits = 2
    learns_bits = True
    bounded = ("step",)

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.step = nn.Parameter(torch.tensor(1.0))

    def start(self, x: Tensor, signed: bool) -> None:
        """s from a batch."""
        _, most = lsq_steps(self.bits, signed=signed)
        self.step.copy_(self.shared(lsq_start(x.abs().mean(), most)))

    def take_sign(self) -> None:
        """The step grows by as much as there are fewer levels above zero."""
        (_, before), (_, now) = lsq_steps(self.bits, signed=False), lsq_steps(self.bits, signed=True)
        self.step.data.mul_(before / now)  # an earlier use in this forward pass may have saved it: no new version

    @torch.no_grad()
    def set_bits(self, bits: int, *, signed: bool) -> None:
        """The step grows by as much as there are fewer levels above zero."""
        (_, before), (_, now) = lsq_steps(self.bits, signed=signed), lsq_steps(bits, signed=signed)
        self.step.mul_(before / now)
        self.bits = bits

    def quantize(self, x: Tensor, signed: bool) -> Tensor:
        """The values on the levels of the learned step."""
        least, most = lsq_steps(self.bits, signed=signed)
        return quantize_by_step(x, self._damped(x, most), float(least), float(most))

    def stretched(self, x: Tensor, signed: bool, stretch: Tensor) -> Tensor:
        """The values on multiples of c s; the step's gradient is that of the step at these bits."""
        least, most = lsq_steps(self.bits, signed=signed)
        return quantize_by_step(x, self._damped(x, most) * stretch.to(x.dtype), float(least), float(most))

    def _damped(self, x: Tensor, most: int) -> Tensor:
        return damped(kept_positive(self.step.to(x.dtype)), (features_of(x) * most) ** -0.5)


def _wide(weight: Tensor) -> Tensor:
    """float32 at least; float64 stays, so that a run in it finds the same step before and after it was stopped."""
    return weight if weight.dtype == torch.float64 else weight.float()


def lsq_steps(bits: int, *, signed: bool) -> tuple[int, int]:
    """(Q_N, Q_P): the steps below and above zero.

    Example:
        >>> lsq_steps(3, signed=True), lsq_steps(3, signed=False)
        ((4, 3), (0, 7))
    """
    return (2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def lsq_start(mean: Tensor, most: int) -> Tensor:
    """2 E|v| / sqrt(Q_P) from E|v|, any shape, and not quite zero for values that all are.

    Example:
        >>> lsq_start(torch.tensor(2.0), 4).item()
        2.0
    """
    start: Tensor = 2.0 * mean / float(most) ** 0.5
    return start.clamp_min(TINY)


def quantize_by_step(values: Tensor, step: Tensor, least: float, most: float) -> Tensor:
    """s round(clip(v/s, -Q_N, Q_P)) with the gradients of eq. 3 and 5; the step is 0-dim.

    With respect to v: 1 inside the range and 0 outside. With respect to s: round(v/s) - v/s inside, -Q_N for
    v/s <= -Q_N, Q_P for v/s >= Q_P (at equality too, where ``clip`` would take the inner form).

    Example:
        >>> s = torch.tensor(0.5, requires_grad=True)
        >>> y = quantize_by_step(torch.tensor([0.3, 9.0]), s, 2.0, 1.0)
        >>> y.sum().backward(); y.tolist(), round(s.grad.item(), 4)
        ([0.5, 0.5], 1.4)
    """
    engine = engine_for(values)
    if engine is not None:
        return fused_round_by_step(engine, values, step, -least, most)
    return rounded(values, Levels(pitch=step, low=-least, high=most, closed=False), 0.0)
