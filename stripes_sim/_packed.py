"""A workload as columns of integers, so that every formula runs once over all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt

from stripes_sim.layers import LayerShape

__all__ = ["Ints", "Packed", "pack"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Columns over layers, all (L, 1) int64 so that they broadcast against bits of shape (L, B).

    ``windows``: output places of one phase; ``phases``: independent sub-convolutions of a transposed one.
    ``taps``: kernel places that a window visits. ``folded_*``: the same after space-to-depth.
    """

    names: tuple[str, ...]
    spatial: npt.NDArray[np.bool_]
    matmul: npt.NDArray[np.bool_]
    embedding: npt.NDArray[np.bool_]
    foldable: npt.NDArray[np.bool_]
    in_channels: Ints
    out_channels: Ints
    groups: Ints
    taps: Ints
    windows: Ints
    phases: Ints
    folded_channels: Ints
    folded_taps: Ints
    folded_windows: Ints
    tokens: Ints
    copies: Ints
    macs: Ints
    weight_count: Ints
    input_count: Ints
    output_count: Ints
    first: npt.NDArray[np.bool_]
    last: npt.NDArray[np.bool_]

    def sharing(self, batch: int) -> Ints:
        """Windows of a convolution's phase, or tokens of a matrix product, that share one weight in one run."""
        return np.asarray(np.where(self.spatial, self.windows, self.tokens) * np.where(self.matmul, 1, batch))

    def repeats(self, batch: int) -> Ints:
        """How often the array does the layer anew in one run: copies, samples of a matmul, never for a lookup."""
        return np.where(self.embedding, 0, self.copies * np.where(self.matmul, batch, 1))


def pack(layers: Sequence[LayerShape]) -> Packed:
    """The columns of ``layers``; the last few workloads are remembered.

    Raises:
        TypeError: something in the list is no `LayerShape`.
        ValueError: the list is empty.
    """
    if isinstance(layers, LayerShape):
        layers = [layers]
    for layer in layers:
        if not isinstance(layer, LayerShape):
            raise TypeError(f"layers must be LayerShape objects (see stripes_sim.trace), but one is {layer!r}")
    if not layers:
        raise ValueError("layers is empty: there is nothing to run")
    return _pack(tuple(layers))


@lru_cache(maxsize=16)
def _pack(layers: tuple[LayerShape, ...]) -> Packed:
    rows = [_row(layer) for layer in layers]
    columns = {key: np.array([[row[key]] for row in rows], dtype=np.int64) for key in rows[0]}
    kinds = np.array([[layer.kind] for layer in layers])
    order = np.arange(len(layers))[:, None]
    return Packed(
        names=tuple(layer.name for layer in layers),
        spatial=(kinds == "conv") | (kinds == "conv_transpose"),
        matmul=kinds == "matmul",
        embedding=kinds == "embedding",
        foldable=columns.pop("foldable").astype(bool),
        first=order == 0,
        last=order == len(layers) - 1,
        **columns,
    )


def _row(layer: LayerShape) -> dict[str, int]:
    stride = layer.stride if layer.is_spatial else (1,)
    folded = tuple(-(-k // s) for k, s in zip(layer.kernel_size, stride, strict=False))
    taps, windows, phases = prod(layer.kernel_size), prod(layer.output_size), 1
    if layer.kind == "conv_transpose":
        # stride**n phases, each an ordinary convolution with every stride-th tap: no multiplications by inserted zeros
        phases = prod(stride)
        taps = prod(folded)
        windows = prod(-(-out // s) for out, s in zip(layer.output_size, stride, strict=True))
    foldable = layer.kind == "conv" and layer.in_channels == 3 and layer.groups == 1 and max(stride) > 1
    return {
        "foldable": foldable and set(layer.dilation) == {1},
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "groups": layer.groups,
        "taps": taps,
        "windows": windows,
        "phases": phases,
        "folded_channels": layer.in_channels * prod(stride),
        "folded_taps": prod(folded),
        "folded_windows": _folded_windows(layer, folded) if foldable else 0,
        "tokens": layer.tokens,
        "copies": layer.copies,
        "macs": layer.macs,
        "weight_count": layer.weight_count,
        "input_count": layer.input_count,
        "output_count": layer.output_count,
    }


def _folded_windows(layer: LayerShape, folded: tuple[int, ...]) -> int:
    """Windows as DNNsim counts them after space-to-depth: its output has the first axis' size on every axis."""
    side = -(-layer.padded_size[0] // layer.stride[0])
    return prod(side - kernel + 1 for kernel in folded)
