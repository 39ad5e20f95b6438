"""LQ-Nets (Zhang et al. 2018, arXiv 1807.10029): levels are sums of a learned basis; for weights and activations."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from waveq._boundaries import clip
from waveq.functional import Grid, grid_levels
from waveq.layers import Outputs
from waveq.quantizers._binary_codes import assign, binary_codes, moved_basis, sorted_levels
from waveq.quantizers._piecewise import piecewise_coordinate
from waveq.quantizers.activation import DataStarted
from waveq.quantizers.base import TINY, ScaleMode, WeightQuantizer, straight_through

__all__ = ["LQNets", "LQNetsActivation"]

_QUARTILE = 0.6745  # of the normal distribution: where the released code puts the outer levels' scale
_START_ROUNDS = 10  # of the fit to the starting weights, or the first inputs
_SAMPLE = 1 << 14  # inputs that the start is fitted to
_FIRST_AXIS = Outputs()


class LQNets(WeightQuantizer):
    """Levels v^T e, e in {-1, 1}^K, K = B, with a basis v of its own for each output filter.

    Each weight goes to the nearest level. In training, each forward pass with gradients moves the basis a tenth of the
    way to its least-squares fit to the present weights and codes (algorithm 1); the user's optimizer has no part in
    it. The gradient is straight-through. The basis travels in the ``state_dict``.

    It starts at the powers of two times the filter's spread and is fitted to the starting weights by ten whole rounds
    (the released code starts from the spread that a He initialisation would have).

    The levels are not equally far apart: the wave acts on the coordinate that is linear between neighbouring levels and
    on the mid-rise grid on them. Its crests are the midpoints, where the rounding changes. Storing the weights takes
    K binary planes and the basis; ``Policy.scales`` says nothing of them.

    Bits cannot be learned: the basis of K bits is no stretched basis of K - 1.

    Args:
        weight: the layer's weights, at least two axes or one filter.
        total_bits: K, 1 to 8.
        scale: "learned" alone.
        outputs: where the output filters lie; the weight's first axis, but for transposed convolutions.
    """

    method = "lqnets"
    activation = "lqnets"
    scale_modes = ("learned",)
    by_output = True
    bit_counts = range(1, 9)
    learns_bits = False

    basis: Tensor

    def __init__(
        self,
        weight: Tensor,
        *,
        total_bits: int | None = None,
        scale: ScaleMode | None = None,
        outputs: Outputs = _FIRST_AXIS,
    ) -> None:
        super().__init__(weight, total_bits=total_bits, scale=scale)
        assert total_bits is not None  # the registry does not make it without bits
        self.bits, self.outputs = total_bits, outputs
        rows = outputs.rows(weight.detach().float())
        self._numbers = len(rows)
        size = rows.square().mean(dim=1, keepdim=True).sqrt().clamp_min(TINY)
        powers = 2.0 ** torch.arange(total_bits, device=rows.device, dtype=rows.dtype)
        basis = size * powers * _QUARTILE / 2.0 ** (total_bits - 1)
        codes = binary_codes(total_bits, signed=True, like=basis)
        for _ in range(_START_ROUNDS):
            basis = moved_basis(rows, basis, codes, memory=0.0)
        self.register_buffer("basis", basis)

    def grid(self, total_bits: int | None = None) -> Grid:
        """Mid-rise: an even number of levels."""
        return Grid.MID_RISE

    def coordinate(self, weight: Tensor, beta: Tensor) -> Tensor:
        """The piecewise linear coordinate; see the class."""
        rows = self.outputs.rows(weight)
        levels, _ = self._levels(rows)
        heights = grid_levels(self.bits, Grid.MID_RISE).to(rows)
        return self.outputs.back(piecewise_coordinate(rows, levels, heights), weight)

    def pitch(self, weight: Tensor, bits: Tensor, grid_scale: Tensor) -> None:
        """Many distances, not one."""

    def forward(self, weight: Tensor, bits: Tensor, grid_scale: Tensor | None = None) -> Tensor:
        """Quantised weights; the bits are the ones that the basis was made for."""
        rows = self.outputs.rows(weight.detach())
        levels, codes = self._levels(rows)
        values = levels.gather(1, assign(rows, levels))
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.basis.copy_(moved_basis(rows, self.basis.to(rows.dtype), codes))
        return straight_through(weight, self.outputs.back(values, weight))

    def binary_coordinate(self, weight: Tensor) -> Tensor:
        """The same as for more bits."""
        return self.coordinate(weight, weight.new_ones(()))

    def binarize(self, weight: Tensor) -> Tensor:
        """One bit: the same as for more."""
        return self(weight, weight.new_zeros(()))  # type: ignore[no-any-return]

    def _levels(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        codes = binary_codes(self.bits, signed=True, like=rows)
        return sorted_levels(self.basis.to(rows.dtype), codes)[0], codes


class LQNetsActivation(DataStarted):
    """Levels v^T e, e in {0, 1}^K, one basis a layer; inputs with a sign take e in {-1, 1}^K.

    The gradient is straight-through between the outermost levels and 0 beyond. Each training batch moves the basis a
    tenth of the way to its least-squares fit. It starts at the powers of two on the scale of the first training batch
    and is fitted to that batch by ten whole rounds, as the weights' is; once more, for the new codes, where inputs turn
    out to have a sign later.

    Args:
        bits: K, 1 to 8.

    Example:
        >>> lq = LQNetsActivation(2)
        >>> lq(torch.rand(64)).unique().numel()
        4
    """

    method = "lqnets"

    basis: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.register_buffer("basis", torch.ones(1, bits))
        self._outgrown = False  # whether inputs took a sign since the basis was fitted

    def start(self, x: Tensor, signed: bool) -> None:
        """The basis from a batch."""
        some = x[x != 0]
        size = (some.square().mean().sqrt() if some.numel() else x.new_ones(())).clamp_min(TINY)
        powers = 2.0 ** torch.arange(self.bits, device=x.device)
        basis = size * powers[None] * 2 * _QUARTILE / (2.0**self.bits - 1)
        row = x.reshape(1, -1)
        row = row[:, :: max(1, -(-row.numel() // _SAMPLE))]
        codes = binary_codes(self.bits, signed=signed, like=row)
        for _ in range(_START_ROUNDS):
            basis = moved_basis(row, basis, codes, memory=0.0)
        self.basis.copy_(self.shared(basis))

    def take_sign(self) -> None:
        """The next batch fits the basis to the new codes; under torch.distributed the next training batch."""
        self._outgrown = True

    def quantize(self, x: Tensor, signed: bool) -> Tensor:
        """The values on the levels of the basis, which a training batch moves afterwards."""
        if self._outgrown and (self.training or not (dist.is_available() and dist.is_initialized())):
            self._outgrown = False
            with torch.no_grad():
                self.start(x.detach(), signed)
        row = x.detach().reshape(1, -1)
        codes = binary_codes(self.bits, signed=signed, like=row)
        levels, _ = sorted_levels(self.basis.to(row.dtype), codes)
        clipped = clip(x, levels[0, 0], levels[0, -1])
        values = levels.gather(1, assign(row, levels)).reshape(x.shape)
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                self.basis.copy_(moved_basis(row, self.basis.to(row.dtype), codes))
        return straight_through(clipped, values)
