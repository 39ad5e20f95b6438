"""The kernels on the CPU, compiled by Numba: float32, and half precision widened to it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from waveq._kernels import numba_kernels as kernels
from waveq._kernels import numba_rounding as rounding_loops
from waveq._kernels.interface import RoundingGradients, WaveRow, WaveSums
from waveq._kernels.lanes import NEAR, squash_tanh, squash_tanh_near
from waveq._kernels.numba_rounding import CLOSED, NEAR_TANH, TANH, WAVE, Columns
from waveq._kernels.recipe import TINY, Coordinate, Plan, Rounding, number
from waveq._kernels.storage import dense, flat, like, narrowed, widened
from waveq._kernels.threads import CHUNK, count_chunks, share_chunks

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

    def largest(self, weight: Tensor) -> float:
        """max|w|."""
        return self.largest_of([weight])[0]

    def largest_of(self, weights: Sequence[Tensor]) -> list[float]:
        """max|w| of each, in one call."""
        job = _Job(weights)
        partial = np.zeros(job.chunks, np.int32)
        share_chunks(rounding_loops.largest_chunks, job.chunks, job.edges, job.places, partial)
        found: list[float] = np.maximum.reduceat(partial, job.starts).view(np.float32).tolist()
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
                _push_largest(walk.weights[i], out, row.coordinate, push, partial[walk.edges[i] : walk.edges[i + 1], 3])
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
        return self.round_many([weight], [Plan(rounding, largest=_largest_known(rounding.coordinate))])[0][0]

    def round_many(self, weights: Sequence[Tensor], plans: Sequence[Plan]) -> tuple[list[Tensor], list[float]]:
        """All weights on their levels in one call, and each layer's mean sin^2 (0 where no wave is planned)."""
        job = _Job(weights)
        outs = [torch.empty_like(weight) for weight in job.weights]
        job.places[:, 1] = [out.data_ptr() for out in outs]
        job.places[:, 4] = [_kind(plan) for plan in plans]
        rows = np.array([_row(plan) for plan in plans], np.float32)
        for plan, row in zip(plans, rows, strict=True):
            plan.prepared = row
        partial = np.zeros(job.chunks)
        share_chunks(rounding_loops.round_chunks, job.chunks, job.edges, job.places, rows, partial)
        means: list[float] = (np.add.reduceat(partial, job.starts) / job.places[:, 3]).tolist()
        return [narrowed(out, weight) for out, weight in zip(outs, weights, strict=True)], means

    def round_backward(self, weight: Tensor, rounding: Rounding, gradient: Tensor) -> RoundingGradients:
        """The straight-through gradients."""
        plan = Plan(rounding, largest=_largest_known(rounding.coordinate))
        return self.pull_back(weight, plan, gradient, 0.0)

    def pull_back(self, weight: Tensor, plan: Plan, gradient: Tensor, strength: float) -> RoundingGradients:
        """The straight-through gradients, and ``strength`` times the wave's in the weights on top of them."""
        wide, kind = dense(widened(weight)), _kind(plan)
        above = like(widened(gradient), wide)
        out = torch.empty_like(wide)
        size = wide.numel()
        row = np.array(_row(plan), np.float32) if plan.prepared is None else plan.prepared
        if plan.wave is None or strength == 0.0:
            kind &= ~WAVE
        else:
            row = row.copy()  # the same rounding may go back twice at once
            row[Columns.SLOPE] = strength * math.pi * plan.wave.periods * plan.wave.damping / size
        place = np.array([wide.data_ptr(), out.data_ptr(), above.data_ptr(), size, kind])
        chunks = count_chunks(size)
        partial = np.zeros((chunks, 5))
        share_chunks(rounding_loops.round_backward_chunks, chunks, place, row, partial)
        by_pitch, by_gain, by_divisor, moment, _ = np.add.reduce(partial, 0).tolist()
        divisor, pitch, gain = float(row[Columns.DIVISOR]), float(row[Columns.PITCH]), float(row[Columns.GAIN])
        by_divisor *= -gain / divisor
        if plan.rounding.coordinate.through_largest:
            push = by_divisor - float(row[Columns.SLOPE]) * moment / divisor
            _push_largest(wide, out, plan.rounding.coordinate, push, partial[:, 4])
        return RoundingGradients(narrowed(out, weight), by_divisor, gain * by_pitch, pitch * by_gain, moment / size)

    def clip_round(self, x: Tensor, low: float, steps: float) -> Tensor:
        """Activations on their levels."""
        wide = dense(widened(x.detach()))
        out = torch.empty_like(wide)
        chunks, bounds = count_chunks(wide.numel()), (np.float32(low), np.float32(steps))
        share_chunks(kernels.clip_round_chunks, chunks, wide.data_ptr(), out.data_ptr(), wide.numel(), *bounds)
        return out.to(x.dtype)

    def clip_round_backward(self, x: Tensor, low: float, gradient: Tensor) -> Tensor:
        """The gradient inside the range."""
        wide = dense(widened(x.detach()))
        above = like(widened(gradient.detach()), wide)
        out = torch.empty_like(wide)
        addresses = (wide.data_ptr(), above.data_ptr(), out.data_ptr())
        chunks = count_chunks(wide.numel())
        share_chunks(kernels.clip_round_backward_chunks, chunks, *addresses, wide.numel(), np.float32(low))
        return out.to(x.dtype)


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
    divisor = math.inf if silent else _divisor(c)
    periods = 2.0**beta - row.grid.deficit
    low, high = (-math.inf, math.inf) if c.squash == "tanh" else (number(c.low), number(c.high))
    return divisor, low, high, periods, row.grid.shift, 0.0, _largest_to_find(c)


def _divisor(c: Coordinate) -> float:
    """The divisor; max|tanh w| by the kernels' own tanh, so that the largest u is exactly 1."""
    if c.squash == "tanh" and c.largest is not None:
        largest = number(c.largest)
        squashed: float = (squash_tanh_near if largest <= NEAR else squash_tanh)(np.float32(largest))
        if squashed > TINY:
            return squashed
    return number(c.divisor)


def _slopes(walk: _Walk, strength: Sequence[float], order: int) -> Table:
    """strength pi n / (N 2^(k beta)): what sin(2 theta) is multiplied with to be the gradient in u."""
    periods = walk.numbers[:, 3].astype(np.float64)
    slopes: Table = np.array(strength) * math.pi * periods * walk.damping_base**order / walk.sizes
    return slopes


class _Job:
    """Where the layers of one call lie, see ``numba_rounding``; keeps the widened weights alive."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights = [dense(widened(weight.detach())) for weight in weights]
        sizes = [weight.numel() for weight in self.weights]
        edges = [0, *itertools.accumulate(map(count_chunks, sizes))]
        self.chunks = edges[-1]
        self.edges = np.array(edges)
        self.starts = self.edges[:-1]
        self.places = np.array(
            [(weight.data_ptr(), 0, 0, size, 0) for weight, size in zip(self.weights, sizes, strict=True)]
        )


def _kind(plan: Plan) -> int:
    kind = CLOSED if plan.rounding.closed else 0
    if plan.rounding.coordinate.squash == "tanh":
        kind += TANH + (NEAR_TANH if plan.largest <= NEAR else 0)
    return kind if plan.wave is None else kind + WAVE


def _row(plan: Plan) -> list[float]:
    """A row of ``numba_rounding``'s table; the wave's slope is left open."""
    r, c, wave = plan.rounding, plan.rounding.coordinate, plan.wave
    divisor, pitch = _divisor(c), number(r.pitch)
    phase = [1.0, 0.0, 0.0, 0.0, 0.0]
    if wave is not None:
        v = wave.coordinate
        within = math.inf if v.largest == 0.0 else (divisor if v.squash == "tanh" else v.divisor)
        phase = [number(within), number(v.low), number(v.high), wave.periods, wave.grid.shift]
    ends = [number(c.low), number(c.high), pitch, number(r.gain), number(r.low), number(r.high), r.shift]
    return [divisor, *ends, *phase, 0.0, _largest_to_find(c), 1.0 / (divisor * pitch)]


def _largest_known(c: Coordinate) -> float:
    return math.inf if c.largest is None else number(c.largest)


def _squash_kind(c: Coordinate) -> int:
    """See ``numba_kernels.squash``."""
    if c.squash != "tanh":
        return 0
    return 2 if _largest_known(c) <= NEAR else 1


def _largest_to_find(coordinate: Coordinate) -> float:
    return number(coordinate.largest) if coordinate.through_largest and coordinate.largest is not None else 0.0


def _push_largest(weight: Tensor, out: Tensor, coordinate: Coordinate, push: float, counts: Table) -> None:
    """Add the gradient of max|tanh w| times ``push``, split among the weights that are the largest."""
    assert coordinate.largest is not None
    w, g, largest = flat(weight).numpy(), flat(out).numpy(), np.float32(number(coordinate.largest))
    total = counts.sum()
    for k in np.flatnonzero(counts):
        part = slice(k * CHUNK, (k + 1) * CHUNK)
        at = np.abs(w[part]) == largest
        g[part][at] += (push / total * np.sign(w[part]) * (1.0 - np.tanh(w[part]) ** 2))[at]
