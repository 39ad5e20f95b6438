"""Evenly spaced levels over a range that is found in the data: for inputs of networks that were trained without one."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from waveq._boundaries import clip
from waveq._kernels.activations import FixedLevels, fixed_levels, fused_round_fixed
from waveq._kernels.backends import engine_for
from waveq._kernels.layout import widened
from waveq.quantizers.activation import DataStarted
from waveq.quantizers.base import TINY, straight_through
from waveq.quantizers.lsq import quantize_by_step

__all__ = ["RangedActivation", "nearest_range"]

_CANDIDATES = 40  # ranges that are tried, evenly up to the largest value
_SAMPLE = 1 << 14  # values that they are tried on


class RangedActivation(DataStarted):
    """x_q = s round(clip(x/s, 0, 2^k - 1)), s = r/(2^k - 1): DoReFa's levels on [0, r] instead of [0, 1].

    Inputs with a sign take m r/(2^(k-1) - 1) on [-r, r]; one signed bit is r times the sign. r is the range at which
    rounding moves the values least (``nearest_range``), of the first training batch or of ``waveq.calibrate``'s, and
    stays. Straight-through inside the range, no gradient outside.

    Until there is a training batch the first one in evaluation stands in for it, for all that follow: a batch's
    neighbours must not decide how it is rounded.

    Attributes:
        range: r, positive; float32, 0-dim, a buffer.

    Args:
        bits: k, 1 to 8.

    Example:
        >>> ranged = RangedActivation(2)
        >>> ranged(torch.tensor([0.0, 2.1, 4.0, 6.0])).tolist(), round(ranged.range.item(), 3)
        ([0.0, 2.0, 4.0, 6.0], 6.0)
    """

    method = "range"
    learns_bits = True

    range: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.register_buffer("range", torch.tensor(1.0))
        self._made: tuple[Hashable, FixedLevels] | None = None  # what depends on the range alone
        self._stands_in = False  # whether a batch in evaluation has set the range

    def start(self, x: Tensor, signed: bool) -> None:
        """r from a batch."""
        if self._stands_in and not self.training:
            return
        self.range.copy_(self.shared(nearest_range(x, self.bits, signed=signed)))
        self._stands_in = bool((x != 0).any())

    def quantize(self, x: Tensor, signed: bool) -> Tensor:
        """The values on the levels of the range."""
        if signed and self.bits == 1:
            size = self.range.to(x.dtype)
            return straight_through(clip(x, -size, size), torch.where(x.detach() < 0, -size, size))
        engine = engine_for(x)
        if engine is not None:
            return fused_round_fixed(engine, x, self._levels(x, signed))
        most = _most(self.bits, signed)
        wide = widened(x)  # half precision has too few digits to tell which level is the nearest
        step = self.range.to(wide.dtype) / most
        return quantize_by_step(wide, step, most if signed else 0.0, most).to(x.dtype)

    def stretched(self, x: Tensor, signed: bool, stretch: Tensor) -> Tensor:
        """The values on multiples of c s."""
        if signed and self.bits == 1:
            return super().stretched(x, signed, stretch)
        most = _most(self.bits, signed)
        return quantize_by_step(x, self.range.to(x.dtype) / most * stretch.to(x.dtype), most if signed else 0.0, most)

    def _levels(self, x: Tensor, signed: bool) -> FixedLevels:
        """Made once: the range stays."""
        key = self.bits, signed, x.dtype, x.device, id(self.range), self.range._version
        if self._made is None or self._made[0] != key:
            most = _most(self.bits, signed)
            with torch.inference_mode(False), torch.no_grad():
                step = self.range.to(x.device) / most
                self._made = key, fixed_levels(x, step, -most if signed else 0.0, most)
        return self._made[1]

    def replaces(self, rectifier: nn.Module) -> bool:
        """A ReLU: whatever is not positive becomes 0 and has no gradient."""
        return type(self).quantize is RangedActivation.quantize and type(rectifier) is nn.ReLU


def _most(bits: int, signed: bool) -> float:
    return 2.0 ** (bits - 1) - 1.0 if signed else 2.0**bits - 1.0


@torch.no_grad()
def nearest_range(x: Tensor, bits: int, *, signed: bool) -> Tensor:
    """The r at which values on k-bit levels over [0, r] (or [-r, r]) lie nearest to the values, by squared error.

    At 8 bits that is nearly the largest value; at 2 bits outliers are left outside, because levels spread up to them
    would leave two for all others.

    Args:
        x: values, any shape; 16384 of them, evenly spaced, are looked at, and the largest of all.
        bits: k.
        signed: whether negative values carry information.

    Returns:
        r, 0-dim float32; not quite 0 for values that all are.

    Example:
        >>> nearest_range(torch.tensor([1.0] * 99 + [100.0]), 1, signed=False).item()
        100.0
        >>> nearest_range(torch.cat([torch.linspace(0, 1, 9999), torch.tensor([4.0])]), 2, signed=False) < 1.2
        tensor(True)
    """
    values = x.detach().reshape(-1).float()
    top = values.abs().max() if signed else values.max()
    values = values[:: max(1, -(-values.numel() // _SAMPLE))]
    if signed and bits == 1:
        return values.abs().mean().clamp_min(TINY)
    most = _most(bits, signed)
    sizes = top.clamp_min(TINY) * torch.arange(_CANDIDATES, 0, -1, device=x.device) / _CANDIDATES
    errors = []
    for size in sizes:
        steps = (values * (most / size)).round_().clamp_(-most if signed else 0.0, most)
        errors.append((steps * (size / most) - values).square_().sum())
    best: Tensor = sizes[torch.stack(errors).argmin()]
    return best
