"""The kernels on CUDA, compiled by Triton; half precision is read and written as it is.

Nothing here waits for the device: levels, betas and strengths stay there, and only tables of addresses are sent.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from waveq._kernels.closed_forms import TorchEngine
from waveq._kernels.constants import constants
from waveq._kernels.cuda import kernels
from waveq._kernels.cuda.kernels import BLOCK
from waveq._kernels.engine import SUMS, Table
from waveq._kernels.layout import dense, like
from waveq._kernels.parts import Parts

__all__ = ["TritonEngine"]

_LEAST_BLOCK = 128  # weights of one program, which has as many threads
_MANY = 1024  # numbers of partial sums that are joined at once
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

    def largest(self, weights: Sequence[Tensor], parts: Parts | None = None) -> Tensor:
        """One launch for all layers; another one where they have parts."""
        if parts is None:
            return torch.stack(torch._foreach_norm([weight.detach() for weight in weights], math.inf)).float()
        runs = [dense(weight.detach()) for weight in weights]
        plan = _plan_of(runs, parts)
        bits = torch.empty(len(plan.blocks), dtype=torch.int32, device=runs[0].device)
        kernels.largest_blocks[(len(plan.blocks),)](
            plan.blocks, _addresses(runs, runs, runs), bits, DTYPE=_DTYPES[runs[0].dtype], BLOCK=plan.block
        )
        return _joined(bits, plan.rows, largest=True).view(torch.float32)

    def tanh(self, values: Tensor) -> Tensor:
        """The loops' own."""
        out, block = torch.empty_like(values), 1 << (len(values) - 1).bit_length()
        kernels.tanh_blocks[(1,)](values, out, len(values), BLOCK=block)
        return out

    def round(self, weights: Sequence[Tensor], table: Table) -> tuple[list[Tensor], Tensor]:
        """One launch for all layers."""
        runs = [dense(weight.detach()) for weight in weights]
        outs = [torch.empty_like(run) for run in runs] if table.rounds else []
        plan = _plan_of(runs, table.parts)
        partial = table.rows.new_zeros(len(plan.blocks))
        kernels.round_blocks[(len(plan.blocks),)](
            plan.blocks,
            _addresses(runs, outs or runs, runs),
            table.rows,
            partial,
            DTYPE=_DTYPES[runs[0].dtype],
            TANH=table.tanh,
            ROUND=table.rounds,
            WAVE=table.wave,
            BLOCK=plan.block,
        )
        sizes = constants(tuple(run.numel() for run in runs), torch.float32, partial.device)
        return outs, _joined(partial, plan.layers) / sizes

    def round_backward(
        self, weights: Sequence[Tensor], table: Table, above: Sequence[Tensor | None], slopes: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """One launch for all layers."""
        runs = [dense(weight.detach()) for weight in weights]
        outs = [torch.empty_like(run) for run in runs]
        gradients = _beside(above, runs) if table.rounds else runs
        plan = _plan_of(runs, table.parts)
        partial = table.rows.new_zeros((len(plan.blocks), SUMS))
        kernels.back_blocks[(len(plan.blocks),)](
            plan.blocks,
            _addresses(runs, outs, gradients),
            table.rows,
            slopes.contiguous(),
            partial,
            DTYPE=_DTYPES[runs[0].dtype],
            TANH=table.tanh,
            CLOSED=table.closed,
            ROUND=table.rounds,
            WAVE=table.wave,
            BLOCK=plan.block,
        )
        return outs, _joined(partial, plan.rows)

    def push_largest(self, weights: Sequence[Tensor], table: Table, push: Tensor, out: Sequence[Tensor]) -> None:
        """Layer by layer, in torch."""
        TorchEngine().push_largest(weights, table, push, out)

    def lengths(self, weights: Sequence[Tensor], table: Table, tasks: Sequence[Tensor]) -> Tensor:
        """One launch for all layers."""
        runs = [dense(weight.detach()) for weight in weights]
        gradients = _beside(tasks, runs)
        plan = _plan_of(runs, table.parts)
        partial = table.rows.new_zeros((len(plan.blocks), 4))
        kernels.lengths_blocks[(len(plan.blocks),)](
            plan.blocks,
            _addresses(runs, runs, gradients),
            table.rows,
            partial,
            DTYPE=_DTYPES[runs[0].dtype],
            TANH=table.tanh,
            BLOCK=plan.block,
        )
        return _joined(partial, plan.layers)

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


class _Plan(NamedTuple):
    """Which program does what.

    Attributes:
        block: weights of one program.
        blocks: (programs, 4) int64, see ``kernels``.
        rows: (R + 1,) int64, the first program of each row and the number of all; None where each row has one.
        layers: (L + 1,), the same for layers.
    """

    block: int
    blocks: Tensor
    rows: Tensor | None
    layers: Tensor | None


def _plan_of(runs: Sequence[Tensor], parts: Parts | None) -> _Plan:
    return _planned(tuple(run.numel() for run in runs), None if parts is None else parts.counts, runs[0].device)


@functools.lru_cache(maxsize=64)
def _planned(sizes: tuple[int, ...], counts: tuple[int, ...] | None, device: torch.device) -> _Plan:
    block = BLOCK
    if counts is not None:  # channels are short, and a program takes one
        longest = max(size // count for size, count in zip(sizes, counts, strict=True))
        block = min(BLOCK, max(_LEAST_BLOCK, triton.next_power_of_2(longest)))
    counts = counts or (1,) * len(sizes)
    blocks, rows, layers = list[tuple[int, ...]](), [0], [0]
    for layer, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        long = size // count
        for part in range(count):
            ends = range(part * long, (part + 1) * long, block)
            blocks += [(len(rows) - 1, layer, start, min(start + block, ends.stop)) for start in ends]
            rows.append(len(blocks))
        layers.append(len(blocks))
    with torch.inference_mode(False):
        made = [torch.tensor(each, dtype=torch.int64, device=device) for each in (blocks, rows, layers)]
    alone = [None if len(edges) == len(blocks) + 1 else edges for edges in made[1:]]
    return _Plan(block, made[0], *alone)


def _joined(partial: Tensor, edges: Tensor | None, *, largest: bool = False) -> Tensor:
    """Sums of the programs from each edge to the next, in an order that is the same in every run; or the largest."""
    if edges is None:
        return partial
    sums = 1 if partial.ndim == 1 else partial.shape[1]
    out = partial.new_empty((len(edges) - 1, *partial.shape[1:]))
    width = triton.next_power_of_2(sums)
    kernels.join_blocks[(len(out),)](partial, edges, out, SUMS=sums, WIDTH=width, LARGEST=largest, MANY=_MANY // width)
    return out


def _addresses(runs: Sequence[Tensor], outs: Sequence[Tensor], above: Sequence[Tensor]) -> Tensor:
    entries = [
        (run.data_ptr(), out.data_ptr(), gradient.data_ptr())
        for run, out, gradient in zip(runs, outs, above, strict=True)
    ]
    return torch.tensor(entries, dtype=torch.int64).to(runs[0].device, non_blocking=True)


def _beside(gradients: Sequence[Tensor | None], runs: Sequence[Tensor]) -> list[Tensor]:
    """In the dtype and memory order of the weights; zeros where there is none."""
    return [
        torch.zeros_like(run) if gradient is None else like(gradient.detach().to(run.dtype), run)
        for gradient, run in zip(gradients, runs, strict=True)
    ]
