"""A layer as the loop nest that other simulators take: one size for each loop, and what the array spreads in space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from stripes_sim.layers import LayerShape
from stripes_sim.result import Result

__all__ = ["Nest", "Spread", "nests", "spread"]


@dataclass(frozen=True, kw_only=True)
class Nest:
    """``out[n, g, m, p, q] += weight[g, m, c, r, s] * input[n, g, c, p * stride + r * dilation, ...]``.

    ``sizes`` has the bounds of G (groups, or matrices where every copy has its own), N (samples and calls that share
    weights), M (filters of a group), C (channels of a group), R, S (kernel) and P, Q (output places, or tokens). All
    pairs are along P and Q.
    """

    name: str
    sizes: Mapping[str, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    input_size: tuple[int, int]
    padding: tuple[tuple[int, int], tuple[int, int]]
    weight_bits: int
    activation_bits: int

    @property
    def macs(self) -> int:
        """The product of all bounds."""
        return prod(self.sizes.values())


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How far the array unrolls the loops of a nest in space; its tails are the rest of a division."""

    lanes: int
    columns_p: int
    columns_q: int
    rows: int
    tiles: int

    @property
    def by_dimension(self) -> dict[str, int]:
        """C, P, Q and M."""
        return {"C": self.lanes, "P": self.columns_p, "Q": self.columns_q, "M": self.rows * self.tiles}


def nests(result: Result) -> tuple[list[Nest], list[str]]:
    """The nests of all layers that multiply, and the names of those that do not.

    Raises:
        ValueError: a transposed or three-dimensional convolution, which is no such nest.
    """
    found, idle = [], []
    bits = zip(result.costs.stationary_bits[:, 0].tolist(), result.activation_bits[:, 0].tolist(), strict=True)
    for layer, (weight_bits, activation_bits) in zip(result.layers, bits, strict=True):
        if not layer.macs:
            idle.append(layer.name)
        else:
            found.append(_nest(layer, weight_bits, activation_bits, result.batch))
    return found, idle


def spread(nest: Nest, hardware: object) -> Spread:
    """How the tile takes a nest: lanes channels, columns windows, rows and tiles filters.

    Columns take windows of both axes in turn; here they take a rectangle of them, the one that needs the fewest sets.
    """
    lanes, columns, rows, tiles = (int(getattr(hardware, key)) for key in ("lanes", "columns", "rows", "tiles"))
    p, q = nest.sizes["P"], nest.sizes["Q"]
    choices = [(-(-p // (columns // wide)) * -(-q // wide), wide) for wide in range(1, min(columns, q) + 1)]
    wide = min(choices)[1]
    filters = nest.sizes["M"]
    return Spread(
        lanes=min(lanes, nest.sizes["C"]),
        columns_p=min(columns // wide, p),
        columns_q=wide,
        rows=min(rows, filters),
        tiles=min(tiles, -(-filters // rows)),
    )


def _nest(layer: LayerShape, weight_bits: int, activation_bits: int, batch: int) -> Nest:
    if layer.kind == "conv_transpose" or len(layer.input_size) > 2:
        what = "transposed" if layer.kind == "conv_transpose" else f"{len(layer.input_size)}-dimensional"
        raise ValueError(f"layer {layer.name!r}: a {what} convolution is no loop nest that other simulators take")
    groups, calls = layer.groups, layer.copies * batch
    if layer.kind == "matmul":
        groups, calls = layer.copies * batch, 1
    elif layer.matrices > 1:
        groups, calls = layer.matrices, layer.copies // layer.matrices * batch
    outputs = _two(layer.output_size if layer.is_spatial else (layer.tokens,), 1)
    kernel = _two(layer.kernel_size, 1)
    pads = [(0, 0), (0, 0)]
    if layer.is_spatial:
        axes = zip(layer.padding_before, layer.padded_size, layer.input_size, strict=True)
        pads = [*((before, whole - size - before) for before, whole, size in axes), (0, 0)][:2]
    return Nest(
        name=layer.name,
        sizes={
            "G": groups,
            "N": calls,
            "M": layer.out_channels // layer.groups,
            "C": layer.in_channels // layer.groups,
            "R": kernel[0],
            "S": kernel[1],
            "P": outputs[0],
            "Q": outputs[1],
        },
        stride=_two(layer.stride if layer.is_spatial else (), 1),
        dilation=_two(layer.dilation if layer.is_spatial else (), 1),
        input_size=_two(layer.input_size if layer.is_spatial else (layer.tokens,), 1),
        padding=(pads[0], pads[1]),
        weight_bits=weight_bits,
        activation_bits=activation_bits,
    )


def _two(sizes: tuple[int, ...], missing: int) -> tuple[int, int]:
    return (*sizes, missing, missing)[0], (*sizes, missing, missing)[1]
