"""The float road: no quantiser in the forward pass. Ranges, and how far the weights are from their levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from waveq.functional import phase
from waveq.method.settings import Settings, WaveLayer

__all__ = [
    "TOLERANCE",
    "distances",
    "find_bound",
    "fit_range",
    "keep_bounds",
    "off_levels",
    "rounded",
    "share_on_levels",
]

TOLERANCE = 0.05  # "on a level", in units of the distance between levels; spread-out weights are so one time in ten
_PINNED = 0.8  # the share of a layer's weights that should be on a level before they are rounded
_CANDIDATES = 40  # bounds that are tried, evenly up to the largest weight


@contextmanager
def rounded(layers: Sequence[WaveLayer]) -> Iterator[None]:
    """Within, the layers see quantised weights; nothing that a ``state_dict`` holds is touched, so that a checkpoint
    written meanwhile is the one of training. Blocks may be nested."""
    for layer in layers:
        layer.state.rounding += 1
    try:
        yield
    finally:
        for layer in layers:
            layer.state.rounding -= 1


@torch.no_grad()
def find_bound(layer: WaveLayer) -> Tensor:
    """The range of the levels, 0-dim or (C,) by channel: clipped to it and rounded, the weights move least.

    With ``scale="max"`` the levels span the largest weight, and at few bits a handful of outliers would leave nearly
    all weights to two or three of them. A quantised forward pass learns around that; rounding once cannot.
    """
    weight, quantizer = layer.weight.detach(), layer.state.quantizer
    best = top = quantizer.largest_of(weight)
    least = torch.full_like(top, torch.inf)
    for number in range(_CANDIDATES, 0, -1):
        bound = top * (number / _CANDIDATES)
        ends = quantizer.spread(bound, weight)
        off = layer.state.quantize(weight.clamp(-ends, ends)) - weight
        error = quantizer.mean_of(off.square())
        best, least = torch.where(error < least, bound, best), torch.minimum(error, least)
    return best


@torch.no_grad()
def fit_range(layer: WaveLayer) -> None:
    """Choose a layer's range, and clip its weights to it."""
    layer.state.bound.copy_(find_bound(layer))
    clip_to_bound(layer)


@torch.no_grad()
def clip_to_bound(layer: WaveLayer) -> None:
    """Clip a layer's weights to the range that was chosen."""
    ends = _ends(layer, layer.state.bound)
    layer.weight.clamp_(-ends, ends)


def _ends(layer: WaveLayer, bound: Tensor) -> Tensor:
    """A bound, 0-dim or (C,), as the weights can be clamped to it."""
    return layer.state.quantizer.spread(bound.to(layer.weight.dtype), layer.weight)


@torch.no_grad()
def keep_bounds(layers: Sequence[WaveLayer], settings: Settings, step: int) -> None:
    """Where ranges are fitted: find every layer's when its step comes, and clip the weights to it from then on."""
    if settings.bounds_from is None or step < settings.bounds_from:
        return
    for layer in layers:
        if step == settings.bounds_from:
            fit_range(layer)
        else:
            clip_to_bound(layer)


@torch.no_grad()
def share_on_levels(layer: WaveLayer, tolerance: float) -> float:
    """The share of a layer's weights that lie within ``tolerance`` of a level, in units of the levels' distance."""
    return float((distances(layer) <= tolerance).float().mean())


@torch.no_grad()
def distances(layer: WaveLayer) -> Tensor:
    """How far each of a layer's weights is from the nearest level, 0 to 1/2, in units of the levels' distance.

    Those beyond the last level count as on it.
    """
    state = layer.state
    turns = phase(layer.wave_input("quantizer"), state.wave_beta(), state.grid)
    return (turns - turns.round()).abs()


def off_levels(layers: Sequence[WaveLayer]) -> list[str]:
    """One sentence on the layers whose weights are not on their levels, if there are any."""
    shares = {layer.name: share_on_levels(layer, TOLERANCE) for layer in layers}
    loose = {name: share for name, share in shares.items() if share < _PINNED}
    if not loose:
        return []
    worst = min(loose, key=loose.__getitem__)
    return [
        f"rounding will move many weights of {', '.join(loose)}: in {worst} only {100 * loose[worst]:.0f} % lie within "
        f"{100 * TOLERANCE:.0f} % of a level. Train to the end of total_steps, by when freezing has put all on their "
        "levels; with freezing='off' let the learning rate fall to the end, train longer, or change lambda_w."
    ]


@torch.no_grad()
def forecast_rounding(layers: Sequence[WaveLayer], settings: Settings) -> str:
    """One sentence on what rounding would do to the weights as they are, each layer's range fitted where it will be."""
    errors, changed, length, near, count = {}, 0.0, 0.0, 0.0, 0
    for layer in layers:
        weight = clipped = layer.weight.detach()
        if settings.bounds_from is not None:
            ends = _ends(layer, find_bound(layer))
            clipped = weight.clamp(-ends, ends)
        error = float((layer.state.quantize(clipped) - weight).square().sum())
        size = float(weight.square().sum())
        errors[layer.name] = (error / size) ** 0.5 if size else 0.0
        changed, length = changed + error, length + size
        near, count = near + share_on_levels(layer, TOLERANCE) * weight.numel(), count + weight.numel()
    worst = max(errors, key=errors.__getitem__)
    return (
        f"Rounded as they are, the weights would change by {100 * (changed / length) ** 0.5 if length else 0:.1f} % of "
        f"their length (most in {worst}, {100 * errors[worst]:.1f} %); {100 * near / count:.0f} % lie within "
        f"{100 * TOLERANCE:.0f} % of a level."
    )
