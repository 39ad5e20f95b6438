"""What a compiled kernel must know of a quantiser: which function squashes the weights, and five numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

__all__ = ["TINY", "Coordinate", "Number", "Rounding", "at_least", "held", "number"]

Number = Tensor | float  # 0-dim tensors where the device must not be waited for, plain numbers on the CPU
TINY = 1e-12  # an all-zero layer divides by this instead of by 0


@dataclass(frozen=True, slots=True)
class Coordinate:
    """u = clip(f(w) / divisor, low, high), f being tanh or nothing.

    Attributes:
        squash: "tanh", which is not clipped (its divisor bounds it), or "clip".
        divisor: positive; differentiable where the method learns it.
        largest: max|w|, constant. An all-zero layer has no wave: its u is 0 and feels no pull. None says that u
            is the weights themselves, whatever they are.
        low: lower end of the clip; minus infinity for none.
        high: upper end.
        through_largest: whether the divisor is max|f(w)| and carries a gradient to the largest weights, split among
            equals as torch does.
    """

    squash: Literal["tanh", "clip"]
    divisor: Number
    largest: Number | None
    low: Number
    high: Number
    through_largest: bool = False


@dataclass(frozen=True, slots=True)
class Rounding:
    """w_q = gain * pitch * (round(clip(u / pitch, low, high) - shift) + shift).

    Attributes:
        coordinate: u.
        pitch: distance of neighbouring levels in units of u, positive, differentiable where learned; proportional
            to the stretch c(beta).
        gain: factor from u to weights, differentiable where learned.
        low: the lowest level in steps.
        high: the highest.
        shift: 0 where zero is a level, 1/2 where it lies between two.
        closed: whether a u exactly on an outermost level still counts as inside, as in ``torch.clamp``; LSQ's does not.
        prepared: an engine's own form of these numbers, made once.
    """

    coordinate: Coordinate
    pitch: Number
    gain: Number
    low: Number
    high: Number
    shift: float
    closed: bool = True
    prepared: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


def at_least(value: Number, least: float) -> Number:
    """max(value, least).

    Example:
        >>> at_least(0.0, 1e-12)
        1e-12
    """
    return value.clamp_min(least) if isinstance(value, Tensor) else max(value, least)


def held(value: Number, like: Tensor) -> Tensor:
    """The value as a constant 0-dim tensor beside ``like``.

    Example:
        >>> import torch
        >>> held(2.5, torch.zeros(3))
        tensor(2.5000)
    """
    return value.detach() if isinstance(value, Tensor) else like.new_tensor(value)


def number(value: Number) -> float:
    """The value as a plain number; waits for the device where it is not on the CPU.

    Example:
        >>> number(2.5)
        2.5
    """
    return value.item() if isinstance(value, Tensor) else value
