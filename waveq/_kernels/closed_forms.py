"""The same passes in closed forms of plain torch: the twin that the compiled kernels are compared with.

It takes every dtype and device, and is what float64 weights use, so that ``gradcheck`` goes through the same autograd
functions as training does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from waveq._kernels.engine import Column, Table
from waveq._kernels.layout import widened
from waveq._kernels.parts import Parts

__all__ = ["TorchEngine"]


class TorchEngine:
    """See ``engine.Engine``; layer by layer."""

    name = "torch"

    def takes(self, dtype: torch.dtype) -> bool:
        """Every floating dtype."""
        return dtype.is_floating_point

    def joins(self, dtype: torch.dtype) -> bool:
        """Yes, so that the same nodes are made."""
        return True

    def largest(self, weights: Sequence[Tensor], parts: Parts | None = None) -> Tensor:
        """max|w| of each row."""
        counts = [1] * len(weights) if parts is None else parts.counts
        sizes = [widened(weight.detach()).abs() for weight in weights]
        return torch.cat([size.reshape(count, -1).amax(dim=1) for size, count in zip(sizes, counts, strict=True)])

    def tanh(self, values: Tensor) -> Tensor:
        """torch's."""
        return torch.tanh(values)

    def round(self, weights: Sequence[Tensor], table: Table) -> tuple[list[Tensor], Tensor]:
        """Weights on their levels."""
        made, means = [], []
        for weight, row in zip(weights, _rows(table, weights), strict=True):
            t = _squashed(weight, table)
            if table.rounds:
                _, _, steps, _, _ = _steps(t, row, table.closed)
                made.append((steps * row[Column.STEP]).to(weight.dtype))
            means.append((1.0 - torch.cos(_angle(t, row)[2])).mean() / 2.0)
        return made, torch.stack(means).to(table.rows.dtype)

    def round_backward(
        self, weights: Sequence[Tensor], table: Table, above: Sequence[Tensor | None], slopes: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """The straight-through gradients and the wave's."""
        outs, sums, steep = [], [], _beside(slopes, table, weights)
        for weight, row, gradient, slope in zip(weights, _rows(table, weights), above, steep, strict=True):
            t, count = _squashed(weight, table), slope.numel()
            out, found = torch.zeros_like(t), [t.new_zeros(count)] * 5
            if table.rounds and gradient is not None:
                g = widened(gradient.detach())
                u, x, steps, within, free = _steps(t, row, table.closed)
                passed = g * within
                out = row[Column.GAIN] / row[Column.DIVISOR] * passed * free
                found[:3] = [_sums(each, count) for each in (g * steps - passed * x, g * steps, passed * free * u)]
            if table.wave:
                v, inside, theta2 = _angle(t, row)
                double = torch.sin(theta2)
                out = out + slope / row[Column.V_DIVISOR] * double * inside
                found[3:] = [_sums(each, count) for each in (v * double, v * double * inside)]
            outs.append((out * (1.0 - t.square()) if table.tanh else out).to(weight.dtype))
            sums.append(torch.stack(found, dim=1))
        return outs, torch.cat(sums)

    def push_largest(self, weights: Sequence[Tensor], table: Table, push: Tensor, out: Sequence[Tensor]) -> None:
        """Split among the weights that are the largest."""
        pushes = _beside(push, table, weights)
        for weight, row, share, gradient in zip(weights, _rows(table, weights), pushes, out, strict=True):
            wide = widened(weight.detach())
            at = torch.eq(wide.abs(), row[Column.LARGEST]).to(wide.dtype)
            bend = 1.0 - torch.tanh(wide).square() if table.tanh else 1.0
            number = _sums(at, share.numel()).reshape(share.shape)
            gradient.add_((share * at / number * wide.sign() * bend).to(gradient.dtype))

    def lengths(self, weights: Sequence[Tensor], table: Table, tasks: Sequence[Tensor]) -> Tensor:
        """Four sums of products."""
        sums = []
        for weight, row, task in zip(weights, _rows(table, weights), tasks, strict=True):
            t, g = _squashed(weight, table), widened(task.detach())
            _, inside, theta2 = _angle(t, row)
            slope = inside / row[Column.V_DIVISOR] * (1.0 - t.square() if table.tanh else 1.0)
            pull, twin = torch.sin(theta2) * slope, torch.cos(theta2) * slope
            sums.append(torch.stack([each.sum() for each in (pull.square(), twin.square(), g * pull, g.square())]))
        return torch.stack(sums)

    def clip_round(self, x: Tensor, low: float, steps: float) -> Tensor:
        """Activations on their levels."""
        return (torch.round(widened(x.detach()).clamp(low, 1.0) * steps) / steps).to(x.dtype)

    def clip_round_backward(self, x: Tensor, low: float, gradient: Tensor, *, closed: bool = True) -> Tensor:
        """The gradient inside the range."""
        above = x.detach() >= low if closed else x.detach() > low
        return torch.where(above & (x.detach() <= 1.0), gradient, 0.0)


def _rows(table: Table, weights: Sequence[Tensor]) -> list[Tensor]:
    """Each weight's columns: numbers, or in a shape with one number for each of its channels along the first axis."""
    if table.parts is None:
        return list(table.rows)
    blocks = torch.split(table.rows, list(table.parts.counts))
    return [
        block.T.reshape(block.shape[1], *_along(weight, len(block)))
        for block, weight in zip(blocks, weights, strict=True)
    ]


def _beside(numbers: Tensor, table: Table, weights: Sequence[Tensor]) -> list[Tensor]:
    """One number a row in the shapes of ``_rows``."""
    if table.parts is None:
        return list(numbers)
    parts = torch.split(numbers, list(table.parts.counts))
    return [part.reshape(_along(weight, len(part))) for part, weight in zip(parts, weights, strict=True)]


def _along(weight: Tensor, count: int) -> tuple[int, ...]:
    return () if count == 1 else (count, *[1] * (weight.ndim - 1))


def _sums(values: Tensor, count: int) -> Tensor:
    """(count,) sums over equal parts along the first axis."""
    return values.reshape(count, -1).sum(dim=1)


def _squashed(weight: Tensor, table: Table) -> Tensor:
    wide = widened(weight.detach())
    return torch.tanh(wide) if table.tanh else wide


def _steps(t: Tensor, row: Tensor, closed: bool) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """u, u in steps, the level in steps, 1 where no outermost level holds it, 1 where no bound holds u."""
    scaled = t / row[Column.DIVISOR]
    u = scaled.clamp(row[Column.U_LOW], row[Column.U_HIGH])
    x, low, high, shift = u / row[Column.PITCH], row[Column.LOW], row[Column.HIGH], row[Column.SHIFT]
    level = x.clamp(low, high)
    within = torch.eq(x, level) if closed else torch.gt(x, low) & torch.lt(x, high)
    return u, x, torch.round(level - shift) + shift, within.to(x.dtype), torch.eq(u, scaled).to(x.dtype)


def _angle(t: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The wave's coordinate v, 1 where no bound holds it, and 2 theta."""
    scaled = t / row[Column.V_DIVISOR]
    v = scaled.clamp(row[Column.V_LOW], row[Column.V_HIGH])
    return v, torch.eq(v, scaled).to(v.dtype), 2.0 * math.pi * (v * row[Column.PERIODS] + row[Column.SHIFT])
