"""The same passes in closed forms of plain torch: the twin that the compiled kernels are compared with.

It takes every dtype and device, and is what float64 weights use, so that ``gradcheck`` goes through the same autograd
functions as training does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from waveq._kernels.interface import RoundingGradients, WaveRow, WaveSums
from waveq._kernels.recipe import Coordinate, Number, Rounding, held
from waveq._kernels.storage import widened
from waveq.functional import frequency, phase

__all__ = ["TorchEngine"]


class TorchEngine:
    """See ``interface.Engine``."""

    name = "torch"
    plain_numbers = False
    joint = False

    def takes(self, dtype: torch.dtype) -> bool:
        """Every floating dtype."""
        return dtype.is_floating_point

    def largest(self, weights: Sequence[Tensor]) -> list[Number]:
        """max|w| of each, 0-dim."""
        return [widened(weight.detach()).abs().max() for weight in weights]

    def wave(self, rows: Sequence[WaveRow], beta: Tensor, strength: Tensor, order: int, *, gradients: bool) -> WaveSums:
        """Layer by layer, a handful of passes each."""
        means, pulls = [], []
        for row, b, a in zip(rows, beta.detach(), strength, strict=True):
            wide = widened(row.weight.detach())
            u, slope, free = _coordinate(wide, row.coordinate, silence=True)
            theta2 = 2.0 * math.pi * phase(u, b.to(u.dtype), row.grid)
            sine = torch.sin(theta2)
            means.append(
                torch.stack([(1.0 - torch.cos(theta2)).mean() / 2.0, (u * sine).mean(), (u * sine * free).mean()])
            )
            if gradients:
                du = a * math.pi * frequency(b, row.grid) * torch.exp2(-order * b) / u.numel() * sine
                push = -(du * u).sum() / held(row.coordinate.divisor, u)
                pulls.append(_push_largest(du * slope, wide, row.coordinate, push).to(row.weight.dtype))
        table = torch.stack(means)
        return WaveSums(table[:, 0], table[:, 1], table[:, 2], pulls if gradients else None)

    def balance(self, rows: Sequence[WaveRow], beta: Tensor, order: int, tasks: Sequence[Tensor]) -> Tensor:
        """Layer by layer."""
        sums = []
        for row, b, task in zip(rows, beta.detach(), tasks, strict=True):
            u, slope, _ = _coordinate(widened(row.weight.detach()), row.coordinate, silence=True)
            theta2 = 2.0 * math.pi * phase(u, b.to(u.dtype), row.grid)
            amplitude = math.pi * frequency(b, row.grid) * torch.exp2(-order * b) / u.numel()
            pull, twin, task = (
                amplitude * torch.sin(theta2) * slope,
                amplitude * torch.cos(theta2) * slope,
                widened(task),
            )
            products = (pull.square(), twin.square(), task * pull, task.square())
            sums.append(torch.stack([product.sum() for product in products]))
        return torch.stack(sums)

    def round(self, weight: Tensor, rounding: Rounding) -> Tensor:
        """Weights on their levels."""
        u, _, _ = _coordinate(widened(weight.detach()), rounding.coordinate)
        _, steps, _ = _steps(u, rounding)
        return (held(rounding.gain, u) * (steps * held(rounding.pitch, u))).to(weight.dtype)

    def round_backward(self, weight: Tensor, rounding: Rounding, gradient: Tensor) -> RoundingGradients:
        """The straight-through gradients."""
        c, wide, g = rounding.coordinate, widened(weight.detach()), widened(gradient.detach())
        gain, pitch = held(rounding.gain, wide), held(rounding.pitch, wide)
        u, slope, free = _coordinate(wide, c)
        x, steps, within = _steps(u, rounding)
        passed = g * within
        by_divisor = -gain / held(c.divisor, wide) * (passed * u * free).sum()
        out = _push_largest(gain * passed * slope, wide, c, by_divisor)
        by_pitch = gain * (g * steps - passed * x).sum()
        return RoundingGradients(out.to(weight.dtype), by_divisor, by_pitch, pitch * (g * steps).sum())

    def clip_round(self, x: Tensor, low: float, steps: float) -> Tensor:
        """Activations on their levels."""
        return (torch.round(widened(x.detach()).clamp(low, 1.0) * steps) / steps).to(x.dtype)

    def clip_round_backward(self, x: Tensor, low: float, gradient: Tensor, *, closed: bool = True) -> Tensor:
        """The gradient inside the range."""
        above = x.detach() >= low if closed else x.detach() > low
        return torch.where(above & (x.detach() <= 1.0), gradient, 0.0)


def _coordinate(wide: Tensor, c: Coordinate, *, silence: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """u, du/dw with the divisor held, and 1 where no clip holds the weight; ``silence`` all-zero layers."""
    divisor = held(c.divisor, wide)
    if silence and c.largest is not None:
        divisor = torch.where(held(c.largest, wide) == 0, math.inf, divisor)
    if c.squash == "tanh":
        t = torch.tanh(wide)
        return t / divisor, (1.0 - t.square()) / divisor, torch.ones_like(t)
    x = wide / divisor
    u = torch.clamp(x, held(c.low, wide), held(c.high, wide))
    free = torch.eq(x, u).to(x.dtype)
    return u, free / divisor, free


def _steps(u: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor, Tensor]:
    """u in steps, the level in steps, and 1 where no outermost level holds it."""
    x, low, high = u / held(rounding.pitch, u), held(rounding.low, u), held(rounding.high, u)
    level = torch.clamp(x, low, high)
    within = torch.eq(x, level) if rounding.closed else torch.gt(x, low) & torch.lt(x, high)
    return x, torch.round(level - rounding.shift) + rounding.shift, within.to(x.dtype)


def _push_largest(out: Tensor, wide: Tensor, c: Coordinate, push: Tensor) -> Tensor:
    """Add the gradient of max|tanh w| times ``push``, split among the weights that are the largest."""
    if not c.through_largest or c.largest is None:
        return out
    at = torch.eq(wide.abs(), held(c.largest, wide)).to(out.dtype)
    return out + push * at / at.sum() * wide.sign() * (1.0 - torch.tanh(wide).square())
