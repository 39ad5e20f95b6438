"""The kernels on the CPU, compiled by Numba: float32, and half precision widened to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from waveq._kernels import numba_kernels as kernels
from waveq._kernels import numba_rounding as rounding_loops
from waveq._kernels.interface import RoundingGradients, WaveRow, WaveSums
from waveq._kernels.lanes import NEAR
from waveq._kernels.numba_job import RoundingJob, RoundingTables, squashed_divisor
from waveq._kernels.numba_rounding import Columns
from waveq._kernels.recipe import Coordinate, Number, Plan, Rounding, number
from waveq._kernels.storage import dense, flat, like, narrowed, widened
from waveq._kernels.threads import CHUNK, count_chunks, runs_alone, share_chunks

__all__ = ["NumbaEngine"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Table = npt.NDArray[Any]


class NumbaEngine:
    """See ``interface.Engine``. Sums are float32 within 4096 weights and float64 beyond."""

    name = "numba"
    plain_numbers = True
    joint = True

    def takes(self, dtype: torch.dtype) -> bool:
        """float32 and the half precisions, which are widened first."""
        return dtype in _DTYPES

    def largest(self, weights: Sequence[Tensor]) -> list[Number]:
        """One call for all layers."""
        job = RoundingJob(weights)
        job.settle()
        found: list[Number] = job.rows[:, Columns.LARGEST].tolist()
        return found

    def wave(self, rows: Sequence[WaveRow], beta: Tensor, strength: Tensor, order: int, *, gradients: bool) -> WaveSums:
        """One call for all layers."""
        walk = _Walk(rows, beta.tolist())
        slope = _slopes(walk, strength.tolist(), order)
        walk.numbers[:, 5] = slope
        outs = [torch.empty_like(weight) for weight in walk.weights] if gradients else []
        addresses = np.array([out.data_ptr() for out in outs] or [0] * len(rows), np.int64)
        partial = np.zeros((walk.chunks, 4))
        share_chunks(
            kernels.wave_chunks,
            walk.chunks,
            walk.edges,
            walk.addresses,
            addresses,
            walk.sizes,
            walk.tanh,
            walk.numbers,
            partial,
        )
        sums = walk.by_layer(partial)
        for i, (row, out) in enumerate(zip(rows, outs, strict=False)):
            if row.coordinate.through_largest:
                push = -slope[i] * sums[i, 1] / walk.numbers[i, 0]
                largest = walk.numbers[i, 6]
                _push_largest(walk.weights[i], out, largest, push, partial[walk.edges[i] : walk.edges[i + 1], 3])
        means = torch.from_numpy((sums[:, :3] / walk.sizes[:, None]).astype(np.float32))
        kept = [out.to(row.weight.dtype) for out, row in zip(outs, rows, strict=True)] if gradients else None
        return WaveSums(means[:, 0], means[:, 1], means[:, 2], kept)

    def balance(self, rows: Sequence[WaveRow], beta: Tensor, order: int, tasks: Sequence[Tensor]) -> Tensor:
        """One call for all layers."""
        walk = _Walk(rows, beta.tolist())
        wide = [like(widened(task.detach()), weight) for task, weight in zip(tasks, walk.weights, strict=True)]
        addresses = np.array([task.data_ptr() for task in wide], np.int64)
        partial = np.zeros((walk.chunks, 4))
        share_chunks(
            kernels.balance_chunks,
            walk.chunks,
            walk.edges,
            walk.addresses,
            addresses,
            walk.sizes,
            walk.tanh,
            walk.numbers,
            partial,
        )
        amplitude = _slopes(walk, [1.0] * len(rows), order)[:, None]
        scale = np.hstack([amplitude**2, amplitude**2, amplitude, np.ones_like(amplitude)])
        return torch.from_numpy(walk.by_layer(partial) * scale)

    def round(self, weight: Tensor, rounding: Rounding) -> Tensor:
        """Weights on their levels."""
        job = RoundingJob([weight])
        job.set([0], [Plan(rounding)], follows=False)
        return narrowed(job.run()[0][0], weight)

    def job(self, weights: Sequence[Tensor]) -> RoundingJob:
        """See ``interface.JointEngine``."""
        return RoundingJob(weights)

    def round_backward(self, weight: Tensor, rounding: Rounding, gradient: Tensor) -> RoundingGradients:
        """The straight-through gradients."""
        wide = widened(weight)
        job = RoundingJob([wide])
        job.set([0], [Plan(rounding)], follows=False)
        job.settle()
        (found,) = self.pull_back([wide], [Plan(rounding)], job.tables(slice(0, 1)), [widened(gradient)], [0.0])
        return replace(found, weight=narrowed(found.weight, weight))

    def pull_back(
        self,
        weights: Sequence[Tensor],
        plans: Sequence[Plan],
        tables: RoundingTables,
        gradients: Sequence[Tensor],
        strengths: Sequence[float],
    ) -> list[RoundingGradients]:
        """See ``interface.JointEngine``."""
        runs = [dense(weight) for weight in weights]
        above = [like(gradient, run) for gradient, run in zip(gradients, runs, strict=True)]
        outs = [torch.empty_like(run) for run in runs]
        edges, places, rows = tables.edges, tables.places, tables.rows
        places[:, :3] = [
            (w.data_ptr(), out.data_ptr(), g.data_ptr()) for w, out, g in zip(runs, outs, above, strict=True)
        ]
        rows[:, Columns.SLOPE] = [
            0.0 if plan.wave is None else strength * math.pi * plan.wave.periods * plan.wave.damping / run.numel()
            for plan, strength, run in zip(plans, strengths, runs, strict=True)
        ]
        chunks = int(edges[-1])
        partial, sums = np.empty((chunks, 5)), np.empty((len(runs), 5))
        if runs_alone(chunks):
            rounding_loops.back_at_once(chunks, edges, places, rows, partial, sums)
        else:
            share_chunks(rounding_loops.round_backward_chunks, chunks, edges, places, rows, partial)
            rounding_loops.sum_by_layer(edges, partial, sums)
        found = []
        for i, (row, total, out) in enumerate(zip(rows.tolist(), sums.tolist(), outs, strict=True)):
            grads = _gradients(row, total, out)
            if plans[i].rounding.coordinate.through_largest:
                push = grads.divisor - row[Columns.SLOPE] * total[3] / row[Columns.DIVISOR]
                _push_largest(runs[i], out, rows[i, Columns.LARGEST], push, partial[edges[i] : edges[i + 1], 4])
            found.append(grads)
        return found

    def clip_round(self, x: Tensor, low: float, steps: float) -> Tensor:
        """Activations on their levels."""
        wide = dense(widened(x.detach()))
        out = torch.empty_like(wide)
        chunks, bounds = count_chunks(wide.numel()), (np.float32(low), np.float32(steps))
        share_chunks(kernels.clip_round_chunks, chunks, wide.data_ptr(), out.data_ptr(), wide.numel(), *bounds)
        return out.to(x.dtype)

    def clip_round_backward(self, x: Tensor, low: float, gradient: Tensor, *, closed: bool = True) -> Tensor:
        """The gradient inside the range."""
        wide = dense(widened(x.detach()))
        above = like(widened(gradient.detach()), wide)
        out = torch.empty_like(wide)
        addresses = (wide.data_ptr(), above.data_ptr(), out.data_ptr())
        chunks = count_chunks(wide.numel())
        share_chunks(kernels.clip_round_backward_chunks, chunks, *addresses, wide.numel(), np.float32(low), closed)
        return out.to(x.dtype)


def _gradients(row: Sequence[float], sums: Sequence[float], out: Tensor) -> RoundingGradients:
    """From a layer's row of the table and its sums, see ``numba_rounding.round_backward_chunks``."""
    by_pitch, by_gain, by_divisor, moment, _ = sums
    divisor, pitch, gain = row[Columns.DIVISOR], row[Columns.PITCH], row[Columns.GAIN]
    return RoundingGradients(
        out, by_divisor * (-gain / divisor), gain * by_pitch, pitch * by_gain, moment / out.numel()
    )


class _Walk:
    """Tables for one pass over all layers; keeps the widened weights alive while addresses point at them."""

    def __init__(self, rows: Sequence[WaveRow], betas: Sequence[float]) -> None:
        self.weights = [dense(widened(row.weight.detach())) for row in rows]
        self.sizes = np.array([weight.numel() for weight in self.weights], np.int64)
        self.addresses = np.array([weight.data_ptr() for weight in self.weights], np.int64)
        self.edges = np.concatenate([[0], np.cumsum(-(-self.sizes // CHUNK))])
        self.chunks = int(self.edges[-1])
        self.tanh = np.array([_squash_kind(row.coordinate) for row in rows])
        self.damping_base = np.exp2(-np.array(betas))
        self.numbers = np.array([_wave_row(row, beta) for row, beta in zip(rows, betas, strict=True)], np.float32)

    def by_layer(self, partial: Table) -> Table:
        """Sums over each layer's chunks, in their order."""
        sums: Table = np.add.reduceat(partial, self.edges[:-1], axis=0)
        return sums


def _wave_row(row: WaveRow, beta: float) -> tuple[float, ...]:
    c = row.coordinate
    silent = c.largest is not None and number(c.largest) == 0.0
    divisor = math.inf if silent else squashed_divisor(c)
    periods = 2.0**beta - row.grid.deficit
    low, high = (-math.inf, math.inf) if c.squash == "tanh" else (number(c.low), number(c.high))
    return divisor, low, high, periods, row.grid.shift, 0.0, _largest_to_find(c)


def _slopes(walk: _Walk, strength: Sequence[float], order: int) -> Table:
    """strength pi n / (N 2^(k beta)): what sin(2 theta) is multiplied with to be the gradient in u."""
    periods = walk.numbers[:, 3].astype(np.float64)
    slopes: Table = np.array(strength) * math.pi * periods * walk.damping_base**order / walk.sizes
    return slopes


def _squash_kind(c: Coordinate) -> int:
    """See ``numba_kernels.squash``."""
    if c.squash != "tanh":
        return 0
    return 2 if c.largest is not None and number(c.largest) <= NEAR else 1


def _largest_to_find(coordinate: Coordinate) -> float:
    return number(coordinate.largest) if coordinate.through_largest and coordinate.largest is not None else 0.0


def _push_largest(weight: Tensor, out: Tensor, largest: Any, push: float, counts: Table) -> None:
    """Add the gradient of max|tanh w| times ``push``, split among the weights that are the largest."""
    w, g = flat(weight).numpy(), flat(out).numpy()
    total = counts.sum()
    for k in np.flatnonzero(counts):
        part = slice(k * CHUNK, (k + 1) * CHUNK)
        at = np.abs(w[part]) == largest
        g[part][at] += (push / total * np.sign(w[part]) * (1.0 - np.tanh(w[part]) ** 2))[at]
