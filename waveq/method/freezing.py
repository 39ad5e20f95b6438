"""Progressive freezing: on the float road weights that are near their levels are put there and stay, in the end all.

In the manner of Zhou et al. 2017 ("Incremental network quantization", arXiv 1702.03044): what is still free learns
around what is fixed, and nothing is left to be rounded at the end. Differences: the weights nearest to their levels go
first, where the paper takes the largest; many small steps (``schedules.Course``), where it takes four shares (50, 75,
87.5 and 100 %) with training in between; levels are evenly spaced, where its are powers of two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist

from waveq.method.float_road import distances
from waveq.method.frozen import Frozen
from waveq.method.settings import Settings, WaveLayer

__all__ = ["forecast_freezing", "freeze_nearest", "keep_frozen"]


@torch.no_grad()
def keep_frozen(layers: Sequence[WaveLayer], settings: Settings, step: int) -> None:
    """After an optimizer's step: put the frozen weights back, and freeze more where their course says so.

    Gradients are left alone: whatever an optimizer makes of them (momentum, moments, weight decay, several moves a
    step) ends with its step.
    """
    course = settings.freezing
    if course is None or step <= course.begin:
        return
    for layer in layers:
        _frozen(layer).hold(layer.weight)
        if course.is_due(step):
            freeze_nearest(layer, course.share(step))


@torch.no_grad()
def freeze_nearest(layer: WaveLayer, share: float) -> None:
    """Put a share of a layer's weights on their levels: those that are nearest, equally near ones together.

    Those beyond the last level count as on it. So the largest weight is among the first ones, and with it the range of
    levels that follow it comes to rest. A layer of zeros has not begun to learn and waits for the end.
    """
    weight = layer.weight.detach()
    if share < 1.0 and not bool(weight.any()):
        return
    distance = distances(layer)
    count = min(distance.numel(), math.ceil(share * distance.numel()))
    # no kthvalue: its kernel for CUDA is refused under torch.use_deterministic_algorithms
    farthest = distance.flatten().topk(count, largest=False, sorted=False).values.amax()
    stays = distance <= farthest
    if dist.is_available() and dist.is_initialized():  # ranks whose weights differ in their last bit must not part
        agreed = stays.to(torch.int8)
        dist.broadcast(agreed, src=0)
        stays = agreed.bool()
    _frozen(layer).put(weight, stays, layer.state.quantize(weight))


def _frozen(layer: WaveLayer) -> Frozen:
    assert layer.state.frozen is not None  # made by attach wherever there is a course
    return layer.state.frozen


def forecast_freezing(settings: Settings) -> str:
    """When the weights freeze, in a sentence; empty where they do not."""
    course = settings.freezing
    if course is None:
        return ""
    half = next(step for step in range(course.begin, course.end + 1) if course.share(step) >= 0.5)
    return f"From step {course.begin} on they freeze on their levels: half of them by {half}, all by {course.end}."
