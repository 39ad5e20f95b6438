"""Where a quantiser's levels lie: what it states of itself, once, and the plain form that follows from it.

The statement is ordinary torch on one number a layer. For one layer the numbers are 0-dim; a compiled call hands the
same formulas vectors (L,), one entry a layer, and autograd through those vectors is its chain rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor

from waveq._boundaries import clip
from waveq._kernels.sharded import is_sharded, largest
from waveq.functional import Grid, frequency
from waveq.layers import Outputs

__all__ = [
    "TINY",
    "Given",
    "Levels",
    "Number",
    "Quantizer",
    "plain_given",
    "rounded",
    "settled_step",
    "wave_coordinate",
]

Number = Tensor | float
TINY = 1e-12  # an all-zero layer divides by this instead of by 0


class Given:
    """What the formulas of levels may use. Write them elementwise: tensors are 0-dim, or (L,) for L layers at once.

    Where each output channel has levels of its own, they are (C,) for its C channels, or one number a channel of all
    layers: "layer" below then means one channel.

    Attributes:
        grid: the quantiser's grid.
        bits: b, magnitude bits; whole, constant.
        beta: the beta that sets the wave, constant.
        stretch: c(beta) of eq. 2.4, differentiable where the task moves beta; 1 for the b-bit grid itself.
        count: the number of weights that share the numbers.
    """

    def __init__(self, grid: Grid, bits: Tensor, beta: Tensor, stretch: Number, count: Number) -> None:
        self.grid, self.bits, self.beta, self.stretch, self.count = grid, bits, beta, stretch, count
        self._steps: Tensor | None = None

    @property
    def steps(self) -> Tensor:
        """k: quantisation steps on [0, 1], 2^b - 1 (mid-tread) or 2^b - 1/2 (mid-rise)."""
        return frequency(self.bits, self.grid) if self._steps is None else self._steps

    @steps.setter
    def steps(self, known: Tensor) -> None:
        self._steps = known

    @property
    def largest(self) -> Tensor:
        """max|w|, constant."""
        raise NotImplementedError

    @property
    def reach(self) -> Tensor:
        """max|f(w)|, f being the quantiser's ``squash``; its gradient is split evenly among the largest weights."""
        raise NotImplementedError


@dataclass(slots=True, kw_only=True)
class Levels:
    """w_q = (gain * pitch) * (round(clip(u / pitch, low, high) - shift) + shift) with u = clip(f(w) / divisor, bounds).

    f is the quantiser's ``squash``, the shift its grid's. Pitch, gain and both divisors may carry gradients, to beta
    (through ``Given.stretch``), to learned parameters and to ``Given.reach``; all else is constant.

    Attributes:
        pitch: distance of neighbouring levels in units of u, positive.
        low: the lowest level in steps.
        high: the highest; not 0 where there is a gain.
        gain: factor from u to weights, positive.
        divisor: positive.
        bounds: the ends of u.
        closed: whether a weight exactly on an outermost level still has a gradient; LSQ's eq. 5 says no.
        wave_divisor: the wave acts on clip(f(w) / wave_divisor, wave_bounds); None is the divisor.
        wave_bounds: None is ``bounds``.
    """

    pitch: Number
    low: Number
    high: Number
    gain: Number = 1.0
    divisor: Number = 1.0
    bounds: tuple[Number, Number] = (-math.inf, math.inf)
    closed: bool = True
    wave_divisor: Number | None = None
    wave_bounds: tuple[Number, Number] | None = None


class Quantizer(Protocol):
    """What compiled calls ask of a quantiser."""

    squash: ClassVar[Literal["none", "tanh"]]

    def grid(self, total_bits: int | None = None) -> Grid:
        """Where the levels lie."""

    def levels(self, given: Given) -> Levels:
        """Its statement."""

    @property
    def channels(self) -> Outputs | None:
        """Where the output channels lie that have levels of their own; None for one set of levels."""


class _OfOneLayer(Given):
    """Computed from the weights when asked for, differentiable."""

    def __init__(self, weight: Tensor, squashed: Tensor, across: tuple[int, ...], *rest: object) -> None:
        super().__init__(*rest)  # type: ignore[arg-type]
        self._weight, self._squashed, self._across = weight, squashed, across

    @property
    def largest(self) -> Tensor:
        return self._weight.detach().abs().amax(self._across)

    @property
    def reach(self) -> Tensor:
        sizes = self._squashed.abs()
        return largest(sizes) if is_sharded(sizes) else sizes.amax(self._across)


def plain_given(
    quantizer: Quantizer, weight: Tensor, bits: Tensor, beta: Tensor, stretch: Number
) -> tuple[Tensor, Given]:
    """f(w), and what the formulas of one layer may use.

    Args:
        quantizer: its squash, its grid and its channels.
        weight: any shape, float32 or wider; (weights of each channel, C) where channels have levels of their own.
        bits: b, 0-dim.
        beta: 0-dim.
        stretch: c, 0-dim or a number.
    """
    squashed = torch.tanh(weight) if quantizer.squash == "tanh" else weight
    across, count = ((), weight.numel()) if quantizer.channels is None else ((0,), len(weight))
    return squashed, _OfOneLayer(weight, squashed, across, quantizer.grid(), bits, beta, stretch, count)


def rounded(squashed: Tensor, levels: Levels, shift: float) -> Tensor:
    """w_q of ``Levels`` for f(w), 0-dim numbers, straight-through within the outermost levels; the shape of f(w)."""
    x = _bounded(squashed, levels.divisor, levels.bounds) / levels.pitch
    if levels.closed:
        index = clip(x, levels.low, levels.high)
    else:
        index = torch.where(x >= levels.high, levels.high, torch.where(x <= levels.low, levels.low, x))
    whole = torch.round(index - shift) + shift
    # summed in this order the index is exactly a whole or half number: weights lie on the grid to the last bit
    steps = whole.detach() + (index - index.detach())
    # and multiplied once, by one number: what is written is the product of a scale and a code (``waveq.integers``)
    if _is_one(levels.gain):
        return steps * levels.pitch
    product = levels.gain * levels.pitch
    dtype = torch.float64 if squashed.dtype is torch.float64 else torch.float32  # of the rows of a table, too
    gain, pitch = (torch.as_tensor(number, dtype=dtype) for number in (levels.gain, levels.pitch))
    settled = settled_step(gain, pitch, levels.high)
    step: Tensor = product + (settled - product).detach()
    return steps * step


def settled_step(gain: Any, pitch: Any, high: Any) -> Any:
    """gain * pitch, the distance of levels in weights, to its last bit such that rounding twice changes nothing.

    Where the gain is max|w| it is found again in the rounded weights, as their outermost level. gain * pitch times k
    misses the gain by a last bit, and repeated, as frozen weights are rounded, it would drift. Divided by k, multiplied
    and divided once more it rests: fl(fl(s k) / k) = s for such an s.

    Args:
        gain: tensor or array.
        pitch: the same.
        high: k, the outermost level in steps.
    """
    top = gain * (pitch * high) / high * high
    return top / high


def wave_coordinate(squashed: Tensor, levels: Levels) -> Tensor:
    """The tensor that the wave acts on, for f(w) and 0-dim numbers; the shape of f(w)."""
    divisor = levels.divisor if levels.wave_divisor is None else levels.wave_divisor
    return _bounded(squashed, divisor, levels.bounds if levels.wave_bounds is None else levels.wave_bounds)


def _bounded(squashed: Tensor, divisor: Number, bounds: tuple[Number, Number]) -> Tensor:
    u = squashed if _is_one(divisor) else squashed / divisor
    low, high = bounds
    unbounded = not isinstance(low, Tensor) and not isinstance(high, Tensor) and low == -math.inf and high == math.inf
    return u if unbounded else clip(u, low, high)


def _is_one(value: Number) -> bool:
    return not isinstance(value, Tensor) and value == 1.0
