"""The wave of all layers behind one autograd function: value, gradient in w, in beta and in a learned divisor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from waveq._kernels.interface import Engine, WaveRow
from waveq._kernels.recipe import held

__all__ = ["fused_wave"]

_LN2 = math.log(2.0)


def fused_wave(
    engine: Engine, rows: Sequence[WaveRow], beta: Tensor, *, strength: Tensor, beta_strength: float, order: int
) -> Tensor:
    """sum_i strength_i R_k(w_i, beta_i), 0-dim, in one pass over the weights.

    Args:
        engine: who computes.
        rows: the layers, on one device.
        beta: (L,); its gradient is ``beta_strength`` dR_k/dbeta, whatever the strengths on the weights are.
        strength: (L,), constant: what each layer's value and gradient in the weights are multiplied with.
        beta_strength: multiplies the gradient in beta alone.
        order: k of R_k.
    """
    weights = [row.weight for row in rows]
    divisors = [d if isinstance(d, Tensor) and d.requires_grad else None for d in (r.coordinate.divisor for r in rows)]
    total: Tensor = _FusedWave.apply(engine, rows, order, strength, beta_strength, beta, *weights, *divisors)
    return total


class _FusedWave(torch.autograd.Function):
    """The gradient is made on the way forward, where u, sin and cos are at hand; the way back scales it if it must."""

    @staticmethod
    def forward(
        ctx: Any,
        engine: Engine,
        rows: Sequence[WaveRow],
        order: int,
        strength: Tensor,
        beta_strength: float,
        beta: Tensor,
        *_tensors: Tensor | None,
    ) -> Tensor:
        count = len(rows)
        wanted = any(ctx.needs_input_grad[6 : 6 + count])
        sums = engine.wave(rows, beta.detach(), strength, order, gradients=wanted)
        value = strength.to(sums.sine) * sums.sine * torch.exp2(-order * beta.detach().to(sums.sine))
        by_beta = by_divisor = None
        if ctx.needs_input_grad[5]:
            by_beta = beta_strength * _slope_in_beta(sums.sine, sums.moment, beta.detach().to(sums.sine), order)
        if any(ctx.needs_input_grad[6 + count :]):
            by_divisor = _slope_in_divisor(rows, sums.inside, beta.detach().to(sums.sine), strength, order)
        ctx.count, ctx.home = count, beta.dtype
        # A tuple of plain tensors: freed by backward, kept by retain_graph, moved by saved-tensor hooks.
        ctx.save_for_backward(by_beta, by_divisor, *(sums.gradients or ()))
        return value.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        by_beta, by_divisor, *pulls = ctx.saved_tensors
        nothing: list[Tensor | None] = [None] * ctx.count
        # On the CPU it costs nothing to see that the loss was not scaled; a GPU would have to be waited for.
        if pulls and (above.device.type != "cpu" or above.item() != 1.0):
            pulls = _scaled(pulls, above)
        divisors = nothing
        if by_divisor is not None:
            wanted = ctx.needs_input_grad[6 + ctx.count :]
            divisors = [d if want else None for d, want in zip((by_divisor * above).unbind(), wanted, strict=True)]
        slope = None if by_beta is None else (by_beta * above).to(ctx.home)
        return (None, None, None, None, None, slope, *(pulls or nothing), *divisors)


def _scaled(pulls: list[Tensor], above: Tensor) -> list[Tensor]:
    if len({pull.dtype for pull in pulls}) == 1:
        return list(torch._foreach_mul(pulls, above.to(pulls[0].dtype)))
    return [pull * above.to(pull.dtype) for pull in pulls]


def _slope_in_beta(sine: Tensor, moment: Tensor, beta: Tensor, order: int) -> Tensor:
    """dR_k/dbeta = ln 2 mean[pi u 2^beta sin(2 theta) - k sin^2(theta)] / 2^(k beta), see ``functional``."""
    return _LN2 * torch.exp2(-order * beta) * (math.pi * torch.exp2(beta) * moment - order * sine)


def _slope_in_divisor(rows: Sequence[WaveRow], inside: Tensor, beta: Tensor, strength: Tensor, order: int) -> Tensor:
    """u = w/D inside the clip: dR/dD = -(1/D) sum u dR/du."""
    deficit = torch.tensor([row.grid.deficit for row in rows], dtype=beta.dtype, device=beta.device)
    divisor = torch.stack([held(row.coordinate.divisor, beta) for row in rows]).to(beta)
    periods = torch.exp2(beta) - deficit
    return -strength.to(beta) * math.pi * periods * torch.exp2(-order * beta) * inside / divisor
