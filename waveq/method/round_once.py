"""Rounding a float network once, without any training: what the float road has to be better than."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from waveq.method.attachment import attach_method
from waveq.method.float_road import fit_range
from waveq.method.options import Method
from waveq.quantizers import Quantizer
from waveq.quantizers.base import Granularity

__all__ = ["round_once"]


@torch.no_grad()
def round_once(
    model: nn.Module,
    bits: Mapping[str, int],
    *,
    skip: Iterable[str] = (),
    quantizer: Quantizer | None = None,
    granularity: Granularity | None = None,
) -> None:
    """Round the weights of a model in place: each layer's range is the one at which rounding moves them least.

    Inputs stay in floating point.

    Args:
        model: plain, changed in place.
        bits: total bits by layer.
        skip: layers that stay as they are: all that ``bits`` does not name.
        quantizer: a method with scale "max"; None is "midrise".
        granularity: whether each output channel has a range of its own.

    Raises:
        ValueError: see ``attach``.

    Example:
        >>> net = nn.Sequential(nn.Linear(64, 64))
        >>> round_once(net, {"0": 3})
        >>> net[0].weight.unique().numel()
        8
    """
    method = Method(
        bits=bits,
        skip=skip,
        quantizer=quantizer,
        granularity=granularity,
        scale="max",
        forward="float",
        freezing="off",
        total_steps=1,
    )
    wq = attach_method(model, method)
    for layer in wq._layers.values():
        fit_range(layer)
    wq.finalize()
