"""The kernels on CUDA, compiled by Triton; half precision is read and written as it is.

Nothing here waits for the device: levels, betas and strengths stay there, and only tables of addresses are sent.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import torch
import triton.language as tl
from torch import Tensor

from waveq._kernels.cuda import kernels
from waveq._kernels.cuda.kernels import BLOCK
from waveq._kernels.engine import SUMS, Column, Table
from waveq._kernels.layout import dense, like

__all__ = ["TritonEngine"]

_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


class TritonEngine:
    """See ``engine.Engine``. Sums are float32, within a block of 4096 weights and over the blocks."""

    name = "triton"

    def takes(self, dtype: torch.dtype) -> bool:
        """float32 and the half precisions."""
        return dtype in _DTYPES

    def joins(self, dtype: torch.dtype) -> bool:
        """One launch for all layers, in every dtype."""
        return True

    def largest(self, weights: Sequence[Tensor]) -> Tensor:
        """A reduction for all layers and no copy of |w|."""
        return torch.stack(torch._foreach_norm([weight.detach() for weight in weights], math.inf)).float()

    def tanh(self, values: Tensor) -> Tensor:
        """The loops' own."""
        out, block = torch.empty_like(values), 1 << (len(values) - 1).bit_length()
        kernels.tanh_blocks[(1,)](values, out, len(values), BLOCK=block)
        return out

    def round(self, weights: Sequence[Tensor], table: Table) -> tuple[list[Tensor], Tensor]:
        """One launch for all layers."""
        runs = [dense(weight.detach()) for weight in weights]
        outs = [torch.empty_like(run) for run in runs] if table.rounds else []
        blocks, partial = _blocks_of(runs), table.rows.new_zeros(_count(runs))
        kernels.round_blocks[(len(blocks),)](
            blocks,
            _addresses(runs, outs or runs, runs),
            table.rows,
            partial,
            DTYPE=_DTYPES[runs[0].dtype],
            TANH=table.tanh,
            ROUND=table.rounds,
            WAVE=table.wave,
            BLOCK=BLOCK,
        )
        sizes = constants(tuple(run.numel() for run in runs), torch.float32, partial.device)
        return outs, _by_layer(partial, runs) / sizes

    def round_backward(
        self, weights: Sequence[Tensor], table: Table, above: Sequence[Tensor | None], slopes: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """One launch for all layers."""
        runs = [dense(weight.detach()) for weight in weights]
        outs = [torch.empty_like(run) for run in runs]
        gradients = _beside(above, runs) if table.rounds else runs
        blocks, partial = _blocks_of(runs), table.rows.new_zeros((_count(runs), SUMS))
        kernels.back_blocks[(len(blocks),)](
            blocks,
            _addresses(runs, outs, gradients),
            table.rows,
            slopes.contiguous(),
            partial,
            DTYPE=_DTYPES[runs[0].dtype],
            TANH=table.tanh,
            CLOSED=table.closed,
            ROUND=table.rounds,
            WAVE=table.wave,
            BLOCK=BLOCK,
        )
        return outs, _by_layer(partial, runs)

    def push_largest(self, weights: Sequence[Tensor], table: Table, push: Tensor, out: Sequence[Tensor]) -> None:
        """Layer by layer, in torch."""
        for weight, row, share, gradient in zip(weights, table.rows, push, out, strict=True):
            wide = dense(weight.detach()).float()
            at = torch.eq(wide.abs(), row[Column.LARGEST]).float()
            bend = 1.0 - torch.tanh(wide).square() if table.tanh else 1.0
            gradient.add_((share * at / at.sum() * wide.sign() * bend).to(gradient.dtype))

    def lengths(self, weights: Sequence[Tensor], table: Table, tasks: Sequence[Tensor]) -> Tensor:
        """One launch for all layers."""
        runs = [dense(weight.detach()) for weight in weights]
        gradients = _beside(tasks, runs)
        blocks, partial = _blocks_of(runs), table.rows.new_zeros((_count(runs), 4))
        kernels.lengths_blocks[(len(blocks),)](
            blocks,
            _addresses(runs, runs, gradients),
            table.rows,
            partial,
            DTYPE=_DTYPES[runs[0].dtype],
            TANH=table.tanh,
            BLOCK=BLOCK,
        )
        return _by_layer(partial, runs)

    def clip_round(self, x: Tensor, low: float, steps: float) -> Tensor:
        """Activations on their levels."""
        x = dense(x.detach())
        out = torch.empty_like(x)
        kernels.clip_round_blocks[(_blocks(x.numel()),)](x, out, x.numel(), low, steps, BLOCK=BLOCK)
        return out

    def clip_round_backward(self, x: Tensor, low: float, gradient: Tensor, *, closed: bool = True) -> Tensor:
        """The gradient inside the range."""
        x = dense(x.detach())
        above, out, blocks = like(gradient.detach(), x), torch.empty_like(x), _blocks(x.numel())
        kernels.clip_round_backward_blocks[(blocks,)](x, above, out, x.numel(), low, CLOSED=closed, BLOCK=BLOCK)
        return out


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _count(runs: Sequence[Tensor]) -> int:
    return sum(_blocks(run.numel()) for run in runs)


def _blocks_of(runs: Sequence[Tensor]) -> Tensor:
    """Which block belongs to which layer, (programs, 2)."""
    return _table_of(tuple(run.numel() for run in runs), runs[0].device)


@functools.lru_cache(maxsize=64)
def _table_of(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    places = [(layer, block) for layer, size in enumerate(sizes) for block in range(_blocks(size))]
    with torch.inference_mode(False):
        return torch.tensor(places, dtype=torch.int32, device=device)


def _addresses(runs: Sequence[Tensor], outs: Sequence[Tensor], above: Sequence[Tensor]) -> Tensor:
    entries = [
        (run.data_ptr(), out.data_ptr(), gradient.data_ptr(), run.numel())
        for run, out, gradient in zip(runs, outs, above, strict=True)
    ]
    return torch.tensor(entries, dtype=torch.int64).to(runs[0].device, non_blocking=True)


def _beside(gradients: Sequence[Tensor | None], runs: Sequence[Tensor]) -> list[Tensor]:
    """In the dtype and memory order of the weights; zeros where there is none."""
    return [
        torch.zeros_like(run) if gradient is None else like(gradient.detach().to(run.dtype), run)
        for gradient, run in zip(gradients, runs, strict=True)
    ]


def _by_layer(partial: Tensor, runs: Sequence[Tensor]) -> Tensor:
    """Sums over each layer's blocks, in their order."""
    counts = constants(tuple(_blocks(run.numel()) for run in runs), torch.int64, partial.device)
    return torch.segment_reduce(partial, "sum", lengths=counts, axis=0)
