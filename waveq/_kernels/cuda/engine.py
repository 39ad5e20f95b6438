"""The kernels on CUDA, compiled by Triton; half precision is read and written as it is.

Nothing here waits for the device: divisors, betas and strengths stay there, and only tables of addresses and shapes are
sent, once for as long as they are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from waveq._kernels import triton_kernels as kernels
from waveq._kernels.interface import RoundingGradients, WaveRow, WaveSums
from waveq._kernels.recipe import Coordinate, Number, Rounding, held
from waveq._kernels.storage import dense, like
from waveq._kernels.triton_kernels import BLOCK

__all__ = ["TritonEngine"]

_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


class TritonEngine:
    """See ``interface.Engine``. Sums are float32, within a block of 4096 weights and over the blocks."""

    name = "triton"
    plain_numbers = False
    joint = False

    def __init__(self) -> None:
        self._tables: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}

    def takes(self, dtype: torch.dtype) -> bool:
        """float32 and the half precisions."""
        return dtype in _DTYPES

    def largest(self, weights: Sequence[Tensor]) -> list[Number]:
        """max|w| of each, 0-dim: a reduction for all layers and no copy of |w|."""
        largest = torch._foreach_norm([weight.detach() for weight in weights], math.inf)
        return [most.float() for most in largest]

    def wave(self, rows: Sequence[WaveRow], beta: Tensor, strength: Tensor, order: int, *, gradients: bool) -> WaveSums:
        """One launch for all layers of a dtype."""
        weights = [dense(row.weight.detach()) for row in rows]
        outs = [torch.empty_like(weight) for weight in weights] if gradients else weights
        numbers, slope = _numbers(rows, beta, strength, order)
        sums = beta.new_zeros((len(rows), 3))
        for dtype, chosen in _by_dtype(weights).items():
            layers, addresses = self._table(chosen, rows, weights, outs)
            partial = beta.new_empty((len(layers), 3), dtype=torch.float32)
            kernels.wave_blocks[(len(layers),)](
                layers, addresses, numbers[chosen], partial, DTYPE=_DTYPES[dtype], GRADIENTS=gradients, BLOCK=BLOCK
            )
            sums[chosen] = _by_layer(partial, [weights[i].numel() for i in chosen])
        if gradients:
            for i, row in enumerate(rows):
                if row.coordinate.through_largest:
                    push = -slope[i] * sums[i, 1] / numbers[i, 0]
                    outs[i] = _push_largest(outs[i], weights[i], row.coordinate, push)
        sizes = torch.tensor([[weight.numel()] for weight in weights], dtype=sums.dtype, device=sums.device)
        means = sums / sizes
        return WaveSums(means[:, 0], means[:, 1], means[:, 2], outs if gradients else None)

    def balance(self, rows: Sequence[WaveRow], beta: Tensor, order: int, tasks: Sequence[Tensor]) -> Tensor:
        """One launch for all layers of a dtype."""
        weights = [dense(row.weight.detach()) for row in rows]
        wide = [like(task.detach().to(weight.dtype), weight) for task, weight in zip(tasks, weights, strict=True)]
        numbers, _ = _numbers(rows, beta, torch.ones_like(beta), order)
        sums = beta.new_zeros((len(rows), 4))
        for dtype, chosen in _by_dtype(weights).items():
            layers, addresses = self._table(chosen, rows, weights, wide)
            partial = beta.new_empty((len(layers), 4), dtype=torch.float32)
            kernels.balance_blocks[(len(layers),)](
                layers, addresses, numbers[chosen], partial, DTYPE=_DTYPES[dtype], BLOCK=BLOCK
            )
            sums[chosen] = _by_layer(partial, [weights[i].numel() for i in chosen])
        return sums

    def round(self, weight: Tensor, rounding: Rounding) -> Tensor:
        """Weights on their levels."""
        weight = dense(weight.detach())
        out, blocks, tanh = torch.empty_like(weight), _blocks(weight), rounding.coordinate.squash == "tanh"
        kernels.round_blocks[(blocks,)](weight, out, _row(weight, rounding), weight.numel(), TANH=tanh, BLOCK=BLOCK)
        return out

    def round_backward(self, weight: Tensor, rounding: Rounding, gradient: Tensor) -> RoundingGradients:
        """The straight-through gradients."""
        weight = dense(weight.detach())
        above, row, c = like(gradient.detach(), weight), _row(weight, rounding), rounding.coordinate
        out, blocks = torch.empty_like(weight), _blocks(weight)
        partial = row.new_empty((blocks, 3))
        flags = {"TANH": c.squash == "tanh", "CLOSED": rounding.closed, "BLOCK": BLOCK}
        kernels.round_backward_blocks[(blocks,)](weight, above, out, row, partial, weight.numel(), **flags)
        by_pitch, by_gain, by_divisor = partial.sum(dim=0).unbind()
        divisor, pitch, gain = row[0], row[3], row[4]
        by_divisor = -gain / divisor * by_divisor
        if c.through_largest:
            out = _push_largest(out, weight, c, by_divisor)
        return RoundingGradients(out, by_divisor, gain * by_pitch, pitch * by_gain)

    def clip_round(self, x: Tensor, low: float, steps: float) -> Tensor:
        """Activations on their levels."""
        x = dense(x.detach())
        out = torch.empty_like(x)
        kernels.clip_round_blocks[(_blocks(x),)](x, out, x.numel(), low, steps, BLOCK=BLOCK)
        return out

    def clip_round_backward(self, x: Tensor, low: float, gradient: Tensor, *, closed: bool = True) -> Tensor:
        """The gradient inside the range."""
        x = dense(x.detach())
        above, out = like(gradient.detach(), x), torch.empty_like(x)
        kernels.clip_round_backward_blocks[(_blocks(x),)](x, above, out, x.numel(), low, CLOSED=closed, BLOCK=BLOCK)
        return out

    def _table(
        self, chosen: Sequence[int], rows: Sequence[WaveRow], weights: Sequence[Tensor], others: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Which block belongs to which layer (kept between calls), and where each layer's tensors lie."""
        device, sizes = weights[0].device, tuple(weights[i].numel() for i in chosen)
        key = (device, sizes)
        if key not in self._tables:
            places = [(n, block) for n, size in enumerate(sizes) for block in range(-(-size // BLOCK))]
            self._tables[key] = (torch.tensor(places, dtype=torch.int32, device=device), torch.empty(0))
        entries = [
            (weights[i].data_ptr(), others[i].data_ptr(), weights[i].numel(), int(rows[i].coordinate.squash == "tanh"))
            for i in chosen
        ]
        return self._tables[key][0], torch.tensor(entries, dtype=torch.int64).to(device, non_blocking=True)


def _by_dtype(weights: Sequence[Tensor]) -> dict[torch.dtype, list[int]]:
    groups: dict[torch.dtype, list[int]] = {}
    for i, weight in enumerate(weights):
        groups.setdefault(weight.dtype, []).append(i)
    return groups


def _blocks(tensor: Tensor) -> int:
    return -(-tensor.numel() // BLOCK)


def _by_layer(partial: Tensor, sizes: Sequence[int]) -> Tensor:
    """Sums over each layer's blocks, in their order."""
    counts = torch.tensor([-(-size // BLOCK) for size in sizes], device=partial.device)
    return torch.segment_reduce(partial, "sum", lengths=counts, axis=0)


def _numbers(rows: Sequence[WaveRow], beta: Tensor, strength: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """The kernels' float table (L, 6), and strength pi n / (N 2^(k beta))."""
    beta = beta.detach().float()
    fixed = [(row.grid.deficit, row.grid.shift, row.weight.numel()) for row in rows]
    deficit, shift, size = torch.tensor(fixed, dtype=torch.float32).to(beta.device, non_blocking=True).unbind(1)
    periods = torch.exp2(beta) - deficit
    slope = strength.to(beta) * math.pi * periods * torch.exp2(-order * beta) / size
    divisors = torch.stack([_divisor(row.coordinate, beta) for row in rows])
    low = torch.stack([held(row.coordinate.low, beta).float() for row in rows])
    high = torch.stack([held(row.coordinate.high, beta).float() for row in rows])
    return torch.stack([divisors, low, high, periods, shift, slope], dim=1).contiguous(), slope


def _divisor(c: Coordinate, beside: Tensor) -> Tensor:
    """The divisor, infinite for an all-zero layer, which has no wave."""
    divisor = held(c.divisor, beside).float()
    return divisor if c.largest is None else torch.where(held(c.largest, beside) == 0, math.inf, divisor)


def _row(weight: Tensor, rounding: Rounding) -> Tensor:
    row: Tensor | None = rounding.prepared.get("triton")
    if row is None:
        c, beside = rounding.coordinate, torch.zeros((), device=weight.device)
        numbers = (c.divisor, c.low, c.high, rounding.pitch, rounding.gain, rounding.low, rounding.high, rounding.shift)
        row = rounding.prepared["triton"] = torch.stack([held(number, beside).float() for number in numbers])
    return row


def _push_largest(out: Tensor, weight: Tensor, c: Coordinate, push: Tensor) -> Tensor:
    """Add the gradient of max|tanh w| times ``push``, split among the weights that are the largest."""
    assert c.largest is not None
    wide = weight.float()
    at = torch.eq(wide.abs(), held(c.largest, wide)).float()
    return (out + push * at / at.sum() * wide.sign() * (1.0 - torch.tanh(wide).square())).to(out.dtype)
