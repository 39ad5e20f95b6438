"""beta's own plain SGD: never the user's optimizer, which would cancel or shrink its price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from waveq.functional import magnitude_bits
from waveq.method.operands import Operand
from waveq.method.settings import Settings
from waveq.method.settling import block_of, pace_at, start_of

__all__ = ["move_betas"]

Numbers = npt.NDArray[np.float64]

_MOVED = ("beta", "velocity")
_MAX_STEP = 0.05  # bits; the task's gradient on beta is noisy, and one step must not cross a level
_LEAST_TRAVEL = 2.0  # times ``Settings.travel``: the longest steps of phase 2 add up to that, in a short run too
_LEAST_COST = 0.1  # layers whose bits cost less than this share of the mean are paced as if they cost it


@torch.no_grad()
def move_betas(
    operands: Sequence[Operand],
    settings: Settings,
    grad_scale: float,
    progress: float,
    bit_costs: Mapping[str, float],
) -> Numbers | None:
    """One SGD step of every beta that is still learned, on gradients averaged over ranks.

    Each one's rate is divided by its relative cost per bit: where beta rests does not depend on it, and one whose bits
    are cheap gets there as soon as the others.

    Args:
        operands: weights and inputs whose bits are learned.
        settings: rate, clamps, and the preset's momentum and decay.
        grad_scale: what the loss was multiplied with before ``backward()``.
        progress: how much of phase 2 is over, 0 to 1.
        bit_costs: what one bit of each costs, with mean 1.

    Returns:
        Where those that are learned are now, (n,) float64. None where they did not move: without gradients, or on an
        overflow of mixed precision, where the user's optimizer skips its step too.
    """
    learning = [operand for operand in operands if operand.state.learns]
    if not learning or all(operand.kept("beta").grad is None for operand in learning):
        return None
    beta, velocity, slope = _fetched(learning)
    slope = slope / grad_scale
    if not np.isfinite(slope).all():
        return None
    preset = settings.preset
    low, high = settings.beta_range
    steps = max(1, (settings.schedule.fall or 0) - settings.schedule.rise)
    block = block_of(progress, steps, start=start_of(budgeted=settings.budget is not None))
    longest = max(_MAX_STEP, _LEAST_TRAVEL * settings.travel / steps) if settings.schedule.fall else _MAX_STEP
    pace = pace_at(progress, preset.settle)
    rate = settings.beta_lr / np.maximum([bit_costs[operand.name] for operand in learning], _LEAST_COST)
    speed = preset.beta_momentum * velocity + slope + preset.beta_weight_decay * beta
    move = np.clip(rate * speed, -longest, longest)
    new: Numbers = np.clip(beta - pace * move, low, high)
    moved = torch.from_numpy(np.concatenate([new, speed])).to(learning[0].kept("beta"))
    torch._foreach_copy_([operand.kept(name) for name in _MOVED for operand in learning], list(moved.unbind()))
    if block is not None:
        travel = torch.from_numpy(new - beta).to(learning[0].kept("beta"))
        torch._foreach_add_([operand.kept("trend")[block] for operand in learning], list(travel.unbind()))
    _follow_bits(learning, beta, new)
    return new


def _fetched(operands: Sequence[Operand]) -> Numbers:
    """beta, velocity and gradient, (3, L) float64: all are fetched at once, and few numbers need no torch.

    Gradients are means over ranks where torch.distributed runs.
    """
    home = operands[0].kept("beta").device
    kept = [operand.kept(name) for name in _MOVED for operand in operands]
    gradients = [torch.zeros_like(beta) if beta.grad is None else beta.grad for beta in kept[: len(operands)]]
    stacked = torch.stack([each if each.device == home else each.to(home) for each in (*kept, *gradients)])
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        shared = stacked[-len(operands) :].clone()
        dist.all_reduce(shared)
        stacked[-len(operands) :] = shared / dist.get_world_size()
    return stacked.double().cpu().numpy().reshape(3, -1)


def _follow_bits(operands: Sequence[Operand], before: Numbers, new: Numbers) -> None:
    """Tell the quantisers that want to know where their bits have gone."""
    places = [place for place, operand in enumerate(operands) if operand.follows_bits]
    if not places:
        return
    betas = torch.from_numpy(np.stack([before, new])).float()
    bits = magnitude_bits(betas, operands[0].state.hysteresis) + 1.0
    was, now = bits.tolist()
    for place in places:
        operands[place].follow_bits(int(was[place]), int(now[place]))
