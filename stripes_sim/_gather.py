"""Which value each window meets with each tap, as the array walks over a layer.

Windows and taps are numbered with the first spatial axis fastest, as DNNsim (isakedo/DNNsim, commit 4748a60) walks: it
says which windows stand side by side in a tile. A value is a row: its place in the flattened input, sample after
sample; the row behind the last is what padding holds.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from stripes_sim.layers import LayerShape

__all__ = ["Phase", "folded_values", "folded_weights", "phases_of", "weights_by_tap"]

Array = npt.NDArray[np.int64]
Values = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Windows that visit the same taps: ``index`` (windows, taps) of rows, ``taps`` their numbers in the kernel."""

    index: Array
    taps: Array


def phases_of(layer: LayerShape, samples: int, *, fold: bool, square: bool = False) -> list[Phase]:
    """One phase of an ordinary convolution, several of a transposed one; ``samples`` follow each other.

    ``fold``: the layer's values are folded (`folded_values`); ``square``: with the windows of a square output, as that
    simulator counts them there.
    """
    if fold:
        axes = [
            _Axis(size=-(-padded // stride), taps=-(-kernel // stride), outputs=outputs)
            for padded, kernel, stride, outputs in zip(
                layer.padded_size, layer.kernel_size, layer.stride, layer.output_size, strict=True
            )
        ]
        if square:
            axes = [_Axis(size=a.size, taps=a.taps, outputs=axes[0].size - a.taps + 1) for a in axes]
        return [_phase(axes, [axis.places() for axis in axes], samples)]
    axes = [
        _Axis(size=size, taps=kernel, outputs=outputs, stride=stride, dilation=dilation, before=before)
        for size, kernel, outputs, stride, dilation, before in zip(
            layer.input_size,
            layer.kernel_size,
            layer.output_size,
            layer.stride,
            layer.dilation,
            layer.padding_before,
            strict=True,
        )
    ]
    if layer.kind == "conv":
        return [_phase(axes, [axis.places() for axis in axes], samples)]
    # in the order of their first outputs
    in_turn = itertools.product(*(axis.transposed() for axis in reversed(axes)))
    return [_phase(axes, list(reversed(parts)), samples) for parts in in_turn]


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Of one axis: the place that each output meets with each tap (-1: padding), and which taps these are."""

    places: Array
    taps: Array


@dataclass(frozen=True, kw_only=True)
class _Axis:
    size: int
    taps: int
    outputs: int
    stride: int = 1
    dilation: int = 1
    before: int = 0

    def places(self) -> _Part:
        outputs, taps = np.arange(self.outputs)[:, None], np.arange(self.taps)
        return self._inside(outputs * self.stride + taps * self.dilation - self.before, taps)

    def transposed(self) -> list[_Part]:
        """Output o and tap t meet input (o + p - d t) / s where that is whole: the phases of `stripes_sim.phases`."""
        taps = np.arange(self.taps)
        remainders = taps * self.dilation % self.stride
        parts = []
        for first in range(min(self.stride, self.outputs)):
            visited = taps[remainders == (first + self.before) % self.stride]
            outputs = np.arange(first, self.outputs, self.stride)[:, None]
            if len(visited):
                parts.append(self._inside((outputs + self.before - visited * self.dilation) // self.stride, visited))
        return parts

    def _inside(self, places: Array, taps: Array) -> _Part:
        return _Part(places=np.where((places >= 0) & (places < self.size), places, -1), taps=taps)


def _phase(axes: list[_Axis], parts: list[_Part], samples: int) -> Phase:
    count = len(axes)
    shape = tuple(p.places.shape[0] for p in parts) + tuple(p.places.shape[1] for p in parts)
    rows, taps = np.zeros(shape, dtype=np.int64), np.zeros(shape[count:], dtype=np.int64)
    padding = np.zeros(shape, dtype=bool)
    for number, (axis, part) in enumerate(zip(axes, parts, strict=True)):
        spread = [1] * (2 * count)
        spread[number], spread[count + number] = part.places.shape
        places = part.places.reshape(spread)
        rows = rows * axis.size + places
        padding |= places < 0
        taps = taps * axis.taps + part.taps.reshape([-1 if at == number else 1 for at in range(count)])
    per_sample = prod(axis.size for axis in axes)
    order = [*range(count - 1, -1, -1), *range(2 * count - 1, count - 1, -1)]
    rows, padding = (each.transpose(order).reshape(-1, taps.size) for each in (rows, padding))
    index = np.concatenate([np.where(padding, samples * per_sample, rows + n * per_sample) for n in range(samples)])
    return Phase(index=index, taps=taps.transpose().reshape(-1))


def folded_values(layer: LayerShape, values: Values) -> Values:
    """Space to depth: (samples, channels, *input_size) -> (samples, channels * prod(stride), *ceil(padded / stride)).

    The channels of one place are followed by those of the next place along the first axis, as DNNsim does it.
    """
    pads = list(zip(layer.padding_before, layer.padded_size, layer.input_size, layer.stride, strict=True))
    around = [(before, -padded % stride + padded - size - before) for before, padded, size, stride in pads]
    return _fold(np.pad(values, [(0, 0), (0, 0), *around]), layer.stride)


def folded_weights(layer: LayerShape, weights: Values) -> Values:
    """The same of a kernel (out_channels, channels, *kernel_size), filled up with zeros."""
    around = [(0, -kernel % stride) for kernel, stride in zip(layer.kernel_size, layer.stride, strict=True)]
    return _fold(np.pad(weights, [(0, 0), (0, 0), *around]), layer.stride)


def _fold(values: Values, stride: tuple[int, ...]) -> Values:
    first, channels, *sizes = values.shape
    split = [part for size, step in zip(sizes, stride, strict=True) for part in (size // step, step)]
    axes = len(sizes)
    order = [0, *range(2 * axes + 1, 2, -2), 1, *range(2, 2 * axes + 2, 2)]
    folded = [size // step for size, step in zip(sizes, stride, strict=True)]
    return values.reshape(first, channels, *split).transpose(order).reshape(first, channels * prod(stride), *folded)


def weights_by_tap(layer: LayerShape, weights: Values) -> Values:
    """(out_channels, taps, channels of a group), taps numbered as in `Phase.taps`.

    ``weights`` as torch stores them: (out_channels, channels of a group, *kernel), of a transposed convolution
    (in_channels, out_channels of a group, *kernel); of a linear layer (out_channels, in_channels).
    """
    if layer.kind == "conv_transpose":
        grouped = weights.reshape(layer.groups, layer.in_channels // layer.groups, *weights.shape[1:])
        weights = np.moveaxis(grouped, 2, 1).reshape(layer.out_channels, -1, *weights.shape[2:])
    return np.ascontiguousarray(weights.reshape(*weights.shape[:2], -1).transpose(0, 2, 1))
