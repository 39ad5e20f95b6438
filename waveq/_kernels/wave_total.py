"""Both terms of eq. 2.2 over all layers, added up from what the layers' nodes handed out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from waveq._kernels.storage import scalars, vector

__all__ = ["wave_total"]


def wave_total(
    waves: Sequence[Tensor], strengths: Sequence[Sequence[float]], betas: Sequence[Tensor], prices: Sequence[float]
) -> Tensor:
    """sum_i strength_i R_i + sum_j price_j beta_j, 0-dim float32, in one node.

    Args:
        waves: vectors of R, float32 on the CPU.
        strengths: as many numbers for each.
        betas: 0-dim.
        prices: one for each.
    """
    return _total(strengths, prices, *waves, *betas)


class _Total(Function):
    @staticmethod
    def forward(ctx: Any, strengths: Sequence[Sequence[float]], prices: Sequence[float], *terms: Tensor) -> Tensor:
        ctx.factors = strengths, prices
        total = 0.0
        for factors, wave in zip(strengths, terms, strict=False):
            total += sum(factor * value for factor, value in zip(factors, wave.tolist(), strict=True))
        betas = terms[len(strengths) :]
        total += sum(price * beta.item() for price, beta in zip(prices, betas, strict=True))
        return scalars([total])[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        size = above.item()
        strengths, prices = ctx.factors
        waves = [vector([factor * size for factor in factors]) for factors in strengths]
        return None, None, *waves, *scalars([price * size for price in prices])


# as ``band._read``: whoever has waves to add up has looked for torch.func's transforms
_total: Callable[..., Tensor] = super(Function, _Total).apply
