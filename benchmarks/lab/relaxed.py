"""Real bits learned by gradient without a wave: the two published ways, for weights and inputs alike.

"interpolation" (Yang and Jin 2021, "FracBits", arXiv 2007.02017): a value with b bits is (1 - f) Q_floor + f Q_ceil, f
being the fraction of b. "steps" (Uhlich et al. 2020, arXiv 1905.11452): one grid whose step follows from real bits,
q/(2^(b-1) - 1); gradients reach b through the step.

Both start with the even bits that cost the budget, and pay strength * max(0, cost/budget - 1)^2. Differences from the
papers: ranges and bits are learned by an Adam of their own, so that no rate depends on a layer's scale; the bits' rate
lets them cross ``_TRAVEL`` bits in the run, however short it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from benchmarks.lab.choices import BITS, FLOAT_INPUTS, Choices, Policy
from benchmarks.lab.data import Part
from waveq.layers import quantizable

__all__ = ["WAYS", "learned_bits"]

WAYS = ("interpolation", "steps")
_TRAVEL = 4.0
_STRENGTH = 100.0
_RANGE_RATE = 0.01  # of log2 of the range, a step


def learned_bits(
    network: nn.Module,
    choices: Choices,
    limit: float,
    way: str,
    *,
    stream: Iterable[Part],
    steps: int,
    lr: float,
    momentum: float = 0.9,
) -> Policy:
    """The bits that ``steps`` batches of training find; the network is changed, give a copy."""
    start = choices.even(limit)
    operands = _attach(network, choices, start, way)
    bits = [each.bits for each in operands.values()]
    ranges = [each.reach for each in operands.values()]
    quantised = {id(parameter) for parameter in (*bits, *ranges)}
    weights = [parameter for parameter in network.parameters() if id(parameter) not in quantised]
    optimizer = torch.optim.SGD(weights, lr=lr, momentum=momentum)
    own = torch.optim.Adam([{"params": bits, "lr": _TRAVEL / steps}, {"params": ranges, "lr": _RANGE_RATE}])
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
    network.train()
    for x, y in stream:
        loss = F.cross_entropy(network(x), y) + _penalty(operands, choices, limit)
        optimizer.zero_grad()
        own.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        own.step()
        cosine.step()
        with torch.no_grad():
            for each in bits:
                each.clamp_(BITS[0], BITS[-1])
    real = {slot: float(each.bits.detach()) for slot, each in operands.items()}
    weight_bits = {name: b for (side, name), b in real.items() if side == "w"}
    input_bits = {name: b for (side, name), b in real.items() if side == "a"}
    return choices.whole(weight_bits, input_bits, limit)


class _Operand(nn.Module):
    """One tensor's real bits and range."""

    def __init__(self, start: float, way: str, device: torch.device) -> None:
        super().__init__()
        self.bits = nn.Parameter(torch.tensor(start, device=device))
        self.reach = nn.Parameter(torch.tensor(math.nan, device=device))
        self.way = way
        self.signed = True
        self.seen = False

    def look(self, values: Tensor, *, signed: bool) -> None:
        """The first values decide range and sign."""
        with torch.no_grad():
            # where few bits put the range of a bell: beyond it lies little
            reach = 3.0 * values.float().square().mean().sqrt()
            self.reach.copy_(torch.minimum(reach, values.abs().max()).clamp_min(1e-8).log2())
        self.signed, self.seen = signed, True

    def forward(self, values: Tensor) -> Tensor:
        if not self.seen:
            self.look(values, signed=True)
        reach = self.reach.exp2().to(values.dtype)
        if self.way == "steps":
            return self._on_grid(values, reach, self.bits.to(values.dtype))
        low = self.bits.detach().floor().clamp(BITS[0], BITS[-1] - 1)
        share = (self.bits - low).to(values.dtype)
        return torch.lerp(self._on_grid(values, reach, low), self._on_grid(values, reach, low + 1), share)

    def _on_grid(self, values: Tensor, reach: Tensor, bits: Tensor) -> Tensor:
        levels = (bits - 1).exp2() - 1 if self.signed else bits.exp2() - 1
        step = reach / levels
        inside = torch.minimum(torch.maximum(values, -reach if self.signed else torch.zeros_like(reach)), reach)
        position = inside / step
        return (position + (position.round() - position).detach()) * step


def _attach(network: nn.Module, choices: Choices, start: float, way: str) -> dict[tuple[str, str], _Operand]:
    layers = quantizable(network)
    operands: dict[tuple[str, str], _Operand] = {}
    for name, with_inputs in choices.quantised().items():
        module = layers[name]
        weight: Any = module.weight
        operand = operands["w", name] = _Operand(start, way, weight.device)
        operand.look(weight.detach(), signed=True)
        parametrize.register_parametrization(module, "weight", operand)
        if with_inputs:
            operands["a", name] = _Operand(start, way, weight.device)
            module.register_forward_pre_hook(_rounding(operands["a", name]))
    return operands


def _rounding(operand: _Operand) -> Any:
    def hook(_module: nn.Module, args: Sequence[Tensor]) -> tuple[Tensor, ...]:
        if not operand.seen:
            operand.look(args[0].detach(), signed=bool(args[0].min() < 0))
        return (operand(args[0]), *args[1:])

    return hook


def _penalty(operands: dict[tuple[str, str], _Operand], choices: Choices, limit: float) -> Tensor:
    terms = []
    for name, quantised in choices.quantised().items():
        inputs = operands["a", name].bits if quantised else FLOAT_INPUTS
        terms.append(choices.cost_of(name, operands["w", name].bits, inputs))
    excess = torch.stack(terms).sum() / (limit * choices.reference()) - 1.0
    return _STRENGTH * torch.relu(excess).square()
