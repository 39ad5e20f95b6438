"""PACT (Choi et al. 2018, arXiv 1805.06085): activations clipped at a learned alpha; weights are DoReFa's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from waveq.quantizers.activation import ActivationQuantizer, mean_over_ranks, round_on_unit_range
from waveq.quantizers.base import kept_positive, straight_through
from waveq.quantizers.dorefa import DoReFa
from waveq.quantizers.ranged import nearest_range

__all__ = ["ALPHA_START", "PACT", "PACTActivation", "clip_at"]

ALPHA_START = 8.0  # as Distiller has it; well above what a batch-normalised layer puts out


class PACT(DoReFa):
    """The weights of a PACT network: DoReFa's, as the paper and Distiller have it.

    Asking ``attach`` for ``quantizer="pact"`` takes ``PACTActivation`` for the inputs by itself.
    """

    method = "pact"
    activation = "pact"


class PACTActivation(ActivationQuantizer):
    """y = clip(x, 0, alpha), y_q = alpha round((2^k - 1) y / alpha) / (2^k - 1), with alpha learned (eq. 1 to 3).

    Gradients: dy_q/dx = 1 between 0 and alpha and 0 outside; dy_q/dalpha = 1 where x >= alpha and 0 elsewhere. The
    paper decays alpha with the weights' own decay, which happens by itself: alpha is one of ``model.parameters()``.
    An alpha that a step has taken below zero counts as (almost) zero and keeps its gradient, so that it comes back.

    Inputs with a sign, which the paper does not treat, are clipped to [-alpha, alpha] and take the signed grid; alpha's
    gradient is then the sign of the clipped values.

    Args:
        bits: k, 1 to 8.
        start: alpha at the beginning, positive.

    Example:
        >>> relu6 = PACTActivation(2, start=6.0)
        >>> relu6(torch.tensor([-1.0, 2.4, 9.0])).tolist()
        [0.0, 2.0, 6.0]
    """

    method = "pact"
    learns_bits = True

    def __init__(self, bits: int, *, start: float = ALPHA_START) -> None:
        super().__init__(bits)
        if not 0.0 < start < float("inf"):
            raise ValueError(f"start, PACT's first alpha, must be positive and finite, not {start!r}")
        self.alpha = nn.Parameter(torch.tensor(float(start)))

    @torch.no_grad()
    def fit(self, x: Tensor, *, signed: bool) -> None:
        """alpha at the range that moves these values least."""
        self.alpha.copy_(mean_over_ranks(nearest_range(x, self.bits, signed=signed)))

    def quantize(self, x: Tensor, signed: bool) -> Tensor:
        """The clipped and rounded values."""
        alpha = kept_positive(self.alpha.to(x.dtype))
        clipped = clip_at(x, alpha, signed=signed)
        size = alpha.detach()
        return straight_through(clipped, size * round_on_unit_range(clipped.detach() / size, self.bits, signed=signed))

    def replaces(self, rectifier: nn.Module) -> bool:
        """A ReLU, which ``clip_at`` has itself; a ReLU6 only where alpha is below 6."""
        return type(self).quantize is PACTActivation.quantize and type(rectifier) is nn.ReLU


def clip_at(x: Tensor, alpha: Tensor, *, signed: bool) -> Tensor:
    """clip(x, 0 or -alpha, alpha), where alpha's gradient is 1 from x = alpha on (``clip`` gives it to x there).

    Example:
        >>> a = torch.tensor(2.0, requires_grad=True)
        >>> clip_at(torch.tensor([-1.0, 1.0, 2.0, 3.0]), a, signed=False).sum().backward(); a.grad.item()
        2.0
    """
    below = torch.where(x <= -alpha, -alpha, x) if signed else torch.relu(x)
    return torch.where(x >= alpha, alpha, below)
