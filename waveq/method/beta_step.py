"""beta's own plain SGD: never the user's optimizer, which would cancel or shrink its price."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from waveq.functional import magnitude_bits
from waveq.method.settings import Settings, WaveLayer
from waveq.method.settling import block_of, pace_at, start_of
from waveq.quantizers import WeightQuantizer

__all__ = ["move_betas"]

Numbers = npt.NDArray[np.float64]

_MOVED = ("beta", "velocity")
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
    if not learning or all(layer.kept("beta").grad is None for layer in learning):
        return False
    beta, velocity, slope = _fetched(learning)
    slope = slope / grad_scale
    if not np.isfinite(slope).all():
        return False
    preset = settings.preset
    low, high = settings.beta_range
    steps = max(1, (settings.schedule.fall or 0) - settings.schedule.rise)
    block = block_of(progress, steps, start=start_of(budgeted=settings.budget is not None))
    longest = max(_MAX_STEP, _LEAST_TRAVEL * (high - low) / steps) if settings.schedule.fall else _MAX_STEP
    pace = pace_at(progress, preset.settle)
    rate = settings.beta_lr / np.maximum([settings.bit_costs[layer.name] for layer in learning], _LEAST_COST)
    speed = preset.beta_momentum * velocity + slope + preset.beta_weight_decay * beta
    move = np.clip(rate * speed, -longest, longest)
    new = np.clip(beta - pace * move, low, high)
    moved = torch.from_numpy(np.concatenate([new, speed])).to(learning[0].kept("beta"))
    torch._foreach_copy_([layer.kept(name) for name in _MOVED for layer in learning], list(moved.unbind()))
    if block is not None:
        travel = torch.from_numpy(new - beta).to(learning[0].kept("beta"))
        torch._foreach_add_([layer.kept("trend")[block] for layer in learning], list(travel.unbind()))
    _follow_bits(learning, beta, new)
    return True


def _fetched(layers: Sequence[WaveLayer]) -> Numbers:
    """beta, velocity and gradient, (3, L) float64: all are fetched at once, and few numbers need no torch.

    Gradients are means over ranks where torch.distributed runs.
    """
    home = layers[0].kept("beta").device
    kept = [layer.kept(name) for name in _MOVED for layer in layers]
    gradients = [torch.zeros_like(beta) if beta.grad is None else beta.grad for beta in kept[: len(layers)]]
    stacked = torch.stack([each if each.device == home else each.to(home) for each in (*kept, *gradients)])
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        shared = stacked[-len(layers) :].clone()
        dist.all_reduce(shared)
        stacked[-len(layers) :] = shared / dist.get_world_size()
    return stacked.double().cpu().numpy().reshape(3, -1)


def _follow_bits(layers: Sequence[WaveLayer], before: Numbers, new: Numbers) -> None:
    """Tell the quantisers that want to know where their bits have gone."""
    those = [each for each in layers if type(each.state.quantizer).follow_bits is not WeightQuantizer.follow_bits]
    if not those:
        return
    betas = torch.from_numpy(np.stack([before, new])).float()
    bits = magnitude_bits(betas, layers[0].state.hysteresis) + 1.0
    for layer, was, now in zip(layers, *bits.tolist(), strict=True):
        layer.state.quantizer.follow_bits(layer.weight.detach(), int(was), int(now))
