"""The kernels on the CPU, compiled by Numba: float32, and half precision widened to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from waveq._kernels.cpu import inputs, loops
from waveq._kernels.cpu.tables import addresses, edges_of, layer_edges, sums_between
from waveq._kernels.cpu.threads import count_chunks, share_chunks
from waveq._kernels.engine import SUMS, Table
from waveq._kernels.layout import dense, like, narrowed, widened
from waveq._kernels.parts import Parts

__all__ = ["NumbaEngine"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class NumbaEngine:
    """See ``engine.Engine``. Sums are float32 within 4096 weights and float64 beyond."""

    name = "numba"

    def takes(self, dtype: torch.dtype) -> bool:
        """float32 and the half precisions, which are widened first."""
        return dtype in _DTYPES

    def joins(self, dtype: torch.dtype) -> bool:
        """float32: widened copies of all layers at once would be too many."""
        return dtype is torch.float32

    def largest(self, weights: Sequence[Tensor], parts: Parts | None = None) -> Tensor:
        """One call for all layers."""
        runs = _runs(weights)
        edges = edges_of(runs, parts)
        bits = np.empty(edges[-1], np.int32)
        share_chunks(loops.largest_chunks, int(edges[-1]), edges, addresses(runs, parts=parts), bits)
        return torch.from_numpy(np.maximum.reduceat(bits, edges[:-1]).view(np.float32))

    def tanh(self, values: Tensor) -> Tensor:
        """As the loops take it of their weights."""
        squashed = torch.empty_like(values)
        loops.tanh_of(values.numpy(), squashed.numpy())
        return squashed

    def round(self, weights: Sequence[Tensor], table: Table) -> tuple[list[Tensor], Tensor]:
        """One call for all layers."""
        runs = _runs(weights)
        outs = [torch.empty_like(run) for run in runs] if table.rounds else []
        edges, places = edges_of(runs, table.parts), addresses(runs, outs, parts=table.parts)
        partial = np.empty(edges[-1])
        share_chunks(loops.round_chunks, int(edges[-1]), _kind(table), edges, places, table.rows.numpy(), partial)
        means = sums_between(partial, layer_edges(edges, table.parts)) / [max(run.numel(), 1) for run in runs]
        made = [narrowed(out, weight) for out, weight in zip(outs, weights, strict=False)]
        return made, torch.from_numpy(means.astype(np.float32))

    def round_backward(
        self, weights: Sequence[Tensor], table: Table, above: Sequence[Tensor | None], slopes: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """One call for all layers."""
        runs = _runs(weights)
        outs = [torch.empty_like(run) for run in runs]
        gradients = _beside(above, runs) if table.rounds else []
        edges, places = edges_of(runs, table.parts), addresses(runs, outs, gradients, table.parts)
        partial, rows = np.zeros((edges[-1], SUMS)), table.rows.numpy()
        share_chunks(loops.back_chunks, int(edges[-1]), _kind(table), edges, places, rows, slopes.numpy(), partial)
        made = [narrowed(out, weight) for out, weight in zip(outs, weights, strict=True)]
        return made, torch.from_numpy(sums_between(partial, edges))

    def push_largest(self, weights: Sequence[Tensor], table: Table, push: Tensor, out: Sequence[Tensor]) -> None:
        """Row by row."""
        runs, sums = _runs(weights), [widened(each) for each in out]
        loops.push_largest_chunks(
            addresses(runs, sums, parts=table.parts), table.rows.numpy(), _kind(table), push.numpy()
        )
        for each, wide in zip(out, sums, strict=True):
            if wide is not each:
                each.copy_(wide)

    def lengths(self, weights: Sequence[Tensor], table: Table, tasks: Sequence[Tensor]) -> Tensor:
        """One call for all layers."""
        runs = _runs(weights)
        gradients = _beside(tasks, runs)
        edges, places = edges_of(runs, table.parts), addresses(runs, (), gradients, table.parts)
        partial = np.empty((edges[-1], 4))
        share_chunks(loops.lengths_chunks, int(edges[-1]), _kind(table), edges, places, table.rows.numpy(), partial)
        return torch.from_numpy(sums_between(partial, layer_edges(edges, table.parts)))

    def clip_round(self, x: Tensor, low: float, steps: float) -> Tensor:
        """Activations on their levels."""
        wide = dense(widened(x.detach()))
        out = torch.empty_like(wide)
        chunks, bounds = count_chunks(wide.numel()), (np.float32(low), np.float32(steps))
        share_chunks(inputs.clip_round_chunks, chunks, wide.data_ptr(), out.data_ptr(), wide.numel(), *bounds)
        return narrowed(out, x)

    def clip_round_backward(self, x: Tensor, low: float, gradient: Tensor, *, closed: bool = True) -> Tensor:
        """The gradient inside the range."""
        wide = dense(widened(x.detach()))
        above = like(widened(gradient.detach()), wide)
        out = torch.empty_like(wide)
        places = (wide.data_ptr(), above.data_ptr(), out.data_ptr())
        chunks = count_chunks(wide.numel())
        share_chunks(inputs.clip_round_backward_chunks, chunks, *places, wide.numel(), np.float32(low), closed)
        return narrowed(out, x)


def _kind(table: Table) -> int:
    flags = (
        (table.tanh, loops.TANH),
        (table.closed, loops.CLOSED),
        (table.rounds, loops.ROUND),
        (table.wave, loops.WAVE),
    )
    return sum(kind for wanted, kind in flags if wanted)


def _runs(weights: Sequence[Tensor]) -> list[Tensor]:
    return [dense(widened(weight)) for weight in weights]


def _beside(gradients: Sequence[Tensor | None], runs: Sequence[Tensor]) -> list[Tensor]:
    """float32 in the memory order of the weights; zeros where there is none."""
    return [
        torch.zeros_like(run) if gradient is None else like(widened(gradient.detach()), run)
        for gradient, run in zip(gradients, runs, strict=True)
    ]
