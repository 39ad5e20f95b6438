"""What each layer loses by few bits, measured one operand at a time on training images."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.lab.choices import BITS
from benchmarks.lab.data import Part, batches
from waveq.allocate import hessian_losses
from waveq.allocate.losstables import hessian_traces
from waveq.layers import quantizable

__all__ = ["Losses", "measured", "read_or_measure", "rounded"]

Losses = dict[str, dict[str, dict[int, float]]]
"""{"weights" | "inputs" | "hessian": {layer: {bits: loss in nats}}}."""
_IMAGES = 1024
_RANGE_VALUES = 50_000  # that decide the range of a layer's inputs
_HESSIAN_IMAGES = 512
_PROBES = 16
_RANGES = torch.linspace(0.3, 1.0, 15)


def read_or_measure(path: Path, network: nn.Module, train: Part, seed: int) -> Losses:
    """The tables that are in a file, or measured and written there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.{time.time_ns()}")
        partial.write_text(json.dumps(measured(network, train, seed)))
        partial.rename(path)
    content: dict[str, Any] = json.loads(path.read_text())
    return {
        kind: {name: {int(bits): loss for bits, loss in row.items()} for name, row in table.items()}
        for kind, table in content.items()
    }


@torch.no_grad()
def measured(network: nn.Module, train: Part, seed: int) -> Losses:
    """Rise of the cross-entropy when one layer's weights, or inputs, are rounded and nothing else; HAWQ's for weights.

    Levels have the range at which rounding moves the numbers least. ``network`` is put into evaluation mode.
    """
    network.eval()
    few = (train[0][:_IMAGES], train[1][:_IMAGES])
    layers = quantizable(network)
    start = _loss(network, few)
    weights: dict[str, dict[int, float]] = {name: {} for name in layers}
    inputs: dict[str, dict[int, float]] = {name: {} for name in layers}
    errors: dict[str, dict[int, float]] = {name: {} for name in layers}
    for name, module in layers.items():
        for bits in BITS:
            plain = module.weight.detach()  # type: ignore[operator]
            other = rounded(plain, bits, signed=True)
            errors[name][bits] = float((other - plain).double().square().sum())
            with _changed(module, other):
                weights[name][bits] = _loss(network, few) - start
            with _rounding_inputs(module, bits):
                inputs[name][bits] = _loss(network, few) - start
    with torch.enable_grad():
        curved = (train[0][:_HESSIAN_IMAGES], train[1][:_HESSIAN_IMAGES])
        traces = hessian_traces(network, curved, probes=_PROBES, seed=seed)
    positive = {name: max(trace.value, 0.0) for name, trace in traces.items()}
    return {"weights": weights, "inputs": inputs, "hessian": hessian_losses(network, positive, errors)}


def rounded(values: Tensor, bits: int, *, signed: bool) -> Tensor:
    """Values on 2^bits - 1 levels around zero (signed) or 2^bits levels from zero, over the range of least error.

    Example:
        >>> rounded(torch.tensor([-1.0, 0.1, 0.9]), 2, signed=True).round(decimals=2).tolist()
        [-0.949..., 0.0, 0.949...]
    """
    flat = values.flatten()
    some = flat[:: max(1, len(flat) // _RANGE_VALUES)]
    steps = [share * float(flat.abs().max()) / _top(bits, signed) for share in _RANGES.tolist()]
    errors = torch.stack([(_on_grid(some, step, bits, signed) - some).square().mean() for step in steps])
    return _on_grid(values, steps[int(errors.argmin())], bits, signed)


def _top(bits: int, signed: bool) -> float:
    return 2.0 ** (bits - 1) - 1 if signed else 2.0**bits - 1


def _on_grid(values: Tensor, step: float, bits: int, signed: bool) -> Tensor:
    top = _top(bits, signed)
    return (values / max(step, 1e-12)).round().clamp(-top if signed else 0.0, top) * step


def _loss(network: nn.Module, part: Part) -> float:
    total = sum(float(F.cross_entropy(network(x), y, reduction="sum")) for x, y in batches(part, 1024))
    return total / len(part[1])


@contextmanager
def _changed(module: nn.Module, weight: Tensor) -> Iterator[None]:
    kept = module.weight.data.clone()  # type: ignore[operator, union-attr]
    module.weight.data.copy_(weight)  # type: ignore[operator, union-attr]
    try:
        yield
    finally:
        module.weight.data.copy_(kept)  # type: ignore[operator, union-attr]


@contextmanager
def _rounding_inputs(module: nn.Module, bits: int) -> Iterator[None]:
    def hook(_module: nn.Module, args: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return (rounded(args[0], bits, signed=bool(args[0].min() < 0)), *args[1:])

    handle: Any = module.register_forward_pre_hook(hook)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()
