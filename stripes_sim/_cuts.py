"""The ways in which one layer is cut into tiles: sizes that are powers of two, or whole, along each of its loops.

A layer is three loops: windows (samples and output places, or tokens), channels and filters; the kernel is never cut.
Samples share a tile only where their images are whole: smaller images of several samples would share as many weights
and meet more of their neighbours' inputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np

from stripes_sim._packed import Floats
from stripes_sim.layers import LayerShape

__all__ = ["Cuts", "cuts", "in_steps"]


@dataclass(frozen=True, kw_only=True)
class Cuts:
    """Tables over the cuts of one layer's windows, shape (P,), and over those of its channels and filters, (C,), (F,).

    What is said is of one group, or of one call of a matrix, and float64 where it is counted with.

    Attributes:
        windows: (samples, places along each axis) of a tile, one tuple a cut.
        tiles: how many tiles there are.
        windows_at_once, all_windows: windows of the largest tile, and of the layer.
        inputs_at_once, all_inputs: input places that the largest tile meets, and the layer.
        inputs_read: places read when every tile reads what it meets, overlaps again and again.
        alike: windows of a tile and how many tiles have so many, both (P, K); unused entries are 0.
        input_run, output_run: places of a tile's inputs and outputs that lie side by side in memory where channels lie
            together (the last axis comes next).
        channels, filters: sizes of a tile, ascending, the last one whole.
    """

    windows: tuple[tuple[int, ...], ...]
    tiles: Floats
    windows_at_once: Floats
    all_windows: float
    inputs_at_once: Floats
    all_inputs: float
    inputs_read: Floats
    alike: tuple[Floats, Floats]
    input_run: Floats
    output_run: Floats
    channels: Floats
    filters: Floats


@dataclass(frozen=True)
class _Axis:
    """One axis cut into tiles of so many outputs: how many tiles, the last one's outputs, the inputs that they meet."""

    outputs: int
    size: int
    tiles: int
    last: int
    most_inputs: int
    inputs: int
    all_inputs: int


@lru_cache(maxsize=1024)
def cuts(layer: LayerShape, batch: int) -> Cuts:
    """All cuts of ``layer`` over ``batch`` samples.

    >>> fc = LayerShape(name="fc", kind="linear", in_channels=6, out_channels=4, tokens=3)
    >>> found = cuts(fc, 1)
    >>> found.windows, found.channels.tolist(), found.filters.tolist()
    (((1, 1), (1, 2), (1, 3)), [1.0, 2.0, 4.0, 6.0], [1.0, 2.0, 4.0])
    """
    if layer.is_spatial:
        samples, axes = batch * layer.copies, [_axis(layer, axis) for axis in range(len(layer.input_size))]
    else:
        samples, axes = 1, [_tokens(layer.tokens * (1 if layer.kind == "matmul" else batch))]
    rows = [(1, cut) for cut in product(*axes)]
    whole = rows[-1][1]
    rows += [(together, whole) for together in _powers(samples)[1:]]
    images = [prod(axis.size for axis in cut) for _, cut in rows]
    met = float(samples * prod(axis.all_inputs for axis in whole))
    return Cuts(
        windows=tuple((together, *(axis.size for axis in cut)) for together, cut in rows),
        tiles=_column(-(-samples // together) * prod(axis.tiles for axis in cut) for together, cut in rows),
        windows_at_once=_column(together * image for (together, _), image in zip(rows, images, strict=True)),
        all_windows=float(samples * images[-1]),
        inputs_at_once=_column(together * prod(axis.most_inputs for axis in cut) for together, cut in rows),
        all_inputs=met,
        inputs_read=_column(samples * prod(axis.inputs for axis in cut) for _, cut in rows),
        alike=_alike(samples, rows),
        input_run=_column(_run(together, cut, "inputs") for together, cut in rows),
        output_run=_column(_run(together, cut, "outputs") for together, cut in rows),
        channels=_column(_powers(layer.in_channels // layer.groups)),
        filters=_column(_powers(layer.out_channels // layer.groups)),
    )


def in_steps(size: Floats, whole: float, at_once: Floats | int) -> Floats:
    """Steps of ``at_once`` that tiles of ``size`` take to get through ``whole``, tails of tiles included.

    >>> in_steps(np.array([2.0, 4.0, 6.0]), 6.0, 4).tolist()
    [3.0, 2.0, 2.0]
    """
    full, last = np.divmod(whole, size)
    return np.asarray(full * np.ceil(size / at_once) + np.ceil(last / at_once))


def _powers(whole: int) -> list[int]:
    """1, 2, 4, ... and the whole."""
    return [1 << power for power in range((whole - 1).bit_length())] + [whole]


def _column(values: Iterable[int]) -> Floats:
    return np.array(list(values), dtype=np.float64)


def _axis(layer: LayerShape, axis: int) -> list[_Axis]:
    """The cuts of one spatial axis.

    Output o of a convolution meets the inputs from o s - p to o s - p + d (k - 1), of a transposed one those from
    (o + p - d (k - 1)) / s to (o + p) / s; none beyond the borders. Where windows lie apart, a tile meets at most k
    inputs a window.
    """
    outputs, size, kernel = layer.output_size[axis], layer.input_size[axis], layer.kernel_size[axis]
    stride, before = layer.stride[axis], layer.padding_before[axis]
    reach = layer.dilation[axis] * (kernel - 1)
    met = layer.read_size[axis]
    found = []
    for tile in _powers(outputs):
        start = np.arange(0, outputs, tile)
        stop = np.minimum(start + tile, outputs) - 1
        if layer.kind == "conv":
            low, high = start * stride - before, stop * stride - before + reach
        else:
            low, high = -((reach - before - start) // stride), (stop + before) // stride
        inputs = np.clip(np.minimum(high, size - 1) - np.maximum(low, 0) + 1, 0, (stop - start + 1) * kernel)
        if len(start) == 1:
            inputs = np.array([met])
        found.append(
            _Axis(
                outputs=outputs,
                size=tile,
                tiles=len(start),
                last=int(stop[-1] - start[-1] + 1),
                most_inputs=max(int(inputs.max()), -(-met // len(start))),
                inputs=max(int(inputs.sum()), met),
                all_inputs=met,
            )
        )
    return found


def _tokens(tokens: int) -> list[_Axis]:
    return [
        _Axis(
            outputs=tokens,
            size=tile,
            tiles=-(-tokens // tile),
            last=(tokens - 1) % tile + 1,
            most_inputs=tile,
            inputs=tokens,
            all_inputs=tokens,
        )
        for tile in _powers(tokens)
    ]


def _alike(samples: int, rows: list[tuple[int, tuple[_Axis, ...]]]) -> tuple[Floats, Floats]:
    """Windows of tiles of one size, and how many of them there are."""
    width = 2 ** (1 + len(rows[0][1]))
    windows, counts = np.zeros((len(rows), width)), np.zeros((len(rows), width))
    for row, (together, cut) in enumerate(rows):
        sides = [((together, samples // together), (samples % together, 1))]
        sides += [((axis.size, axis.tiles - 1), (axis.last, 1)) for axis in cut]
        for column, of_each in enumerate(product(*sides)):
            windows[row, column] = prod(size for size, _ in of_each)
            counts[row, column] = prod(count for _, count in of_each)
    return windows, counts


def _run(together: int, cut: tuple[_Axis, ...], which: str) -> int:
    """Neighbouring places along the last axis, times those of the axis before where that one is whole, and so on."""
    run = 1
    for axis in reversed(cut):
        taken, whole = (axis.most_inputs, axis.all_inputs) if which == "inputs" else (axis.size, axis.outputs)
        run *= taken
        if taken < whole:
            return run
    return run * together
