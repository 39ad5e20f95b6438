"""Bits learned through step sizes and ranges (Uhlich et al. 2020, "Mixed Precision DNNs", arXiv 1905.11452).

Each layer learns a step d and a range q; the bits follow, b = ceil(log2(q/d + 1) + 1), and a penalty holds their cost
to the budget.

Differences from the paper, each with its reason:

- d and q are learned as logarithms, by an Adam of their own whose rate is in bits per step: the paper's parametrisation
  (its U3) up to the unit, independent of the layer's scale and of the optimizer of the weights.
- The gradients of d and q, sums over N weights, are scaled by 1/sqrt(N) as in LSQ.
- The penalty is on the cost's relative excess, so that its strength has no unit, and on any cost by layer and bits
  instead of the size alone. It reads the real bits, log2(q/d + 1) + 1, linearly between the table's: with the whole
  ones it switches on and off, and never settles at the price of a bit that tells the layers apart.
- All layers begin with the same real bits, those that cost the budget, instead of the most: coming down from 8 bits
  took the rate's whole reach in a short run, so that taking back bits decided, and not the gradient. The range begins
  at three root mean squares at most, beyond which few bits have nothing to tell apart.
- Whole bits that cost more than the budget are taken back, the least used first; what is left of it goes to the layers
  whose real bits lie highest above what they have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from waveq.allocate.problem import Problem, Table, as_table, make_problem
from waveq.allocate.simple import raisable
from waveq.method.chosen import choose_named
from waveq.method.recurrent import read_parametrised
from waveq.method.wave_layer import KeptOrder
from waveq.quantizers.base import TINY, damped, straight_through

__all__ = ["StepBits", "learned_step_bits", "quantize_step_range"]


def quantize_step_range(weight: Tensor, step: Tensor, reach: Tensor) -> Tensor:
    """sign(w) d floor(|w|/d + 1/2) where |w| <= q, sign(w) q beyond (eq. 1 of the paper), with its U3 gradients.

    With respect to d: (Q(w) - w)/d inside and 0 outside; to q: 0 inside and sign(w) outside; to w: 1 inside, 0 outside.

    Args:
        weight: any shape.
        step: d, 0-dim, positive.
        reach: q, 0-dim, positive.

    Example:
        >>> d, q = torch.tensor(0.5, requires_grad=True), torch.tensor(1.2, requires_grad=True)
        >>> y = quantize_step_range(torch.tensor([-3.0, 0.4]), d, q); y.tolist()
        [-1.2..., 0.5]
        >>> y.sum().backward(); round(d.grad.item(), 3), q.grad.item()
        (0.2, -1.0)
    """
    index = weight / step
    rounded = straight_through(index, torch.sign(index.detach()) * torch.floor(index.detach().abs() + 0.5)) * step
    return torch.where(weight > reach, reach, torch.where(weight < -reach, -reach, rounded))


class _StepRange(nn.Module):
    """One layer's quantiser: log2 d and log2 q."""

    def __init__(self, weight: Tensor, bits: tuple[int, ...], start: float) -> None:
        super().__init__()
        values = weight.detach().float()
        reach = torch.minimum(values.abs().max(), 3.0 * values.square().mean().sqrt()).clamp_min(TINY)
        self.log_reach = nn.Parameter(reach.log2())
        real = min(max(start, bits[0]), bits[-1])
        self.log_step = nn.Parameter((reach / (2.0 ** (real - 1) - 1)).log2())
        self.log_ratio_range = tuple(math.log2(2.0 ** (b - 1) - 1) for b in (bits[0], bits[-1]))

    def forward(self, weight: Tensor) -> Tensor:
        damping = weight.numel() ** -0.5
        step, reach = damped(self.log_step, damping).exp2(), damped(self.log_reach, damping).exp2()
        return quantize_step_range(weight, step.to(weight.dtype), reach.to(weight.dtype))

    def real_bits(self) -> Tensor:
        """log2(q/d + 1) + 1, 0-dim."""
        return torch.log2((self.log_reach - self.log_step).exp2() + 1.0) + 1.0

    @torch.no_grad()
    def keep_in_range(self) -> None:
        """No fewer and no more bits than there is a cost for: the step gives way."""
        fewest, most = self.log_ratio_range
        self.log_step.clamp_(self.log_reach - most, self.log_reach - fewest)


class StepBits:
    """Learns a step and a range for each layer that ``costs`` names, inside the user's own training loop.

    Build the optimizer of the weights from ``weights()``; add ``penalty()`` to the loss and call ``step()`` after
    ``optimizer.step()``. Layers that ``costs`` does not name stay in floating point.

    Args:
        model: changed in place until ``remove()``.
        costs: cost by layer and total bits; bits from 2 on.
        budget: the most that the costs may add up to.
        strength: of the penalty, strength * max(0, cost/budget - 1)^2.
        rate_bits: how far d and q move in a step, in bits.

    Raises:
        ValueError: a layer that the model does not have, bits below 2, or a budget that cannot be met.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 4))
        >>> steps = StepBits(net, {"0": {2: 2.0, 4: 4.0}}, 3.0)
        >>> steps.real_bits(), steps.remove(), steps.policy()
        ({'0': 3.0}, None, {'0': 2})
    """

    def __init__(
        self, model: nn.Module, costs: Table, budget: float, *, strength: float = 100.0, rate_bits: float = 0.02
    ) -> None:
        costs = as_table(costs)
        weights = choose_named(model, costs)
        for name in costs:
            if costs[name] and min(costs[name]) < 2:
                raise ValueError(f"costs[{name!r}] has {min(costs[name])} bits; a step and a range need 2 or more")
        for what, value in (("strength", strength), ("rate_bits", rate_bits)):
            if not 0 < value < math.inf:
                raise ValueError(f"{what} must be positive and finite, not {value!r}")
        self._problem = make_problem(costs, costs, budget)
        self._sites = [site for name in self._problem.names for site in weights[name].sites]
        self._orders = [KeptOrder(site.module, site.order) for site in self._sites]
        self._states: dict[str, _StepRange] = {}
        start = _even_bits(self._problem)
        for name, bits in zip(self._problem.names, self._problem.bits, strict=True):
            tensor = weights[name].tensor
            self._states[name] = _StepRange(tensor, bits, start).to(tensor.device)
        self._learned = [parameter for state in self._states.values() for parameter in state.parameters()]
        self._weights = list(model.parameters())
        for name in self._problem.names:
            for site in weights[name].sites:
                parametrize.register_parametrization(site.module, site.tensor, self._states[name])
                if isinstance(site.module, nn.RNNBase):
                    read_parametrised(site.module)
        # a short memory of sizes: the penalty's first gradients are a thousand times those that decide later
        self._optimizer = torch.optim.Adam(self._learned, lr=rate_bits, betas=(0.9, 0.9))
        self._strength = strength

    def weights(self) -> list[nn.Parameter]:
        """The model's own parameters, for the user's optimizer; steps and ranges have theirs."""
        return self._weights

    def penalty(self) -> Tensor:
        """strength * max(0, cost of the real bits / budget - 1)^2, 0-dim."""
        terms = [
            _cost_of(state.real_bits(), bits, cost)
            for state, bits, cost in zip(self._states.values(), self._problem.bits, self._problem.cost, strict=True)
        ]
        home = terms[0].device
        total = torch.stack([term.to(home) for term in terms]).sum()
        return self._strength * torch.relu(total / self._problem.budget - 1.0).square()

    def step(self) -> None:
        """Move steps and ranges; call it after the weights' ``optimizer.step()``, before ``zero_grad()``."""
        self._optimizer.step()
        self._optimizer.zero_grad()
        for state in self._states.values():
            state.keep_in_range()

    @torch.no_grad()
    def real_bits(self) -> dict[str, float]:
        """log2(q/d + 1) + 1 by layer."""
        return {name: round(float(state.real_bits()), 6) for name, state in self._states.items()}

    def policy(self) -> dict[str, int]:
        """Total bits by layer, within the budget."""
        return _whole_bits(self._problem, list(self.real_bits().values()))

    def remove(self) -> None:
        """Leave plain layers with the float weights as they are now; ``policy()`` goes on answering."""
        for site in self._sites:
            if parametrize.is_parametrized(site.module, site.tensor):
                parametrize.remove_parametrizations(site.module, site.tensor, leave_parametrized=False)
        for order in self._orders:
            order.remove()


def learned_step_bits(
    model: nn.Module,
    costs: Table,
    budget: float,
    *,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    learning_rate: float = 0.01,
    momentum: float = 0.9,
    strength: float = 100.0,
    rate_bits: float = 0.02,
) -> dict[str, int]:
    """Train a model with ``StepBits`` and return its policy; the weights are trained with it, by plain SGD.

    Args:
        model: trained in place, in the mode that it is in; give a copy to keep the original.
        costs: cost by layer and total bits.
        budget: the most that the costs may add up to.
        batches: (inputs, targets), on the model's device; one optimiser step each.
        loss: of (outputs, targets), 0-dim.
        learning_rate: of the weights.
        momentum: of the weights.
        strength: see ``StepBits``.
        rate_bits: see ``StepBits``.

    Raises:
        ValueError: see ``StepBits``.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> data = [(torch.randn(16, 4), torch.randint(2, (16,)))] * 200
        >>> policy = learned_step_bits(net, {n: {b: b / 2 for b in range(2, 9)} for n in ("0", "2")}, 4.0, batches=data)
        >>> sum(policy.values()) <= 8
        True
    """
    steps = StepBits(model, costs, budget, strength=strength, rate_bits=rate_bits)
    optimizer = torch.optim.SGD(steps.weights(), lr=learning_rate, momentum=momentum)
    try:
        for inputs, targets in batches:
            optimizer.zero_grad()
            (loss(model(inputs), targets) + steps.penalty()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            steps.step()
    finally:
        steps.remove()
    return steps.policy()


def _cost_of(real_bits: Tensor, bits: tuple[int, ...], cost: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
    """The cost of real bits, linear between the choices on either side."""
    if len(bits) == 1:
        return real_bits * 0.0 + float(cost[0])
    index = max(1, _ceil_index(float(real_bits.detach()), bits))
    slope = float(cost[index] - cost[index - 1]) / (bits[index] - bits[index - 1])
    return float(cost[index]) + slope * (real_bits - bits[index])


def _ceil_index(real_bits: float, bits: tuple[int, ...]) -> int:
    """Index of the fewest bits that hold ``real_bits``."""
    return min(int(np.searchsorted(bits, real_bits - 1e-4)), len(bits) - 1)


def _even_bits(problem: Problem) -> float:
    """The real bits that cost the budget if every layer had them, within its choices and linear between them."""
    low, high = 0.0, float(max(bits[-1] for bits in problem.bits))
    for _ in range(40):
        middle = (low + high) / 2
        spent = sum(np.interp(middle, bits, cost) for bits, cost in zip(problem.bits, problem.cost, strict=True))
        low, high = (middle, high) if spent <= problem.budget else (low, middle)
    return high


def _whole_bits(problem: Problem, real_bits: list[float]) -> dict[str, int]:
    """The next choice up in every layer; over the budget the least used ones come down, what is left goes up again."""
    chosen = [_ceil_index(real, bits) for real, bits in zip(real_bits, problem.bits, strict=True)]
    if problem.fits(problem.total_cost(chosen)):
        return problem.as_policy(chosen)
    while not problem.fits(problem.total_cost(chosen)):
        lowerable = [i for i, index in enumerate(chosen) if index > 0]
        chosen[min(lowerable, key=lambda i: _used(real_bits[i], problem.bits[i], chosen[i]))] -= 1
    while able := raisable(problem, chosen):
        chosen[max(able, key=lambda i: real_bits[i] - problem.bits[i][chosen[i]])] += 1
    return problem.as_policy(chosen)


def _used(real_bits: float, bits: tuple[int, ...], index: int) -> float:
    """The share of the last step up to a choice that real bits make use of."""
    return (real_bits - bits[index - 1]) / (bits[index] - bits[index - 1])
