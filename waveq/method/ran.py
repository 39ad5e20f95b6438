"""Which layers ran: what a budget is counted over, agreed among the ranks that train together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from waveq.method.settings import WaveLayer

__all__ = ["agree_on_layers"]


def agree_on_layers(layers: Sequence[WaveLayer]) -> None:
    """Where several ranks train, a layer that ran on one of them ran on all.

    An expert may see no token on one rank and some on another. Ranks that count a budget over other layers would drive
    their prices, and so their bits, apart. Once all layers have run nothing is asked any more.

    Args:
        layers: the same ones on every rank.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    if all(layer.state.ran_somewhere for layer in layers):
        return
    ran = torch.tensor([float(layer.state.ran) for layer in layers], device=layers[0].kept("beta").device)
    dist.all_reduce(ran, dist.ReduceOp.MAX)
    for layer, flag in zip(layers, ran.tolist(), strict=True):
        layer.state.ran_somewhere = bool(flag)
