"""The shape of one layer, without framework: what an accelerator needs to know to price it.

A workload is a ``list[LayerShape]`` in execution order. Sizes never include the batch dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

__all__ = ["LARGEST", "Kind", "LayerShape"]

Kind = Literal["conv", "conv_transpose", "linear", "matmul", "embedding"]
_SPATIAL = ("kernel_size", "input_size", "stride", "padding", "dilation", "output_padding")
_SMALLEST = {"padding": 0, "output_padding": 0}
LARGEST = 2**53
"""Of any size: above it not every whole number is a float64."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerShape:
    """One layer's shape; spatial arguments are tuples, or one int for all axes of ``input_size``.

    ======================  ==========================================================================
    ``kind``                what the fields mean
    ======================  ==========================================================================
    ``"conv"``              ``in_channels`` -> ``out_channels`` over ``input_size`` (1 to 3 axes)
    ``"conv_transpose"``    the same, transposed (``output_padding`` counts)
    ``"linear"``            ``in_channels`` -> ``out_channels``, applied to ``tokens`` vectors
    ``"matmul"``            (tokens x in_channels) @ (in_channels x out_channels), ``copies`` times: both
                            operands are activations, as in attention
    ``"embedding"``         table of ``in_channels`` rows of ``out_channels``; ``tokens`` rows are read
    ======================  ==========================================================================

    ``copies`` repeats the whole layer (heads of an attention product, a module called several times).
    ``padding`` may also be one (before, after) pair per axis, as asymmetric "same" padding needs.

    Which tensors a layer works on:

    ======================  ==========================================================================
    ``stored_as``           the stored tensor that the weights are, by default the layer's own name; layers with one
                            such tensor (tied weights) store it once
    ``matrices``            distinct weight matrices among the copies of a linear layer (experts), one after the other;
                            1: all copies use the same. The copies of a matmul have a matrix each: query heads that
                            share a key are tokens of one copy
    ``scales``              16-bit scales that are stored and read with the weights, one for each group of them
    ``stored_before``       how many of the input values (of a matmul: of both operands) were in memory before the
                            run, a cache or a graph input: they come from DRAM. The first layer's input always does
    ``waiting``             values of this run that wait on chip for a later layer meanwhile, as in a residual branch
    ======================  ==========================================================================

    Raises:
        TypeError: a size is not an integer.
        ValueError: a size is out of range or does not fit the others.

    >>> conv1 = LayerShape(name="conv1", kind="conv", in_channels=3, out_channels=96, kernel_size=(11, 11),
    ...                    input_size=(227, 227), stride=(4, 4))
    >>> conv1.output_size, conv1.macs, conv1.weight_count
    ((55, 55), 105415200, 34848)
    """

    name: str
    kind: Kind
    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...] = ()
    input_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = (1,)
    padding: tuple[int, ...] = (0,)
    dilation: tuple[int, ...] = (1,)
    output_padding: tuple[int, ...] = (0,)
    groups: int = 1
    tokens: int = 1
    copies: int = 1
    stored_as: str = ""
    matrices: int = 1
    scales: int = 0
    stored_before: int = 0
    waiting: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"name must be a non-empty string, but it is {self.name!r}")
        if self.kind not in get_args(Kind):
            raise ValueError(f"layer {self.name!r}: kind must be one of {get_args(Kind)}, but it is {self.kind!r}")
        for field in ("in_channels", "out_channels", "groups", "tokens", "copies"):
            object.__setattr__(self, field, self._integer(field, getattr(self, field), 1))
        if self.is_spatial:
            self._check_spatial()
        else:
            self._check_flat()
        self._check_tensors()

    @property
    def is_spatial(self) -> bool:
        """Whether the layer slides a kernel over ``input_size``."""
        return self.kind in ("conv", "conv_transpose")

    @property
    def has_weights(self) -> bool:
        """Whether the array multiplies by stored weights, so that a policy gives the layer its bits."""
        return self.kind in ("conv", "conv_transpose", "linear")

    @property
    def output_size(self) -> tuple[int, ...]:
        """Spatial size of the output, empty for layers without one."""
        if self.kind == "conv":
            return tuple(
                (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
                for size, kernel, stride, dilation, (before, after) in zip(
                    self.input_size, self.kernel_size, self.stride, self.dilation, self._pads(), strict=True
                )
            )
        if self.kind == "conv_transpose":
            return tuple(
                (size - 1) * stride - before - after + dilation * (kernel - 1) + extra + 1
                for size, kernel, stride, dilation, extra, (before, after) in zip(
                    self.input_size,
                    self.kernel_size,
                    self.stride,
                    self.dilation,
                    self.output_padding,
                    self._pads(),
                    strict=True,
                )
            )
        return ()

    @property
    def padded_size(self) -> tuple[int, ...]:
        """``input_size`` with the padding on both sides."""
        return tuple(size + sum(pad) for size, pad in zip(self.input_size, self._pads(), strict=True))

    @property
    def weight_count(self) -> int:
        """Number of stored weights, without biases; an embedding's table counts, a matmul has none."""
        if self.kind == "matmul":
            return 0
        return self.matrices * self._matrix

    @property
    def _matrix(self) -> int:
        return prod(self.kernel_size) * (self.in_channels // self.groups) * self.out_channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference (a lookup has none).

        A transposed convolution multiplies every input by every kernel position.
        """
        if self.kind == "embedding":
            return 0
        if self.kind == "matmul":
            return self.copies * self.tokens * self.in_channels * self.out_channels
        places = {"conv": prod(self.output_size), "conv_transpose": prod(self.input_size)}
        return self.copies * self._matrix * places.get(self.kind, self.tokens)

    @property
    def input_count(self) -> int:
        """Activations read once: the input tensor (for a matmul, both operands)."""
        if self.is_spatial:
            return self.copies * self.in_channels * prod(self.input_size)
        if self.kind == "matmul":
            return self.copies * self.in_channels * (self.tokens + self.out_channels)
        return 0 if self.kind == "embedding" else self.copies * self.tokens * self.in_channels

    @property
    def read_count(self) -> int:
        """Activations of the input tensor that a kernel meets; a strided 1x1 convolution leaves most of them unread.

        >>> LayerShape(name="shortcut", kind="conv", in_channels=1, out_channels=1, kernel_size=(1, 1),
        ...            input_size=(8, 8), stride=2).read_count
        16
        """
        if self.kind != "conv":
            return self.input_count
        return self.copies * self.in_channels * prod(self.read_size)

    @property
    def read_size(self) -> tuple[int, ...]:
        """Of each axis of ``input_size``, the places that a kernel meets."""
        if self.kind != "conv":
            return self.input_size
        return tuple(map(_met, *self._axes_of_kernel()))

    @property
    def output_count(self) -> int:
        """Activations written once: the output tensor."""
        places = prod(self.output_size) if self.is_spatial else self.tokens
        return self.copies * self.out_channels * places

    @property
    def padding_before(self) -> tuple[int, ...]:
        """Padding at the start of every axis."""
        return tuple(before for before, _ in self._pads())

    def _axes_of_kernel(self) -> tuple[tuple[int, ...], ...]:
        return self.input_size, self.output_size, self.kernel_size, self.stride, self.dilation, self.padding_before

    def _pads(self) -> tuple[tuple[int, int], ...]:
        if len(self.padding) == 2 * len(self.input_size):
            return tuple(zip(self.padding[::2], self.padding[1::2], strict=True))
        return tuple((pad, pad) for pad in self.padding)

    def _integer(self, field: str, value: object, smallest: int) -> int:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"layer {self.name!r}: {field} must be an integer, but it is {value!r}")
        number = int(value.__index__())
        if number < smallest:
            raise ValueError(f"layer {self.name!r}: {field} must be at least {smallest}, but it is {number}")
        if number > LARGEST:
            raise ValueError(f"layer {self.name!r}: {field} must be at most 2^53, but it is {number}")
        return number

    def _axes(self, field: str, axes: int) -> tuple[int, ...]:
        """One number per axis; an int or a one-tuple is broadcast."""
        value = getattr(self, field)
        items = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
        numbers = tuple(self._integer(field, item, _SMALLEST.get(field, 1)) for item in items)
        if len(numbers) == 1:
            return numbers * axes
        if len(numbers) == axes or (field == "padding" and len(numbers) == 2 * axes):
            return numbers
        raise ValueError(
            f"layer {self.name!r}: {field} must be one integer or {axes} of them (one per axis of input_size), "
            f"but it is {value!r}"
        )

    def _check_spatial(self) -> None:
        size = self.input_size
        axes = len(size) if isinstance(size, Sequence) else 1
        if isinstance(self.kernel_size, Sequence):
            axes = max(axes, len(self.kernel_size))
        if not axes:
            raise ValueError(f"layer {self.name!r}: a {self.kind} layer needs input_size and kernel_size")
        for field in _SPATIAL:
            object.__setattr__(self, field, self._axes(field, axes))
        for field in ("in_channels", "out_channels"):
            if getattr(self, field) % self.groups:
                raise ValueError(
                    f"layer {self.name!r}: {field}={getattr(self, field)} is not a multiple of groups={self.groups}"
                )
        if self.tokens != 1:
            raise ValueError(f"layer {self.name!r}: tokens is for linear layers, but a {self.kind} has {self.tokens}")
        if min(self.output_size) < 1:
            raise ValueError(
                f"layer {self.name!r}: the kernel {self.kernel_size} does not fit the input {self.input_size} "
                f"with padding {self.padding} (output would be {self.output_size})"
            )

    def _check_tensors(self) -> None:
        if not isinstance(self.stored_as, str):
            raise TypeError(f"layer {self.name!r}: stored_as must be a string, but it is {self.stored_as!r}")
        for field, smallest in (("matrices", 1), ("scales", 0), ("stored_before", 0), ("waiting", 0)):
            object.__setattr__(self, field, self._integer(field, getattr(self, field), smallest))
        if self.copies % self.matrices or (self.matrices > 1 and self.kind != "linear"):
            raise ValueError(
                f"layer {self.name!r}: matrices is for linear layers and divides copies, but a {self.kind} of "
                f"{self.copies} copies has {self.matrices}"
            )
        if self.scales and not self.has_weights:
            raise ValueError(f"layer {self.name!r}: a {self.kind} has no weights to scale, but scales={self.scales}")
        if self.stored_before > self.input_count:
            raise ValueError(
                f"layer {self.name!r}: stored_before must be at most the {self.input_count} input values, but it is "
                f"{self.stored_before}"
            )

    def _check_flat(self) -> None:
        # one-sized kernels and inputs are how spreadsheets write a fully connected layer
        absent = {"kernel_size": 1, "input_size": 1, "stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
        for field, none in absent.items():
            value = getattr(self, field)
            items = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
            if any(item != none for item in items):
                raise ValueError(f"layer {self.name!r}: a {self.kind} layer has no {field}, but it is {value!r}")
            object.__setattr__(self, field, () if field in ("kernel_size", "input_size") else (none,))
        if self.groups != 1:
            raise ValueError(f"layer {self.name!r}: a {self.kind} layer has no groups, but groups={self.groups}")


def _met(size: int, outputs: int, kernel: int, stride: int, dilation: int, before: int) -> int:
    """Places of an axis that the taps of any window meet, each counted once.

    Tap t of window o meets place o * stride + t * dilation - before. With t * dilation = q * stride + r, the taps of
    one remainder r meet the places r, r + stride, ... in runs that start at q and are as long as there are windows.
    """
    starts: dict[int, list[int]] = {}
    for tap in range(kernel):
        start, remainder = divmod(tap * dilation, stride)
        starts.setdefault(remainder, []).append(start)
    met = 0
    for remainder, run_starts in starts.items():
        # the places of this remainder that are no padding
        reached, end = -((remainder - before) // stride), (before + size - 1 - remainder) // stride + 1
        for start in run_starts:
            stop = min(start + outputs, end)
            met += max(stop - max(start, reached), 0)
            reached = max(stop, reached)
    return met
