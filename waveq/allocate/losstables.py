"""Loss tables of a network, layers by bits: what ``pareto.additive_frontier`` takes beside a cost table.

Three ways to say what a layer loses by having few bits, from dear to cheap: measure it (one layer at a time), weigh the
rounding error by the loss's curvature (HAWQ-v2, Dong et al. 2020, arXiv 1911.03852), or take the rounding error alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from pareto import DesignSpace, measured_losses, weight_errors
from waveq.allocate.hessian import hessian_losses, squared_errors
from waveq.evaluate.evaluator import PolicyEvaluator
from waveq.evaluate.samples import EvaluationData
from waveq.evaluate.weights import rounding
from waveq.method.chosen import choose_weights
from waveq.quantizers import Quantizer, check_total_bits
from waveq.quantizers.base import Granularity, ScaleMode

__all__ = ["Trace", "curvature_table", "hessian_traces", "measured_table", "weight_error_table"]


class Trace(NamedTuple):
    """The trace of the loss's Hessian in one layer's weights, estimated, with its standard error."""

    value: float
    error: float


def measured_table(evaluator: PolicyEvaluator, bits: Sequence[int], *, reference: int = 8) -> pd.DataFrame:
    """Mean cross-entropy that a policy gains when one layer goes from ``reference`` to b bits, all others staying.

    Args:
        evaluator: the model, its data and its quantiser.
        bits: total bits to try in every layer.
        reference: bits of all other layers.

    Returns:
        A frame of layers by bits, in nats per sample; 0 at the reference. Small negative values are possible.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> evaluator = PolicyEvaluator(nn.Sequential(nn.Linear(4, 3)), (torch.randn(9, 4), torch.randint(3, (9,))))
        >>> measured_table(evaluator, (2, 8)).columns.tolist()
        [2, 8]
    """
    space = DesignSpace(dict.fromkeys(evaluator.names, _distinct(bits)))
    base = dict.fromkeys(evaluator.names, check_total_bits(reference))
    return measured_losses(base, lambda policies: -evaluator.losses(policies), space)


def weight_error_table(
    model: nn.Module,
    bits: Sequence[int],
    *,
    quantizer: Quantizer | None = None,
    scale: ScaleMode | None = None,
    granularity: Granularity = "layer",
    skip: Iterable[str] = (),
    also: Iterable[str] = (),
) -> pd.DataFrame:
    """Mean over a layer's weights of (Q_b(w) - w)^2, a frame of layers by bits in squared units of the weights.

    Example:
        >>> net = nn.Sequential(nn.Linear(30, 30))
        >>> table = weight_error_table(net, (2, 4, 8))
        >>> bool(table.loc["0", 2] > table.loc["0", 4] > table.loc["0", 8])
        True
    """
    weights = choose_weights(model, skip=skip, also=also).weights
    levels = rounding(quantizer, scale, granularity)
    space = DesignSpace(dict.fromkeys(weights, _distinct(bits)))
    return weight_errors(
        {name: weight.tensor.detach().double().cpu() for name, weight in weights.items()},
        space,
        rounded=lambda name, b: weights[name].rounded(b, **levels).double().cpu(),
    )


def curvature_table(
    model: nn.Module,
    traces: Mapping[str, float],
    bits: Sequence[int],
    *,
    quantizer: Quantizer | None = None,
    scale: ScaleMode | None = None,
    granularity: Granularity = "layer",
) -> pd.DataFrame:
    """tr(H_l) / N_l |Q_b(w_l) - w_l|^2: HAWQ-v2's loss, a frame of layers by bits (``traces`` names the layers).

    Example:
        >>> net = nn.Sequential(nn.Linear(30, 30))
        >>> table = curvature_table(net, {"0": 900.0}, (2, 8))
        >>> bool(np.isclose(table.loc["0", 2], 900 * weight_error_table(net, (2, 8)).loc["0", 2]))
        True
    """
    columns = _distinct(bits)
    levels: dict[str, Any] = {"quantizer": quantizer, "scale": scale, "granularity": granularity}
    errors = squared_errors(model, dict.fromkeys(traces, columns), **levels)
    losses = hessian_losses(model, traces, errors)
    return _frame(np.array([[losses[name][b] for b in columns] for name in traces]), tuple(traces), columns)


def hessian_traces(
    model: nn.Module,
    data: Any,
    *,
    probes: int = 32,
    seed: int = 0,
    skip: Iterable[str] = (),
    also: Iterable[str] = (),
) -> dict[str, Trace]:
    """Trace of the Hessian of the mean cross-entropy in each layer's weights, by Hutchinson's method.

    E[v' H v] = tr H for v with independent entries +-1. A probe draws v for all layers at once and costs two backward
    passes over the data; v_l' (H v)_l has the mean tr H_l, since the blocks between layers average to zero. The model
    is in evaluation mode and is not changed.

    Args:
        model: a module from x to class scores, with plain float weights.
        data: (x, y) tensors or an iterable of (x, y) batches: a few hundred training samples are usual.
        probes: how many v are drawn.
        seed: of the probes.
        skip: layers left out.
        also: weights beyond the usual ones, as for ``attach``.

    Returns:
        Trace and its standard error over the probes, by layer; in nats per squared unit of the weights.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(4, 3))
        >>> traces = hessian_traces(net, (torch.randn(50, 4), torch.randint(3, (50,))), probes=8)
        >>> traces["0"].value > 0
        True
    """
    if probes < 2:
        raise ValueError(f"probes must be at least 2 (the error is estimated from their spread), not {probes!r}")
    chosen = choose_weights(model, skip=skip, also=also).weights
    weights = {name: weight.tensor.detach() for name, weight in chosen.items()}
    keys = {name: weight.keys for name, weight in chosen.items()}
    held = EvaluationData(data, name="data")
    generator = torch.Generator().manual_seed(seed)
    was_training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        found = np.array([_probe(model, weights, keys, held, _signs(weights, generator)) for _ in range(probes)])
    finally:
        for module in was_training:
            module.training = True
    errors = found.std(axis=0, ddof=1) / probes**0.5
    return {name: Trace(float(v), float(e)) for name, v, e in zip(weights, found.mean(axis=0), errors, strict=True)}


def _signs(weights: Mapping[str, Tensor], generator: torch.Generator) -> list[Tensor]:
    return [
        (torch.randint(2, w.shape, generator=generator) * 2 - 1).to(device=w.device, dtype=w.dtype)
        for w in weights.values()
    ]


def _probe(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    keys: Mapping[str, Sequence[str]],
    data: EvaluationData,
    v: list[Tensor],
) -> list[float]:
    """v_l' (H v)_l of every layer, summed over the batches; ``keys`` say where a layer's weight is read."""
    total = np.zeros(len(v))
    for x, y in data:
        leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
        device = next(iter(leaves.values())).device
        swapped = {key: leaf for name, leaf in leaves.items() for key in keys[name]}
        with sdpa_kernel(SDPBackend.MATH):  # the fused forms of attention can be differentiated once
            scores = functional_call(model, swapped, (x.to(device),), tie_weights=False)
            loss = F.cross_entropy(scores, y.to(device), reduction="sum") / len(data)
            slopes = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
        along = sum((slope * sign).sum() for slope, sign in zip(slopes, v, strict=True))
        products = torch.autograd.grad(along, list(leaves.values()))  # type: ignore[arg-type]
        total += [float((product * sign).sum()) for product, sign in zip(products, v, strict=True)]
    return list(total)


def _distinct(bits: Sequence[int]) -> list[int]:
    columns = [check_total_bits(int(b)) for b in bits]
    if not columns or len(set(columns)) != len(columns):
        raise ValueError(f"bits must be different numbers, at least one, not {list(bits)!r}")
    return sorted(columns)


def _frame(values: np.ndarray[Any, Any], names: tuple[str, ...], columns: list[int]) -> pd.DataFrame:
    return pd.DataFrame(values, index=pd.Index(names, name="layer"), columns=columns)
