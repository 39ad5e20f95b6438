"""A workload as columns of whole numbers, so that every formula runs once over all layers.

Counts are float64: products of them never wrap around, and they are exact below 2^53, beyond which
`stripes_sim.costs` refuses what would be reported as an integer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt

from stripes_sim.layers import LayerShape
from stripes_sim.phases import phases

__all__ = ["Floats", "Ints", "Packed", "pack"]

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Columns over layers, all (L, 1) so that they broadcast against bits of shape (L, B); counts are float64.

    ``taps``: kernel places. ``phase_*``, (L, P): a transposed convolution is made of phases (`stripes_sim.phases`), so
    many of which have so many windows (output places) that each visit so many taps; all other layers are one phase, and
    unused entries are 0. ``folded_*``: after space-to-depth. ``stores``: whether no earlier layer stores this tensor.
    """

    layers: tuple[LayerShape, ...]
    names: tuple[str, ...]
    spatial: npt.NDArray[np.bool_]
    matmul: npt.NDArray[np.bool_]
    embedding: npt.NDArray[np.bool_]
    foldable: npt.NDArray[np.bool_]
    in_channels: Floats
    out_channels: Floats
    groups: Floats
    taps: Floats
    phase_counts: Floats
    phase_windows: Floats
    phase_taps: Floats
    folded_channels: Floats
    folded_taps: Floats
    folded_windows: Floats
    tokens: Floats
    copies: Floats
    macs: Floats
    weight_count: Floats
    input_count: Floats
    read_count: Floats
    output_count: Floats
    matrices: Floats
    scales: Floats
    stored_before: Floats
    waiting: Floats
    stores: npt.NDArray[np.bool_]
    first: npt.NDArray[np.bool_]
    last: npt.NDArray[np.bool_]

    def sharing(self, batch: int) -> Floats:
        """Windows of a convolution, or tokens of a matrix product, that share one weight in one run; (L, P)."""
        return self.phase_windows * np.where(self.matmul, 1, batch)

    def visits(
        self, batch: int, columns: Floats | int = 1, steps: Callable[[Floats], Floats] = lambda taps: taps
    ) -> Floats:
        """Taps that sets of ``columns`` windows visit in turn, or what ``steps`` makes of a phase's taps."""
        shared, total = self.sharing(batch), np.zeros((1, 1))
        for p in range(shared.shape[1]):
            one = slice(p, p + 1)
            total = total + self.phase_counts[:, one] * np.ceil(shared[:, one] / columns) * steps(
                self.phase_taps[:, one]
            )
        return total

    def repeats(self, batch: int) -> Floats:
        """How often the array does the layer anew in one run: copies, samples of a matmul, never for a lookup."""
        return np.where(self.embedding, 0.0, self.copies * np.where(self.matmul, batch, 1))


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
    columns = {key: np.array([[row[key]] for row in rows], dtype=np.float64) for key in rows[0]}
    by_phase = [phases(layer) for layer in layers]
    table = np.zeros((3, len(layers), max(1, *(len(each) for each in by_phase))))
    for row, each in enumerate(by_phase):
        table[:, row, : len(each)] = np.array(each, dtype=np.float64).T
    kinds = np.array([[layer.kind] for layer in layers])
    order = np.arange(len(layers))[:, None]
    return Packed(
        layers=layers,
        names=tuple(layer.name for layer in layers),
        spatial=(kinds == "conv") | (kinds == "conv_transpose"),
        matmul=kinds == "matmul",
        embedding=kinds == "embedding",
        foldable=columns.pop("foldable").astype(bool),
        stores=_stores(layers),
        first=order == 0,
        last=order == len(layers) - 1,
        phase_counts=table[0],
        phase_windows=table[1],
        phase_taps=table[2],
        **columns,
    )


def _stores(layers: tuple[LayerShape, ...]) -> npt.NDArray[np.bool_]:
    """The first layer with a tensor stores it; parts of a tensor that differ in size are stored each."""
    keys = [(layer.stored_as or layer.name, layer.has_weights * layer.weight_count) for layer in layers]
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    return np.array([[first[key] == row] for row, key in enumerate(keys)])


def _row(layer: LayerShape) -> dict[str, int]:
    stride = layer.stride if layer.is_spatial else (1,)
    folded = tuple(-(-k // s) for k, s in zip(layer.kernel_size, stride, strict=False))
    foldable = layer.kind == "conv" and layer.in_channels == 3 and layer.groups == 1 and max(stride) > 1
    return {
        "foldable": foldable and set(layer.dilation) == {1},
        "in_channels": layer.in_channels,
        "out_channels": layer.out_channels,
        "groups": layer.groups,
        "taps": prod(layer.kernel_size),
        "folded_channels": layer.in_channels * prod(stride),
        "folded_taps": prod(folded),
        "folded_windows": _folded_windows(layer, folded) if foldable else 0,
        "tokens": layer.tokens,
        "copies": layer.copies,
        "macs": layer.macs,
        "weight_count": layer.weight_count,
        "input_count": layer.input_count,
        "read_count": layer.read_count,
        "output_count": layer.output_count,
        "matrices": layer.matrices,
        "scales": layer.scales,
        "stored_before": layer.stored_before,
        "waiting": layer.waiting,
    }


def _folded_windows(layer: LayerShape, folded: tuple[int, ...]) -> int:
    """Windows as DNNsim counts them after space-to-depth: its output has the first axis' size on every axis."""
    side = -(-layer.padded_size[0] // layer.stride[0])
    return prod(side - kernel + 1 for kernel in folded)
