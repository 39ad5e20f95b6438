"""The phases of a transposed convolution: ordinary convolutions, each with the taps that its outputs meet.

Output ``o`` of an axis with stride s, dilation d and padding p takes input ``i`` through tap ``t`` where

    o + p = s i + d t                          so that     (o + p) mod s = (d t) mod s

All outputs with the same remainder r make one phase of the axis. It has ``|{o: (o + p) mod s = r}|`` windows, and
each visits the ``|{t: (d t) mod s = r}|`` taps of that phase: no tap is multiplied by the zeros between the inputs,
which the usual drawing of this layer inserts. Over n axes every combination of phases is a phase. Taps that reach
beyond the input count, as those of an ordinary convolution do.
"""

from __future__ import annotations

from collections import Counter
from itertools import product
from math import prod

from stripes_sim.layers import LayerShape

__all__ = ["phases"]


def phases(layer: LayerShape) -> list[tuple[int, int, int]]:
    """Alike phases of a layer together: (how many, windows of each, taps that each window visits).

    A layer that is no transposed convolution is one phase, whose windows are its output places or its tokens. A phase
    without taps (stride larger than the kernel) does no work and is left out.

    >>> up = LayerShape(name="up", kind="conv_transpose", in_channels=8, out_channels=8, kernel_size=(3, 3),
    ...                 input_size=(4, 4), stride=2, padding=1, output_padding=1)
    >>> phases(up)
    [(1, 16, 1), (2, 16, 2), (1, 16, 4)]
    """
    if layer.kind != "conv_transpose":
        windows = prod(layer.output_size) if layer.is_spatial else layer.tokens
        return [(1, windows, prod(layer.kernel_size))]
    by_axis = [
        _axis(*sizes)
        for sizes in zip(
            layer.output_size, layer.kernel_size, layer.stride, layer.dilation, layer.padding_before, strict=True
        )
    ]
    alike: Counter[tuple[int, int]] = Counter()
    for combination in product(*by_axis):
        windows, taps = prod(phase[1] for phase in combination), prod(phase[2] for phase in combination)
        alike[windows, taps] += prod(phase[0] for phase in combination)
    return [(count, windows, taps) for (windows, taps), count in sorted(alike.items())]


def _axis(outputs: int, kernel: int, stride: int, dilation: int, before: int) -> list[tuple[int, int, int]]:
    """The phases of one axis, alike ones together."""
    taps = Counter(dilation * tap % stride for tap in range(kernel))
    alike: Counter[tuple[int, int]] = Counter()
    for remainder, visited in taps.items():
        # the first output of the phase, then every stride-th
        first = (remainder - before) % stride
        windows = len(range(first, outputs, stride))
        if windows:
            alike[windows, visited] += 1
    return [(count, windows, visited) for (windows, visited), count in alike.items()]
