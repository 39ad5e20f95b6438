"""WRPN's weight quantiser (Mishra et al. 2018, arXiv 1709.01134, eq. 1): clip and round on the mid-tread grid."""

from __future__ import annotations

from torch import Tensor, nn

from waveq._boundaries import clip
from waveq._kernels.recipe import TINY, Coordinate, Leaf, Number, Rounding, at_least
from waveq.functional import Grid
from waveq.quantizers.base import ScaleMode, WeightQuantizer, damped, kept_positive

__all__ = ["WRPN"]


class WRPN(WeightQuantizer):
    """u = clip(w / s, -1, 1) rounded to the mid-tread grid: 2^B - 1 levels, zero among them; two bits are ternary.

    As published (``scale="none"``) s = 1, and small weights all round to 0. ``scale="max"`` takes s = max|w|, the usual
    symmetric quantiser; ``scale="learned"`` trains s, starting from max|w|, with LSQ's gradient through the division
    and the product, damped by 1/sqrt(N) (Esser et al. 2020, section 2.2); below zero it counts as (almost) zero and
    keeps its gradient, so that it comes back. One bit is binary: the mid-rise grid.

    Args:
        weight: the layer's weights, to start a learned scale from.
        total_bits: not needed; the range is the same for every number of bits.
        scale: "none", "max" or "learned".
    """

    method = "wrpn"

    def __init__(self, weight: Tensor, *, total_bits: int | None = None, scale: ScaleMode | None = None) -> None:
        super().__init__(weight, total_bits=total_bits, scale=scale)
        if self.scale == "learned":
            self.level_scale = nn.Parameter(weight.detach().abs().max().clamp_min(TINY).float())

    def grid(self, total_bits: int | None = None) -> Grid:
        """Mid-tread from two bits on, mid-rise for one."""
        return Grid.MID_RISE if total_bits == 1 else Grid.MID_TREAD

    def unit(self, weight: Tensor) -> Tensor:
        """clip(w / s, -1, 1)."""
        return clip(weight / self.gain(weight), -1.0, 1.0)

    def coordinate(self, weight: Tensor, beta: Tensor) -> Tensor:
        """``unit`` with s held: the wave would move a learned s to where every weight is 0."""
        return clip(weight / self.gain(weight).detach(), -1.0, 1.0)

    def gain(self, weight: Tensor) -> Tensor:
        """s: 1, max|w| or the learned scale, kept positive."""
        if self.scale == "learned":
            return damped(kept_positive(self.level_scale), weight.numel() ** -0.5)
        return weight.new_ones(()) if self.scale == "none" else weight.detach().abs().max().clamp_min(TINY)

    def compiles(self) -> bool:
        """Yes, unless a subclass has other formulas."""
        return self.computes_as(WRPN)

    def coordinate_recipe(self, weight: Tensor, largest: Number, beta: Number) -> Coordinate:
        """See ``coordinate``."""
        divisor = self._divisor(weight, largest, plain=isinstance(beta, float))
        held = divisor.detach() if isinstance(divisor, Tensor) else divisor
        return Coordinate("clip", held, largest, -1.0, 1.0)

    def _divisor(self, weight: Tensor, largest: Number, *, plain: bool) -> Number:
        if self.scale == "learned":
            return max(self.level_scale.item(), TINY) if plain else self.gain(weight)
        return at_least(largest, TINY) if self.scale == "max" else 1.0

    def rounding_recipe(self, weight: Tensor, largest: Number, bits: Number, grid_scale: Number) -> Rounding:
        """See ``forward``."""
        plain = isinstance(bits, float)
        divisor = self._divisor(weight, largest, plain=plain)
        leaves: tuple[Leaf, ...] = ()
        if plain and self.scale == "learned":  # damped, and with its gradient where it is kept positive; see ``gain``
            slope = weight.numel() ** -0.5
            leaves = (Leaf(self.level_scale, divisor=slope, gain=slope),)
        coordinate = Coordinate("clip", divisor, largest, -1.0, 1.0)
        steps: Number = 2.0**bits - self.grid().deficit
        follows, pitch = self.scale == "max", grid_scale / steps
        return Rounding(coordinate, pitch, divisor, -steps, steps, self.grid().shift, True, follows, follows, leaves)
