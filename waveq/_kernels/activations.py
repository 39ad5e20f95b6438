"""Activations on their levels behind autograd functions that keep nothing but their inputs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from waveq._kernels.engine import Engine, Table, rows_of
from waveq._kernels.layout import narrowed, widened
from waveq._kernels.levels import Levels

__all__ = ["FixedLevels", "fixed_levels", "fused_clip_round", "fused_round_by_step", "fused_round_fixed"]


def fused_clip_round(engine: Engine, x: Tensor, *, low: float, steps: float, closed: bool = True) -> Tensor:
    """round(clip(x, low, 1) steps) / steps with the gradient inside the range; x alone is kept for it.

    Args:
        engine: who computes.
        x: activations.
        low: lower end of the range.
        steps: levels in a unit.
        closed: whether x = low still has a gradient; a ReLU has none at 0.
    """
    result: Tensor = _FusedClipRound.apply(engine, low, steps, closed, x)
    return result


class _FusedClipRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, engine: Engine, low: float, steps: float, closed: bool, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.ends = engine, low, closed
        return engine.clip_round(x, low, steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        engine, low, closed = ctx.ends
        return (None,) * 4 + (engine.clip_round_backward(x, low, above, closed=closed),)


def fused_round_by_step(engine: Engine, x: Tensor, step: Tensor, low: float, high: float) -> Tensor:
    """s round(clip(x / s, low, high)) with LSQ's gradients (eq. 3 and 5), differentiable in x and the 0-dim step."""
    result: Tensor = _FusedRoundByStep.apply(engine, low, high, x, step)
    return result


class _FusedRoundByStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, engine: Engine, low: float, high: float, x: Tensor, step: Tensor) -> Tensor:
        ctx.save_for_backward(x, step)
        ctx.made_with = engine, _table(x, step, low, high)
        (made,), _ = engine.round([x], ctx.made_with[1])
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        x, step = ctx.saved_tensors
        engine, table = ctx.made_with
        (out,), sums = engine.round_backward([x], table, [above], torch.zeros_like(table.rows[:, 0]))
        return None, None, None, out, sums[0, 0].to(step.dtype)


class FixedLevels(NamedTuple):
    """Multiples of a step that nobody learns, made once.

    Attributes:
        table: for an engine.
        step: 0-dim.
        ends: the least and the largest multiple.
        low: the lowest level.
        high: the highest level.
    """

    table: Table
    step: Tensor
    ends: tuple[float, float]
    low: float
    high: float


_SMALL = 1 << 15  # values; below, an engine's call costs more than the passes over them that it saves


def fused_round_fixed(engine: Engine | None, x: Tensor, levels: FixedLevels) -> Tensor:
    """s round(clip(x / s, low, high)) with the gradient between the outermost levels; without an engine in torch."""
    small = x.is_cpu and x.numel() <= _SMALL and not x.is_nested  # which torch does not round
    result: Tensor = _FusedRoundFixed.apply(None if small else engine, levels, x)
    return result


class _FusedRoundFixed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, engine: Engine | None, levels: FixedLevels, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.ends = levels.low, levels.high
        if engine is None:
            wide = widened(x)
            return narrowed(wide.div(levels.step).round_().clamp_(*levels.ends).mul_(levels.step), x)
        (made,), _ = engine.round([x], levels.table)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return None, None, torch.ops.aten.hardtanh_backward(above, x, *ctx.ends)  # open at both ends


def fixed_levels(x: Tensor, step: Tensor, low: float, high: float) -> FixedLevels:
    """How values like x are rounded to multiples of a 0-dim step, from ``low`` steps to ``high``."""
    size = float(step)
    return FixedLevels(_table(x, step, low, high), step.detach(), (low, high), low * size, high * size)


def _table(x: Tensor, step: Tensor, low: float, high: float) -> Table:
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    levels = Levels(pitch=step.detach().to(dtype)[None], low=low, high=high, closed=False)
    one = step.new_ones(1, dtype=dtype)  # there is no wave
    rows = rows_of(levels, 0.0, one, one)
    return Table(rows, tanh=False, closed=False, rounds=True, wave=False)
