"""The best policy under losses that add up over layers, and HAWQ-v2's losses (Dong et al. 2020, arXiv 1911.03852)."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import nn

from waveq.allocate.problem import TOLERANCE, Table, as_table, make_problem
from waveq.evaluate.weights import rounding
from waveq.method.chosen import choose_named
from waveq.quantizers import Quantizer, check_total_bits
from waveq.quantizers.base import Granularity, ScaleMode

__all__ = ["hessian_ilp", "hessian_losses", "ilp", "squared_errors"]


class HasValue(Protocol):
    """An estimate: its best value, and whatever else."""

    @property
    def value(self) -> float:
        """The estimate itself."""


_SPREAD = 1e3  # the solver stops at an absolute gap of 1e-6: losses are scaled so that this is a billionth


def ilp(losses: Table, costs: Table, budget: float) -> dict[str, int]:
    """The policy with the least sum of losses within the budget, by integer linear programming (scipy's HiGHS).

    Args:
        losses: loss by layer and total bits, any unit.
        costs: cost by layer and total bits.
        budget: the most that the costs may add up to.

    Raises:
        ValueError: tables that do not fit together, or a budget that cannot be met.
        RuntimeError: the solver gave up.

    Example:
        >>> costs = {"a": {2: 2.0, 4: 4.0}, "b": {2: 6.0, 4: 12.0}}
        >>> ilp({"a": {2: 0.4, 4: 0.0}, "b": {2: 0.5, 4: 0.0}}, costs, 14.5)
        {'a': 2, 'b': 4}
    """
    problem = make_problem(losses, costs, budget)
    sizes = [len(choices) for choices in problem.bits]
    loss = np.concatenate([values - values.min() for values in problem.loss])
    loss *= _SPREAD / (loss.max() or 1.0)
    # one choice a layer; half the tolerance is left to the solver's own
    layer = np.repeat(np.arange(len(sizes)), sizes)
    one_each = (layer == np.arange(len(sizes))[:, None]).astype(np.float64)
    unit = problem.budget or 1.0
    spent = LinearConstraint(np.concatenate(problem.cost)[None] / unit, -np.inf, problem.budget / unit + TOLERANCE / 2)
    found = milp(
        loss,
        integrality=np.ones_like(loss),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), spent],
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise RuntimeError(f"the solver found no policy: {found.message}")
    parts = np.split(found.x, np.cumsum(sizes)[:-1])
    return problem.as_policy([int(part.argmax()) for part in parts])


def hessian_ilp(
    model: nn.Module,
    costs: Table,
    budget: float,
    *,
    traces: Mapping[str, float | HasValue],
    quantizer: Quantizer | None = None,
    scale: ScaleMode | None = None,
    granularity: Granularity = "layer",
) -> dict[str, int]:
    """HAWQ-v2's allocation: ``ilp`` on ``hessian_losses``; the layers and bits are those of the costs.

    Example:
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
        >>> costs = {name: {2: 2.0, 8: 8.0} for name in ("0", "1")}
        >>> hessian_ilp(net, costs, 10.0, traces={"0": 1.0, "1": 50.0})
        {'0': 2, '1': 8}
    """
    choices = {name: tuple(row) for name, row in as_table(costs).items()}
    errors = squared_errors(model, choices, quantizer=quantizer, scale=scale, granularity=granularity)
    return ilp(hessian_losses(model, traces, errors), costs, budget)


def hessian_losses(
    model: nn.Module, traces: Mapping[str, float | HasValue], errors: Table
) -> dict[str, dict[int, float]]:
    """tr(H_l) / N_l |Q_b(w_l) - w_l|^2 by layer and bits: the second-order loss of eq. 4 in HAWQ-v2.

    Args:
        model: whose layers have N_l weights.
        traces: the trace of the task loss's Hessian in each layer's weights (not divided by N_l): numbers, or what
            ``losstables.hessian_traces`` gives. A negative one, which noise or an unfinished training can leave, counts
            as 0, with a warning.
        errors: |Q_b(w_l) - w_l|^2, see ``squared_errors``; its layers and bits are those of the result.

    Raises:
        ValueError: a layer without trace, or that the model does not have; a trace that is not finite.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3))
        >>> hessian_losses(net, {"0": 12.0}, {"0": {2: 0.5, 3: 0.25}})
        {'0': {2: 1.0, 3: 0.5}}
    """
    losses, rows = {}, as_table(errors)
    weights = choose_named(model, rows)
    for name, row in rows.items():
        weight = weights[name].tensor
        if name not in traces:
            raise ValueError(f"traces has none for layer {name!r} (it has: {', '.join(traces)})")
        estimate = traces[name]
        trace = float(estimate if isinstance(estimate, float | int) else estimate.value)
        if not np.isfinite(trace):
            raise ValueError(f"traces[{name!r}] must be finite, not {trace!r}")
        if trace < 0:
            warnings.warn(f"the Hessian trace of layer {name!r} is negative ({trace:g}) and counts as 0", stacklevel=2)
        losses[name] = {bits: max(trace, 0.0) / weight.numel() * error for bits, error in row.items()}
    return losses


def squared_errors(
    model: nn.Module,
    bits: Mapping[str, Iterable[int]],
    *,
    quantizer: Quantizer | None = None,
    scale: ScaleMode | None = None,
    granularity: Granularity = "layer",
) -> dict[str, dict[int, float]]:
    """|Q_b(w_l) - w_l|^2 by layer and total bits, summed in float64.

    Args:
        model: any module; not changed.
        bits: for each layer the total bits to try.
        quantizer: a registered method, or the class of one; None is ``attach``'s own choice, "lsq".
        scale: how its levels are scaled; None is ``attach``'s own choice, "max" where the method has it. Without a
            scale ("none") DoReFa's levels span [-1, 1] whatever the weights are: the error says nothing of the bits.
        granularity: what has a scale of its own: "layer", or "channel", each output channel.

    Raises:
        ValueError: an unknown layer, method or scale; bits that the method does not have.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 4, bias=False))
        >>> _ = nn.init.constant_(net[0].weight, 0.5)
        >>> squared_errors(net, {"0": [2, 4]}, quantizer="wrpn")
        {'0': {2: 0.0, 4: 0.0}}
    """
    table: dict[str, dict[int, float]] = {}
    levels = rounding(quantizer, scale, granularity)
    for name, weight in choose_named(model, bits).items():
        table[name] = {}
        for b in bits[name]:
            whole = check_total_bits(b, layer=name)
            rounded = weight.rounded(whole, **levels)
            error = rounded.double() - weight.tensor.detach().double()
            table[name][int(b)] = float(error.square().sum())
    return table
