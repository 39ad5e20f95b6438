"""Bits of a layer's inputs that are learned: the same beta, bits and stretch as a weight's, around any input quantiser.

beta counts total bits less one for inputs too, so that both kinds have one range. Inputs have no wave: there is nothing
at rest that it could draw to levels. The task loss moves beta through the stretch of the grid, and the price of a bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from waveq.functional import Grid, ScaleRule, grid_scale, magnitude_bits
from waveq.method.seal import seal_of, warn_averaged, was_averaged
from waveq.method.settling import BLOCKS
from waveq.quantizers import ActivationQuantizer
from waveq.quantizers.activation import mean_over_ranks

__all__ = ["InputBits"]


class InputBits(nn.Module):
    """The learned bits k of one layer's inputs, and what the quantiser does meanwhile.

    With K = beta + 1 real total bits, k = ceil(K) and n(k) = 2^k - 1 steps above zero (2^(k-1) - 1 where inputs have a
    sign), all levels are stretched by c = n(k)/n(K), eq. 2.4 on the mid-tread grid. Whenever k changes, and when it is
    fixed, the quantiser's range starts anew from the next training batch: a range for 8 bits is several times too long
    for 2.

    Buffers: ``beta`` float32, 0-dim, a leaf; ``total_bits`` int64, 0 while learned; ``velocity`` float32 and ``trend``
    (8,) float32 as a weight's; ``restarts`` int8, whether the range waits for a batch; ``seal`` int64, see ``seal``.

    Attributes:
        settled: whether bits and range were fixed when the step began: only then may a ReLU before the layer be left
            out, and not in the middle of a step, because a backward pass that computes its forward pass again must find
            the ReLU as it was.

    Args:
        activation: the quantiser, which lives in the layer's parametrisation.
        beta: where it begins.
        hysteresis: k = ceil(K - hysteresis).
        scale_rule: the form of c.
        device: of the buffers.
    """

    beta: Tensor
    total_bits: Tensor
    velocity: Tensor
    trend: Tensor
    restarts: Tensor
    seal: Tensor

    def __init__(
        self,
        activation: ActivationQuantizer,
        *,
        beta: float,
        hysteresis: float,
        scale_rule: ScaleRule,
        device: torch.device,
    ) -> None:
        super().__init__()
        self._of = (activation,)  # in a tuple, because its parameters and buffers belong to the parametrisation
        self.first_beta = beta
        self.hysteresis, self.scale_rule = hysteresis, scale_rule
        for name, value, dtype in (
            ("beta", beta, torch.float32),
            ("total_bits", 0, torch.int64),
            ("velocity", 0.0, torch.float32),
            ("trend", [0.0] * BLOCKS, torch.float32),
            ("restarts", 0, torch.int8),
            ("seal", seal_of(0, 0), torch.int64),
        ):
            self.register_buffer(name, torch.tensor(value, dtype=dtype, device=device))
        self.bits_now, self._restarts_now = 0, False
        self.settled = False
        self._seal_now = int(self.seal)
        self._mirror()

    @property
    def activation(self) -> ActivationQuantizer:
        """The quantiser, at the present bits."""
        return self._of[0]

    @property
    def learns(self) -> bool:
        """Whether the bits are still free."""
        return self.bits_now == 0

    def bits(self) -> Tensor:
        """Total bits less one as they are or would be fixed now, 0-dim, no gradient."""
        if self.learns:
            return magnitude_bits(self.beta, self.hysteresis)
        return (self.total_bits - 1).to(self.beta.dtype)

    def stretch(self, signed: bool) -> Tensor:
        """c(beta), 0-dim.

        Args:
            signed: whether inputs have a sign, which takes one of the bits.
        """
        steps_bits = float(self.activation.bits - signed)
        count = self.beta if signed else self.beta + 1.0
        return grid_scale(count, count.detach().new_full((), steps_bits), grid=Grid.MID_TREAD, rule=self.scale_rule)

    def forward(self, x: Tensor, *, signed: bool) -> Tensor:
        """x on the levels of the present beta, in the dtype of x."""
        self.notice()
        if self._restarts_now and self.training:
            self._restart(x.detach(), signed)
        quantized: Tensor = self.activation(x, signed=signed, stretch=self.stretch(signed) if self.learns else None)
        return quantized

    # ------------------------------------------------------------------ what changes it

    def follow_bits(self, now: int, *, signed: bool) -> None:
        """beta has moved: where whole total bits have changed, the quantiser takes them and waits for a batch."""
        if now != self.activation.bits:
            self.activation.set_bits(now, signed=signed)
            self._wait(True)

    @torch.no_grad()
    def freeze(self, total_bits: int, *, signed: bool) -> None:
        """Fix the bits; beta stays as it was learned, and the grid is no longer stretched."""
        self.follow_bits(total_bits, signed=signed)
        self.total_bits.fill_(total_bits)
        self.bits_now = total_bits
        self.beta = self.beta.detach()
        self._wait(True)

    def end_step(self) -> None:
        """Free beta's gradient."""
        kept: dict[str, Any] = self._buffers
        kept["beta"].grad = None
        self.settled = not (self.learns or self._restarts_now)

    def notice(self) -> None:
        """Go on from what a checkpoint or an average of models has put into the buffers."""
        if self._seen != self._marks():
            self._mirror()

    @torch.no_grad()
    def _restart(self, x: Tensor, signed: bool) -> None:
        self.activation.fit(x, signed=signed)
        if bool(mean_over_ranks(x.any().float())):  # zeros say nothing, and the ranks must agree on when it is over
            self._wait(False)

    def _wait(self, value: bool) -> None:
        self.restarts.fill_(value)
        self._restarts_now = value
        self._put_seal()
        self._seen = self._marks()

    # ------------------------------------------------------------------ the buffers

    def _marks(self) -> tuple[int, int]:
        kept: dict[str, Any] = self._buffers  # found without nn.Module's search, which takes longer than the rest
        return kept["total_bits"]._version, kept["restarts"]._version

    def _mirror(self) -> None:
        """Copy what decides control flow out of the buffers, so that a forward pass never waits for the device."""
        if was_averaged(self.seal, self._seal_now, int(self.total_bits), int(self.restarts)):
            warn_averaged(f"{int(self.total_bits)} bits of a layer's inputs", f"{self.bits_now or 'learned'} bits")
            self.total_bits.fill_(self.bits_now)
            self.restarts.fill_(self._restarts_now)
        self.bits_now, self._restarts_now = int(self.total_bits), bool(self.restarts)
        self.beta = self.beta.detach().requires_grad_(self.learns)
        self.activation.bits = int(self.bits()) + 1
        self._put_seal()
        self._seen = self._marks()

    def _put_seal(self) -> None:
        self._seal_now = seal_of(self.bits_now, self._restarts_now)
        self.seal.fill_(self._seal_now)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> InputBits:
        """Move with the model; beta stays a float32 leaf, as ``WaveParametrization`` keeps a weight's."""
        kept = {name: value.detach() for name, value in self._buffers.items() if value is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, before in kept.items():
            after = getattr(self, name).detach()
            setattr(self, name, after if after.dtype == before.dtype else before.to(after.device))
        self.beta.requires_grad_(self.learns)
        self._seen = self._marks()
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._mirror()
