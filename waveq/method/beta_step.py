"""beta's own plain SGD: never the user's optimizer, which would cancel or shrink its price."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from waveq.functional import magnitude_bits
from waveq.method.parametrization import WaveParametrization
from waveq.method.settings import Settings, WaveLayer
from waveq.method.settling import block_of, pace_at, start_of

__all__ = ["move_betas"]

_MAX_STEP = 0.05  # bits; the task's gradient on beta is noisy, and one step must not cross a level
_LEAST_TRAVEL = 2.0  # ranges of beta that the longest steps of phase 2 add up to: a short run must get there too
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
    slopes = [slope / grad_scale for slope in _slopes(states)]
    if not all(map(math.isfinite, slopes)):
        return False
    preset = settings.preset
    low, high = settings.beta_range
    steps = max(1, (settings.schedule.fall or 0) - settings.schedule.rise)
    block = block_of(progress, steps, start=start_of(budgeted=settings.budget is not None))
    longest = max(_MAX_STEP, _LEAST_TRAVEL * (high - low) / steps) if settings.schedule.fall else _MAX_STEP
    pace = pace_at(progress, preset.settle)
    moves = []
    for layer, slope in zip(learning, slopes, strict=True):
        rate = settings.beta_lr / max(settings.bit_costs[layer.name], _LEAST_COST)
        state = layer.state
        kept: dict[str, Any] = state._buffers  # found without nn.Module's search, which takes longer than the rest
        beta, velocity, trend = kept["beta"], kept["velocity"], kept["trend"]
        before: float = beta.item()
        speed = preset.beta_momentum * velocity.item() + slope + preset.beta_weight_decay * before
        move = max(-longest, min(longest, rate * speed))
        new = min(high, max(low, before - pace * move))
        velocity.fill_(speed)
        if block is not None:
            trend[block] += new - before
        beta.fill_(new)
        moves.append((before, new))
    bits = magnitude_bits(torch.tensor(moves), states[0].hysteresis) + 1.0
    for layer, (before, now) in zip(learning, bits.tolist(), strict=True):
        layer.state.quantizer.follow_bits(layer.weight.detach(), int(before), int(now))
    return True


def _slopes(states: Sequence[WaveParametrization]) -> list[float]:
    """All betas' gradients, the mean over ranks where torch.distributed runs."""
    alone = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
    gradients = [state.beta.grad for state in states]
    if alone and all(gradient is None or gradient.is_cpu for gradient in gradients):
        return [0.0 if gradient is None else gradient.item() for gradient in gradients]
    home = states[0].beta.device  # on a GPU all are fetched at once
    zero = torch.zeros((), device=home)
    stacked = torch.stack([zero if gradient is None else gradient.to(home) for gradient in gradients])
    if not alone:
        dist.all_reduce(stacked)
        stacked /= dist.get_world_size()
    found: list[float] = stacked.tolist()
    return found
