"""What a layer moves on and off chip, however that was found: by the closed form or by a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from stripes_sim.dataflows.base import Floats

__all__ = ["Plan", "Tile"]


@dataclass(frozen=True)
class Tile:
    """How a searched layer is cut, and how often each operand moves.

    Attributes:
        windows: samples, then output places along each axis (tokens), of the largest tile.
        channels, filters: of a tile, within one group.
        weights, inputs: how often they are read from DRAM.
        sums: how often partial sums go there and come back.
    """

    windows: tuple[int, ...]
    channels: int
    filters: int
    weights: int
    inputs: int
    sums: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Bits that broadcast to (L, B).

    Attributes:
        reads: weights and inputs from DRAM.
        writes: outputs to DRAM, where they leave the chip.
        spills: partial sums to DRAM, and as many back.
        weight_fills, input_fills: what is written into the weight and the activation buffer on its way from DRAM.
        sums: partial sums that the activation buffer writes, and as many that it reads, where channels are cut.
        tails: factor on the array's cycles, where tiles are no multiples of what it works on at once.
        tiles: layer number -> how it was cut; of searched layers, where one case was asked for.
    """

    reads: Floats
    writes: Floats
    spills: Floats
    weight_fills: Floats
    input_fills: Floats
    sums: Floats = field(default_factory=lambda: np.zeros((1, 1)))
    tails: Floats = field(default_factory=lambda: np.ones((1, 1)))
    tiles: Mapping[int, Tile] = field(default_factory=dict)
