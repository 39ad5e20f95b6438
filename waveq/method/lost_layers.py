"""Layers of which rounding leaves nothing: their levels and their weights have parted."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from waveq.method.settings import WaveLayer

__all__ = ["lost_layers"]

_FEW = 16  # so few weights may well be equal once they are rounded
_NOTHING = 0.9  # of a layer's length is lost where all weights become 0, or nearly: 2 bits of LSQ lose about a third


@torch.no_grad()
def lost_layers(layers: Sequence[WaveLayer]) -> list[str]:
    """One sentence on layers whose rounded weights are all the same, or far from the weights for all their own scale.

    A learned scale can run away: its gradient in a layer of few weights is large beside it, and a rate that suits the
    weights takes it past zero in a few steps. Without a scale, levels can be farther apart than the weights are large.
    Scales that are fixed by a method's definition (DoReFa as released) may be far from the weights by intent.
    """
    lost = {}
    for layer in layers:
        weight = layer.values.float()
        if weight.numel() < _FEW or not bool(weight.any()):
            continue
        rounded = layer.state.quantize(layer.values).float()
        parted = layer.state.quantizer.scale == "learned" and bool((rounded - weight).norm() > _NOTHING * weight.norm())
        if parted or bool(rounded.amax() == rounded.amin()):
            lost[layer.name] = (
                f"{layer.name} (weights to {weight.abs().amax():.2g}, levels to {rounded.abs().amax():.2g})"
            )
    if not lost:
        return []
    return [
        f"rounding leaves nothing of {', '.join(lost.values())}. Where scales are learned, give them a lower rate: a "
        "parameter group of their own in the optimizer, a tenth of the weights'; else choose a quantizer whose scale "
        "follows the weights, or more bits."
    ]
