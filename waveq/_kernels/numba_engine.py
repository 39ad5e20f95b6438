"""The kernels on the CPU, compiled by Numba: float32, and half precision widened to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from waveq._kernels import numba_kernels as kernels
from waveq._kernels import numba_rounding as rounding_loops
from waveq._kernels.interface import RoundingGradients, WaveRow, WaveSums
from waveq._kernels.lanes import squash_tanh
from waveq._kernels.numba_rounding import CLOSED, TANH, WAVE
from waveq._kernels.recipe import TINY, Coordinate, Plan, Rounding, number
from waveq._kernels.storage import dense, flat, like, widened
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
        job = _Job([dense(widened(weight.detach())) for weight in weights])
        partial = np.zeros(job.chunks, np.int32)
        share_chunks(rounding_loops.largest_chunks, job.chunks, job.edges, job.places, partial)
        found: list[float] = np.maximum.reduceat(partial, job.edges[:-1]).view(np.float32).tolist()
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
        return self.round_many([weight], [Plan(rounding)])[0][0]

    def round_many(self, weights: Sequence[Tensor], plans: Sequence[Plan]) -> tuple[list[Tensor], list[float]]:
        """All weights on their levels in one call, and each layer's mean sin^2 (0 where no wave is planned)."""
        wide = [dense(widened(weight.detach())) for weight in weights]
        outs = [torch.empty_like(weight) for weight in wide]
        job = _Job(wide, plans)
        for place, out in zip(job.places, outs, strict=True):
            place[1] = out.data_ptr()
        partial = np.zeros(job.chunks)
        share_chunks(rounding_loops.round_chunks, job.chunks, job.edges, job.places, job.rows, partial)
        means = np.add.reduceat(partial, job.edges[:-1]) / job.places[:, 3]
        return [out.to(weight.dtype) for out, weight in zip(outs, weights, strict=True)], means.tolist()

    def round_backward(self, weight: Tensor, rounding: Rounding, gradient: Tensor) -> RoundingGradients:
        """The straight-through gradients."""
        return self.pull_back(weight, Plan(rounding), gradient, 0.0)

    def pull_back(self, weight: Tensor, plan: Plan, gradient: Tensor, strength: float) -> RoundingGradients:
        """The straight-through gradients, and ``strength`` times the wave's in the weights on top of them."""
        rounding, wide = plan.rounding, dense(widened(weight.detach()))
        above = like(widened(gradient.detach()), wide)
        out = torch.empty_like(wide)
        job = _Job([wide], [plan])
        job.places[0, 1], job.places[0, 2] = out.data_ptr(), above.data_ptr()
        row, slope = job.rows[0], 0.0
        if plan.wave is not None:
            slope = strength * math.pi * plan.wave.periods * plan.wave.damping / wide.numel()
            row[13] = slope
        partial = np.zeros((job.chunks, 5))
        share_chunks(rounding_loops.round_backward_chunks, job.chunks, job.edges, job.places, job.rows, partial)
        by_pitch, by_gain, by_divisor, moment, _ = partial.sum(axis=0).tolist()
        divisor, pitch, gain = float(row[0]), float(row[3]), float(row[4])
        by_divisor *= -gain / divisor
        if rounding.coordinate.through_largest:
            push = by_divisor - (slope * moment / divisor if slope else 0.0)
            _push_largest(wide, out, rounding.coordinate, push, partial[:, 4])
        mean = moment / wide.numel()
        return RoundingGradients(out.to(weight.dtype), by_divisor, gain * by_pitch, pitch * by_gain, mean)

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
        self.tanh = np.array([row.coordinate.squash == "tanh" for row in rows])
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
        most: float = squash_tanh(np.float32(number(c.largest)))
        if most > TINY:
            return most
    return number(c.divisor)


def _slopes(walk: _Walk, strength: Sequence[float], order: int) -> Table:
    """strength pi n / (N 2^(k beta)): what sin(2 theta) is multiplied with to be the gradient in u."""
    periods = walk.numbers[:, 3].astype(np.float64)
    slopes: Table = np.array(strength) * math.pi * periods * walk.damping_base**order / walk.sizes
    return slopes


class _Job:
    """Tables for one call of a rounding loop, see ``numba_rounding``."""

    def __init__(self, weights: Sequence[Tensor], plans: Sequence[Plan] = ()) -> None:
        self.weights = weights  # alive while addresses point at them
        sizes = [weight.numel() for weight in weights]
        ends = [0]
        for size in sizes:
            ends.append(ends[-1] + count_chunks(size))
        self.edges, self.chunks = np.array(ends), ends[-1]
        kinds = [_kind(plan) for plan in plans] or [0] * len(sizes)
        self.places = np.array(
            [(weight.data_ptr(), 0, 0, size, kind) for weight, size, kind in zip(weights, sizes, kinds, strict=True)]
        )
        self.rows = np.array([_plan_row(plan) for plan in plans], np.float32)


def _kind(plan: Plan) -> int:
    kind = TANH if plan.rounding.coordinate.squash == "tanh" else 0
    return kind + (CLOSED if plan.rounding.closed else 0) + (WAVE if plan.wave is not None else 0)


def _plan_row(plan: Plan) -> list[float]:
    """A row of ``numba_rounding``'s table; the wave's slope is left open."""
    row = plan.rounding.prepared.get("numba")
    if row is None:
        r, c, wave = plan.rounding, plan.rounding.coordinate, plan.wave
        divisor = _divisor(c)
        row = [divisor, c.low, c.high, r.pitch, r.gain, r.low, r.high, r.shift]
        if wave is None:
            row += [1.0, 0.0, 0.0, 0.0, 0.0]
        else:
            v = wave.coordinate
            silent = v.largest == 0.0
            within = math.inf if silent else (divisor if v.squash == "tanh" else v.divisor)
            row += [within, v.low, v.high, wave.periods, wave.grid.shift]
        row = [number(value) for value in row] + [0.0, _largest_to_find(c)]
        plan.rounding.prepared["numba"] = row
    return cast(list[float], row)


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
