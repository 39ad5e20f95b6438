"""What a compiled kernel must know of a quantiser: which function squashes the weights, and five numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from waveq.functional import Grid

__all__ = ["TINY", "Coordinate", "Leaf", "Number", "Plan", "Rounding", "Wave", "at_least", "held", "number"]

Number = Tensor | float  # 0-dim tensors where the device must not be waited for, plain numbers on the CPU
TINY = 1e-12  # an all-zero layer divides by this instead of by 0


# Recipes are made for every layer and step; frozen dataclasses would take three times as long to fill.
@dataclass(slots=True)
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


@dataclass(slots=True)
class Leaf:
    """A learned 0-dim tensor behind numbers that a recipe holds as plain ones, and their slopes in it.

    Attributes:
        tensor: what learns.
        divisor: d divisor / d tensor.
        pitch: d pitch / d tensor.
        gain: d gain / d tensor.
        by_wave: whether the wave's own gradient goes on to it: it is the beta that sets the wave.
    """

    tensor: Tensor
    divisor: float = 0.0
    pitch: float = 0.0
    gain: float = 0.0
    by_wave: bool = False


@dataclass(slots=True)
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
        closed: whether a u exactly on an outermost level still counts as inside, as ``clip`` has it; LSQ's does not.
        divisor_follows: whether the divisor is max|f(w)|, which an engine may find by itself.
        gain_follows: whether the gain is max|w|.
        leaves: what learns behind plain numbers; tensors among the numbers carry their gradients themselves.
        prepared: an engine's own form of these numbers, made once.
    """

    coordinate: Coordinate
    pitch: Number
    gain: Number
    low: Number
    high: Number
    shift: float
    closed: bool = True
    divisor_follows: bool = False
    gain_follows: bool = False
    leaves: tuple[Leaf, ...] = ()
    prepared: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(slots=True)
class Wave:
    """One layer's wave in plain numbers.

    Attributes:
        coordinate: u, squashed by the same function as the u of the rounding beside it.
        beta: magnitude bits.
        grid: where the zeros lie.
        order: k of R_k.
    """

    coordinate: Coordinate
    beta: float
    grid: Grid
    order: int

    @property
    def periods(self) -> float:
        """Periods of the wave per unit of u."""
        periods: float = 2.0**self.beta - self.grid.deficit
        return periods

    @property
    def damping(self) -> float:
        """2^(-k beta)."""
        damping: float = 2.0 ** (-self.order * self.beta)
        return damping


@dataclass(slots=True)
class Plan:
    """What one pass over a layer's weights computes: their levels, and beside them the wave where it is wanted.

    Attributes:
        rounding: where the levels lie.
        wave: which wave; None where it is not wanted.
    """

    rounding: Rounding
    wave: Wave | None = None


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
    if type(value) is float:  # nearly always, and asking whether something else is a tensor takes four times as long
        return value
    return value.item() if isinstance(value, Tensor) else value
