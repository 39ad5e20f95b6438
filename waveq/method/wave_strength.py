"""How strong the wave must be so that lambda_w = 1 means: as long as the task's own gradient, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from waveq._kernels.engine import Engine
from waveq._kernels.layout import widened
from waveq._kernels.rounding import Formulas
from waveq._kernels.sharded import gathered, is_sharded
from waveq.functional import frequency, phase, power_of_two
from waveq.method.penalty import UNMEASURED, engine_of, kinds_of
from waveq.method.settings import Settings, WaveLayer
from waveq.method.sharding import by_shards

__all__ = ["UNMEASURED", "rebalance", "rebalance_all"]

_MEMORY = 0.8  # of the running mean over looks


@torch.no_grad()
def rebalance(layer: WaveLayer, settings: Settings) -> None:
    """Update one layer's strength from the gradient that its weight holds after the optimizer's step.

    strength = |task gradient| / |wave gradient of spread-out weights|.

    - The task's part of the gradient is what is orthogonal to the wave's own pull: the gradient holds both, and a
      strength that followed their sum would feed on itself.
    - The pull is measured as if its phase were random. Weights that reached their levels feel none, and a strength
      that made up for that would grow without bound and throw them off again.
    """
    if layer.weight.grad is None:
        return
    sharded = is_sharded(layer.weight)
    ratio = gathered(by_shards(layer, lambda: _ratio(layer, settings))) if sharded else _ratio(layer, settings)
    _remember([layer], ratio[None])


def _ratio(layer: WaveLayer, settings: Settings) -> Tensor:
    pull, length = _pull_and_length(layer, settings)
    assert layer.weight.grad is not None
    gradient = widened(layer.weight.grad)
    along = (gradient * pull).sum() / pull.square().sum().clamp_min(torch.finfo(pull.dtype).tiny)
    ratio: Tensor = (gradient - along * pull).norm() / length
    return ratio


def _remember(layers: Sequence[WaveLayer], ratios: Tensor) -> None:
    """Take (L,) ratios into the running means."""
    before = torch.stack([layer.state.strength for layer in layers])
    ratios = ratios.to(before.dtype)
    memory = torch.where(before == UNMEASURED, 0.0, _MEMORY)
    mixed = memory * before + (1.0 - memory) * ratios
    # overflow of mixed precision, or a layer that the wave cannot move: keep what was
    found = torch.where(torch.isfinite(ratios), mixed, before)
    for layer, strength in zip(layers, found.unbind(), strict=True):
        layer.state.strength.copy_(strength)


@torch.no_grad()
def rebalance_all(layers: Sequence[WaveLayer], settings: Settings) -> None:
    """``rebalance`` for all layers; those that an engine can take in one pass, from four sums each."""
    compiled: dict[Engine, list[WaveLayer]] = {}
    for layer in layers:
        engine = engine_of(layer, settings)
        # without a scale the largest weight's gradient holds a sum over all others, which the four sums do not have
        if engine is None or is_sharded(layer.weight) or layer.state.quantizer.scale == "none":
            rebalance(layer, settings)
        elif layer.weight.grad is not None:
            compiled.setdefault(engine, []).append(layer)
    for engine, theirs in compiled.items():
        for kind in kinds_of(theirs):
            _rebalance_together(engine, kind, settings)


def _rebalance_together(engine: Engine, layers: Sequence[WaveLayer], settings: Settings) -> None:
    weights = [layer.weight for layer in layers]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    states, raw = [layer.state for layer in layers], settings.wave_on == "raw"
    formulas = Formulas(states, weights, engine, rounds=False, wave=True, raw=raw)
    found = engine.lengths(formulas.laid_out(weights), formulas.table, formulas.laid_out(gradients))
    pulls, twins, along, tasks = found.unbind(1)
    across = (tasks - along.square() / pulls.clamp_min(torch.finfo(pulls.dtype).tiny)).clamp_min(0.0)
    amplitude = math.pi * formulas.periods(slice(None)) * power_of_two(-settings.order * formulas.at) / formulas.counts
    _remember(layers, across.sqrt() / (amplitude * ((pulls + twins) / 2.0).sqrt()))


def _pull_and_length(layer: WaveLayer, settings: Settings) -> tuple[Tensor, Tensor]:
    """The wave's gradient in the weights, and its root mean square length over all shifts of the wave."""
    state, weight = layer.state, layer.weight
    with torch.enable_grad():
        u = layer.wave_input(settings.wave_on)
    beta = state.wave_beta().detach()
    theta2 = 2.0 * math.pi * phase(u.detach(), beta, state.grid)
    amplitude = math.pi * frequency(beta, state.grid) * power_of_two(-settings.order * beta) / u.numel()
    (pull,) = torch.autograd.grad(u, weight, amplitude * torch.sin(theta2), retain_graph=True)
    (across,) = torch.autograd.grad(u, weight, amplitude * torch.cos(theta2))
    pull, across = widened(pull), widened(across)
    return pull, ((pull.square().sum() + across.square().sum()) / 2.0).sqrt()
