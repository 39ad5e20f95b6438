"""Quantizers that the experiments compare with those of waveq; importing this file registers them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from waveq.functional import Grid
from waveq.quantizers import register
from waveq.quantizers.base import Given, Levels, straight_through
from waveq.quantizers.dorefa import DoReFa
from waveq.quantizers.lsq import LSQ

__all__ = ["LearnedPowerOfTwo", "TanhWithZero"]


@register("dorefa-with-zero")
class TanhWithZero(DoReFa):
    """DoReFa's tanh on the mid-tread grid: u = tanh(w)/max|tanh(w)| rounded to m/(2^b - 1), 2^B - 1 levels.

    Example:
        >>> weight = torch.tensor([-1.0, 0.1, 0.9])
        >>> TanhWithZero(weight, scale="max")(weight, torch.tensor(1.0)).tolist()
        [-1.0, 0.0, 1.0]
    """

    def grid(self, total_bits: int | None = None) -> Grid:
        """Mid-tread from two bits on, mid-rise for one."""
        return Grid.MID_RISE if total_bits == 1 else Grid.MID_TREAD


@register("lsq-power-of-two")
class LearnedPowerOfTwo(LSQ):
    """LSQ whose step in use is 2^round(log2 s), straight-through to s (Jain et al. 2020, arXiv 1903.08066).

    Example:
        >>> weight = torch.tensor([-0.5, 0.1, 0.2])
        >>> lsq = LearnedPowerOfTwo(weight, total_bits=3)
        >>> round(lsq.step.item(), 3), lsq(weight, torch.tensor(2.0)).tolist()
        (0.308, [-0.5, 0.0, 0.25])
    """

    def levels(self, given: Given) -> Levels:
        """LSQ's, with the pitch and what the wave divides by on a power of two."""
        own = super().levels(given)
        pitch: Any = own.pitch
        rounded = straight_through(pitch, pitch.detach().log2().round().exp2())
        stretch = given.stretch.detach() if isinstance(given.stretch, torch.Tensor) else given.stretch
        return replace(own, pitch=rounded, wave_divisor=rounded.detach() * given.steps / stretch)
