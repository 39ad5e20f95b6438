"""beta's own plain SGD: never the user's optimizer, which would cancel or shrink its price."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from waveq.parametrization import WaveParametrization
from waveq.settings import Settings, WaveLayer

__all__ = ["move_betas"]

_TREND_STEPS = 50  # over which the trend is averaged, at least; an eighth of phase 2 where that is longer
_MAX_STEP = 0.05  # bits; the task's gradient on beta is noisy, and one step must not cross a level
_LEAST_COST = 0.1  # layers whose bits cost less than this share of the mean are paced as if they cost it


@torch.no_grad()
def move_betas(layers: Sequence[WaveLayer], settings: Settings, grad_scale: float, progress: float) -> bool:
    """One SGD step of every beta that is still learned, on gradients averaged over ranks.

    Each layer's rate is divided by its relative cost per bit: where beta rests does not depend on it, and a layer whose
    bits are cheap gets there as soon as the others.

    Args:
        layers: the layers whose bits are learned.
        settings: rate, clamps, and the preset's momentum and decay.
        grad_scale: what the loss was multiplied with before ``backward()``.
        progress: how much of phase 2 is over, 0 to 1.

    Returns:
        Whether they moved: not without gradients, nor on an overflow of mixed precision, where the user's optimizer
        skips its step too.
    """
    learning = [layer for layer in layers if layer.state.learns]
    states = [layer.state for layer in learning]
    if not states or all(state.beta.grad is None for state in states):
        return False
    gradient = _gradient(states) / grad_scale
    if not bool(torch.isfinite(gradient).all()):
        return False
    preset = settings.preset
    low, high = settings.beta_range
    fresh = 1.0 / max(_TREND_STEPS, ((settings.schedule.fall or 0) - settings.schedule.rise) / 8)
    pace = 1.0 if progress <= 1.0 - preset.settle else (1.0 - progress) / preset.settle
    for layer, slope in zip(learning, gradient.tolist(), strict=True):
        state, rate = layer.state, settings.beta_lr / max(settings.bit_costs[layer.name], _LEAST_COST)
        beta = state.beta.detach().item()
        velocity = preset.beta_momentum * float(state.velocity) + slope + preset.beta_weight_decay * beta
        move = max(-_MAX_STEP, min(_MAX_STEP, rate * velocity))
        new = min(high, max(low, beta - pace * move))
        held = new in (low, high)  # at a clamp there is no travel, whatever the gradient says
        state.velocity.fill_(velocity)
        state.trend.mul_(1.0 - fresh).add_(0.0 if held else -fresh * move)
        state.beta.fill_(new)
    return True


def _gradient(states: Sequence[WaveParametrization]) -> Tensor:
    """All betas' gradients on one device, the mean over ranks where torch.distributed runs."""
    home = states[0].beta.device
    zero = torch.zeros((), device=home)
    gradient = torch.stack([zero if s.beta.grad is None else s.beta.grad.to(home) for s in states])
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(gradient)
        gradient /= dist.get_world_size()
    return gradient
