"""What an engine computes: plain data in, tensors out, no autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from waveq._kernels.recipe import Coordinate, Number, Plan, Rounding
from waveq.functional import Grid

__all__ = ["Engine", "Job", "JointEngine", "RoundingGradients", "WaveRow", "WaveSums"]


@dataclass(frozen=True, slots=True)
class WaveRow:
    """One layer's part in a pass over all layers.

    Attributes:
        weight: the float weights; float32, bfloat16 or float16 (``TorchEngine``: any).
        coordinate: how u follows from them.
        grid: where the zeros of the wave lie.
    """

    weight: Tensor
    coordinate: Coordinate
    grid: Grid


@dataclass(frozen=True, slots=True)
class WaveSums:
    """Per layer, each of shape (L,), float32 at least, over the N weights of the layer.

    Attributes:
        sine: mean sin^2(theta).
        moment: mean u sin(2 theta).
        inside: the same over the weights that no clip holds.
        gradients: strength times dR_k/dw, one tensor a layer, in the layout and dtype of the weights; None unless
            asked for.
    """

    sine: Tensor
    moment: Tensor
    inside: Tensor
    gradients: list[Tensor] | None


@dataclass(frozen=True, slots=True)
class RoundingGradients:
    """What goes back through one rounding: a tensor for the weights, a number each for divisor, pitch and gain.

    ``moment`` is the mean of u sin(2 theta) where the wave went along.
    """

    weight: Tensor
    divisor: Number
    pitch: Number
    gain: Number
    moment: float = 0.0


class Engine(Protocol):
    """One implementation of all kernels.

    Attributes:
        name: what ``waveq.backend()`` shows.
        plain_numbers: whether recipes may hold plain numbers, because nothing has to be waited for to know them.
        joint: whether it is a ``JointEngine``.
    """

    name: str
    plain_numbers: bool
    joint: bool

    def takes(self, dtype: torch.dtype) -> bool:
        """Whether the kernels exist for this dtype."""

    def largest(self, weights: Sequence[Tensor]) -> list[Number]:
        """max|w| of each, float32 at least; NaN where a weight is NaN."""

    def wave(self, rows: Sequence[WaveRow], beta: Tensor, strength: Tensor, order: int, *, gradients: bool) -> WaveSums:
        """One pass over all layers; beta and strength have shape (L,)."""

    def balance(self, rows: Sequence[WaveRow], beta: Tensor, order: int, tasks: Sequence[Tensor]) -> Tensor:
        """(L, 4): sums of pull^2, of its quarter-period twin^2, of task * pull and of task^2."""

    def round(self, weight: Tensor, rounding: Rounding) -> Tensor:
        """gain * pitch * (whole steps), in the dtype and layout of the weights."""

    def round_backward(self, weight: Tensor, rounding: Rounding, gradient: Tensor) -> RoundingGradients:
        """The straight-through gradients; u is computed again from the weights."""

    def clip_round(self, x: Tensor, low: float, steps: float) -> Tensor:
        """round(clip(x, low, 1) steps) / steps."""

    def clip_round_backward(self, x: Tensor, low: float, gradient: Tensor, *, closed: bool = True) -> Tensor:
        """The gradient where low <= x <= 1, or low < x <= 1 unless ``closed``; zero elsewhere."""


class Tables(Protocol):
    """How some layers were rounded, in an engine's own form; the way back writes to them."""

    def some(self, places: Sequence[int]) -> Tables:
        """Copies of some layers' rows."""


class Job(Protocol):
    """A call that rounds several layers, kept for as long as their weights lie where they are."""

    def fits(self, weights: Sequence[Tensor]) -> bool:
        """Whether it is one for these weights as they lie now."""

    def set(self, places: Sequence[int], plans: Sequence[Plan], *, follows: bool) -> None:
        """How some layers are rounded; ``follows``: what the recipes take from max|w| is taken from the weights."""

    def run(self) -> tuple[list[Tensor], list[float], list[float]]:
        """All weights on their levels, each layer's mean sin^2 where a wave is planned, its max|w|."""

    def tables(self, part: slice) -> Tables:
        """Copies of some layers' rows, as the last run left them."""


class JointEngine(Engine, Protocol):
    """An engine that rounds many layers in one call and lets the wave ride along; plain numbers only."""

    def job(self, weights: Sequence[Tensor]) -> Job:
        """Tables for a call; the weights are float32."""

    def pull_back(
        self,
        weights: Sequence[Tensor],
        plans: Sequence[Plan],
        tables: Any,
        gradients: Sequence[Tensor],
        strengths: Sequence[float],
    ) -> list[RoundingGradients]:
        """What goes back through the roundings, and each strength times the wave's gradient in the weights with it.

        ``tables`` are those of the job that rounded the weights.
        """
