"""What a compiled kernel must know of a quantiser: which function squashes the weights, and five numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

__all__ = ["TINY", "Coordinate", "Rounding"]

TINY = 1e-12  # an all-zero layer divides by this instead of by 0


@dataclass(frozen=True, slots=True)
class Coordinate:
    """u = clip(f(w) / divisor, low, high), f being tanh or nothing.

    Attributes:
        squash: "tanh", which is not clipped (its divisor bounds it), or "clip".
        divisor: 0-dim, positive; differentiable where the method learns it.
        largest: max|w|, 0-dim, constant. An all-zero layer has no wave: its u is 0 and feels no pull. None says that u
            is the weights themselves, whatever they are.
        low: lower end of the clip, 0-dim or a number; minus infinity for none.
        high: upper end.
        through_largest: whether the divisor is max|f(w)| and carries a gradient to the largest weights, split among
            equals as torch does.
    """

    squash: Literal["tanh", "clip"]
    divisor: Tensor
    largest: Tensor | None
    low: Tensor | float
    high: Tensor | float
    through_largest: bool = False


@dataclass(frozen=True, slots=True)
class Rounding:
    """w_q = gain * pitch * (round(clip(u / pitch, low, high) - shift) + shift).

    Attributes:
        coordinate: u.
        pitch: distance of neighbouring levels in units of u, 0-dim, positive, differentiable.
        gain: factor from u to weights, 0-dim, differentiable where learned.
        low: the lowest level in steps, 0-dim or a number.
        high: the highest.
        shift: 0 where zero is a level, 1/2 where it lies between two.
        closed: whether a u exactly on an outermost level still counts as inside, as in ``torch.clamp``; LSQ's does not.
    """

    coordinate: Coordinate
    pitch: Tensor
    gain: Tensor
    low: Tensor | float
    high: Tensor | float
    shift: float
    closed: bool = True
