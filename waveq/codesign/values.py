"""What the layers of a trained run multiply on its images, as integers of its own grids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from waveq._names import check_choice
from waveq.train.trained_run import PARTS, TrainedRun

if TYPE_CHECKING:
    from stripes_sim import Captured

__all__ = ["run_values"]


def run_values(
    run: TrainedRun, part: str, images: int, *, activation_bits: int | Mapping[str, int] | None = None
) -> Captured:
    """Activations and weights of the network that training ended with, for machines that look at them.

    Weights are their codes (`waveq.integers`), inputs that the run quantised are multiples of its scale; all others are
    scaled by their largest (`stripes_sim.capture`), and so are inputs that are priced at bits other than the run's.

    Args:
        run: a finished run.
        part: its "validation", "test" or "train" images.
        images: so many of them, from the first on.
        activation_bits: what inputs are priced at; by default the run's.

    Raises:
        ValueError: an unknown part, or no image.
    """
    import torch

    from stripes_sim import capture
    from waveq.exporting.integers import integers

    check_choice("activations", part, PARTS)
    if images < 1:
        raise ValueError(f"images must be at least 1, not {images}")
    network, taken = run.final_network(), []
    for x, _ in run.images(part):
        taken.append(x)
        if sum(map(len, taken)) >= images:
            break
    own = run.activation_bits()
    bits = own if activation_bits is None else activation_bits
    priced = {name: bits[name] if isinstance(bits, Mapping) else bits for name in own}
    scales = {name: scale for name, scale in _scales(network).items() if priced.get(name) == own.get(name)}
    found = capture(
        network,
        torch.cat(taken)[:images],
        activation_bits=bits,
        weight_bits=run.weight_bits(),
        activation_scales=scales,
    )
    codes = {
        name: each.codes.numpy().astype(np.int32)
        for name, each in integers(network, run.policy).items()
        if name in found.weights
    }
    return replace(found, weights={**found.weights, **codes})


def _scales(network: object) -> dict[str, float]:
    """Scale of each layer's input quantiser, where its levels are multiples of one."""
    from torch import nn

    from waveq.exporting.input_grids import input_grid
    from waveq.method.fixed_input import FIXED_INPUT, FixedInput

    assert isinstance(network, nn.Module)
    scales = {}
    for name, module in network.named_modules():
        fixed = getattr(module, FIXED_INPUT, None)
        if isinstance(fixed, FixedInput):
            try:
                scales[name] = input_grid(name, fixed).scale
            except ValueError:  # levels one by one: they are rounded to so many bits of their largest
                continue
    return scales
