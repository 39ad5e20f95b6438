"""How a layer lies on the weight-serial tile: its matrix products, cut as `stripes_sim.dataflows.tiles` counts them.

A convolution is a product of windows and filters for each of its groups; the tile takes ``lanes`` terms of a dot
product at a time. What a lane takes in which step is a table, so that folded first layers, depthwise layers and tails
are no cases of their own further down: a lane without a term multiplies by 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from stripes_sim._packed import pack
from stripes_sim.layers import LayerShape
from stripes_sim.parameters import Parameters

__all__ = ["Layout", "Product", "lay_out"]

Ints = npt.NDArray[np.int64]
_NOTHING = -1


@dataclass(frozen=True, kw_only=True)
class Product:
    """One group: ``windows @ filters.T``, and in which order its terms are taken.

    Attributes:
        windows: (N, K) int64, the activations that each window meets.
        filters: (F, K) int64.
        terms: (steps, lanes) columns of both, -1 where a lane has nothing to do.
    """

    windows: Ints
    filters: Ints
    terms: Ints


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A layer on the array.

    Attributes:
        products: one for each group, all of one shape.
        shared: whether windows share weights; if not, the columns work on parts of one token's dot products.
        filter_steps: how often the filters fill all rows of all tiles.
        tiles: how many tiles have work.
        columns, rows: of the machine.
        planes: bits of a weight.
    """

    products: tuple[Product, ...]
    shared: bool
    filter_steps: int
    tiles: int
    columns: int
    rows: int
    planes: int

    @property
    def depth(self) -> int:
        """Steps of one run of a dot product."""
        return len(self.products[0].terms)

    @property
    def window_sets(self) -> int:
        """How often the columns are filled; tokens, where they share no weight."""
        windows = len(self.products[0].windows)
        return -(-windows // self.columns) if self.shared else windows

    @property
    def parts(self) -> int:
        """What the columns share out of a token: slices of the channels of every filter step."""
        return self.filter_steps * self.depth

    @property
    def rounds(self) -> int:
        """How often all columns get a part."""
        return -(-self.parts // self.columns)

    @property
    def cycles(self) -> int:
        """Of the whole layer; the sequencer counts as many."""
        runs = self.filter_steps * self.depth if self.shared else self.rounds
        return len(self.products) * self.window_sets * runs * self.planes


def lay_out(layer: LayerShape, hw: Parameters, weights: Ints, activations: Ints, planes: int) -> Layout:
    """The layer on ``hw``, whose arguments `stripes_sim.rtl.write_rtl` has checked.

    Args:
        layer: a convolution or a linear layer.
        hw: a machine with serial weights.
        weights: as torch has them, (out, in / groups, *kernel) or (out, in).
        activations: (in, *input_size) or (tokens, in).
        planes: bits of a weight.
    """
    products, rows, tiles = _products(layer, hw, weights, activations)
    filter_sets = -(-len(products[0].filters) // rows)
    filter_steps = -(-filter_sets // tiles)
    layouts = [
        Layout(
            products=tuple(products),
            shared=shared,
            filter_steps=filter_steps,
            tiles=min(tiles, filter_sets),
            columns=hw.columns,
            rows=hw.rows,
            planes=planes,
        )
        for shared in ((True,) if layer.is_spatial else (False, True))
    ]
    # of two equal ones the first, as the closed form says
    return min(layouts, key=lambda layout: layout.cycles)


def _products(layer: LayerShape, hw: Parameters, weights: Ints, activations: Ints) -> tuple[list[Product], int, int]:
    """The groups, and how many rows and tiles they can use."""
    if not layer.is_spatial:
        return (
            [Product(windows=activations, filters=weights, terms=_terms(layer.in_channels, 1, hw.lanes))],
            hw.rows,
            hw.tiles,
        )
    met = _windows(layer, activations)  # (in_channels, taps, N)
    kernels = weights.reshape(len(weights), -1, prod(layer.kernel_size))  # (out_channels, in_channels / groups, taps)
    channels = layer.in_channels // layer.groups
    if channels == 1 and layer.in_channels != 1:
        side = min(hw.lanes, hw.rows)
        return _diagonals(met, kernels, layer, hw, side), side, 1
    filters = layer.out_channels // layer.groups
    folded = hw.space_to_depth and bool(pack([layer]).foldable[0, 0])
    terms = _folded(layer, hw.lanes) if folded else _terms(channels, met.shape[1], hw.lanes)
    products = [
        Product(
            windows=met[g * channels : (g + 1) * channels].reshape(-1, met.shape[2]).T,
            filters=kernels[g * filters : (g + 1) * filters].reshape(filters, -1),
            terms=terms,
        )
        for g in range(layer.groups)
    ]
    return products, hw.rows, hw.tiles


def _windows(layer: LayerShape, activations: Ints) -> Ints:
    """(in_channels, taps, N): what every tap of every window meets, 0 in the padding."""
    sizes = zip(layer.padding_before, layer.padded_size, layer.input_size, strict=True)
    padded = np.pad(activations, [(0, 0), *((before, whole - size - before) for before, whole, size in sizes)])
    axes = tuple(range(1, padded.ndim))
    spans = [(kernel - 1) * dilation + 1 for kernel, dilation in zip(layer.kernel_size, layer.dilation, strict=True)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, spans, axes)
    met = seen[(slice(None), *(slice(None, None, step) for step in (*layer.stride, *layer.dilation)))]
    taps = prod(layer.kernel_size)
    return np.moveaxis(met.reshape(layer.in_channels, -1, taps), 2, 1)


def _terms(channels: int, taps: int, lanes: int) -> Ints:
    """Kernel places one after the other, at each of them the channels in slices of ``lanes``."""
    depth = -(-channels // lanes)
    channel = np.arange(depth * lanes).reshape(1, depth, lanes)
    term = channel * taps + np.arange(taps)[:, None, None]
    return np.where(channel < channels, term, _NOTHING).reshape(-1, lanes)


def _folded(layer: LayerShape, lanes: int) -> Ints:
    """Space to depth: the places of a stride become channels, and a kernel place is one of strides.

    Tap t of an axis is place t mod s of stride t div s.
    """
    kernel, stride = layer.kernel_size, layer.stride
    coarse = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
    tap = np.indices([*coarse, *stride])  # (axes, *coarse, *stride)
    axes = len(kernel)
    fine = [tap[i] * stride[i] + tap[axes + i] for i in range(axes)]
    inside = np.all([fine[i] < kernel[i] for i in range(axes)], axis=0)
    place = np.ravel_multi_index([np.minimum(fine[i], kernel[i] - 1) for i in range(axes)], kernel)
    place = np.where(inside, place, _NOTHING).reshape(prod(coarse), 1, prod(stride))
    channel = np.arange(layer.in_channels)[None, :, None]
    term = np.where(place == _NOTHING, _NOTHING, channel * prod(kernel) + place).reshape(prod(coarse), -1)
    short = -term.shape[1] % lanes
    return np.pad(term, [(0, 0), (0, short)], constant_values=_NOTHING).reshape(-1, lanes)


def _diagonals(met: Ints, kernels: Ints, layer: LayerShape, hw: Parameters, side: int) -> list[Product]:
    """A depthwise layer: lane i and row i of one tile work on filter i of a block; all other pairs multiply by 0."""
    per_channel = layer.out_channels // layer.in_channels
    taps = met.shape[1]
    products = []
    for start in range(0, layer.out_channels, side):
        block = np.arange(start, min(start + side, layer.out_channels))
        windows = np.zeros((met.shape[2], side, taps), dtype=np.int64)
        windows[:, : len(block)] = met[block // per_channel].transpose(2, 0, 1)
        filters = np.zeros((side, side, taps), dtype=np.int64)
        filters[np.arange(len(block)), np.arange(len(block))] = kernels[block, 0]
        terms = _terms(side, taps, side)
        idle = np.full((taps, hw.lanes - side), _NOTHING)
        products.append(
            Product(
                windows=windows.reshape(len(windows), -1),
                filters=filters.reshape(side, -1),
                terms=np.hstack([terms, idle]),
            )
        )
    return products
