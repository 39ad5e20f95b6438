"""Real values of a workload's layers, checked at the door: integers that fit their bits, of the layer's own shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stripes_sim._packed import Ints
from stripes_sim.bits import nearest
from stripes_sim.layers import LayerShape

__all__ = ["LayerValues", "Values", "checked_values"]


class LayerValues(NamedTuple):
    """Integers of one layer, at most 16 bits each.

    ``activations``: int32, (runs, copies, batch, channels, *input_size) of a convolution, (runs, copies, rows,
    in_channels) of the others, whose rows are the tokens of the batch. ``weights``: int32 as torch stores them with the
    number of matrices in front, or None where nobody looks at them.
    """

    activations: npt.NDArray[np.int32]
    weights: npt.NDArray[np.int32] | None


@dataclass(frozen=True, kw_only=True)
class Values:
    """What `stripes_sim.Accelerator.run` was given, by row of the workload; ``unseen`` names what has none."""

    layers: Mapping[int, LayerValues]
    unseen: tuple[str, ...]


def checked_values(
    layers: Sequence[LayerShape],
    activations: Mapping[str, Any],
    weights: Mapping[str, Any] | None,
    *,
    weight_bits: Ints,
    activation_bits: Ints,
    batch: int,
    wants_weights: bool,
) -> Values:
    """The values of every layer that multiplies by weights; products of two activations may be left out.

    Args:
        layers: the workload.
        activations: layer name -> integer array, samples first: (N, channels, *input_size) of a convolution, (N,
            tokens, in_channels) of the others, with an axis of copies behind N where a layer has several; axes of size
            1 may be left out.
        weights: layer name -> integer array as torch stores them; needed where ``wants_weights``.
        weight_bits, activation_bits: (L, 1).
        batch: samples of one run; N is a multiple of it.
        wants_weights: whether the machine looks at them.

    Raises:
        TypeError: an array that is not of integers.
        ValueError: an unknown or missing layer, a shape that does not fit, a value beyond its bits.
    """
    names = [layer.name for layer in layers]
    _known("activations", activations, names)
    _known("weights", weights or {}, names)
    found: dict[int, LayerValues] = {}
    unseen = []
    runs = 0
    for row, layer in enumerate(layers):
        if layer.kind == "embedding":
            continue
        if layer.kind == "matmul" and layer.name not in activations:
            unseen.append(layer.name)
            continue
        if names.count(layer.name) > 1:
            raise ValueError(
                f"layer {layer.name!r} stands in the workload {names.count(layer.name)} times with different shapes, "
                "so its name does not say whose values are meant: leave its rows out or rename them"
            )
        if layer.name not in activations:
            raise ValueError(
                f"activations has no values of layer {layer.name!r} (stripes_sim.capture finds those of all layers)"
            )
        x = _activations(layer, activations[layer.name], int(activation_bits[row, 0]), batch)
        if runs and len(x) != runs:
            raise ValueError(
                f"layer {layer.name!r}: activations of {len(x) * batch} samples, but those before have {runs * batch}"
            )
        runs = len(x)
        w = None
        if wants_weights:
            if weights is None or layer.name not in weights:
                raise ValueError(
                    f"weights has no values of layer {layer.name!r}, which this machine looks at, too "
                    "(stripes_sim.capture finds those of all layers)"
                )
            bits = activation_bits if layer.kind == "matmul" else weight_bits
            w = _weights(layer, weights[layer.name], int(bits[row, 0]))
        found[row] = LayerValues(x, w)
    return Values(layers=found, unseen=tuple(unseen))


def _known(argument: str, given: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in given:
        if name not in names:
            raise ValueError(f"{argument} names {name!r}, which is no layer of this workload{nearest(name, names)}")


def _activations(layer: LayerShape, given: Any, bits: int, batch: int) -> npt.NDArray[np.int32]:
    values = _integers(layer, "activations", given, bits)
    one = (layer.in_channels, *layer.input_size) if layer.is_spatial else (layer.tokens, layer.in_channels)
    per_run = layer.copies * batch
    last = one if layer.is_spatial else one[1:]
    if values.shape[-len(last) :] != last or not values.size or values.size % (per_run * prod(one)):
        copies = (layer.copies,) if layer.copies > 1 else ()
        raise ValueError(
            f"layer {layer.name!r}: activations must have the shape (samples, {', '.join(map(str, (*copies, *one)))}) "
            f"with a multiple of batch={batch} samples, but they have {values.shape}"
        )
    runs = values.reshape(-1, batch, layer.copies, *one)
    if layer.kind == "matmul":  # each sample has a second operand of its own
        return runs.reshape(len(runs), per_run, *one)
    runs = np.swapaxes(runs, 1, 2)
    return runs if layer.is_spatial else runs.reshape(len(runs), layer.copies, batch * layer.tokens, layer.in_channels)


def _weights(layer: LayerShape, given: Any, bits: int) -> npt.NDArray[np.int32]:
    values = _integers(layer, "weights", given, bits)
    if layer.kind == "conv_transpose":
        one = (layer.in_channels, layer.out_channels // layer.groups, *layer.kernel_size)
    else:
        one = (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size)
    matrices = values.size // prod(one)
    expected = layer.copies if layer.kind == "matmul" else layer.matrices
    fits = values.shape[-len(one) :] == one and values.ndim <= len(one) + 1
    if not fits or (matrices % expected if layer.kind == "matmul" else matrices != expected):
        matrix = one if expected == 1 else (expected, *one)
        raise ValueError(f"layer {layer.name!r}: weights must have the shape {matrix}, but they have {values.shape}")
    return values.reshape(matrices, *one)


def _integers(layer: LayerShape, what: str, given: Any, bits: int) -> npt.NDArray[np.int32]:
    values = np.asarray(given)
    if values.dtype.kind not in "iu":
        raise TypeError(
            f"layer {layer.name!r}: {what} must be an array of integers, but its type is {values.dtype} "
            "(stripes_sim.capture makes them of a model and its inputs)"
        )
    if values.size:
        least, most = int(values.min()), int(values.max())
        low, high = (0, 2**bits - 1) if least >= 0 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if least < low or most > high:
            raise ValueError(
                f"layer {layer.name!r}: {what} of {bits} bits lie from {low} to {high}, but there is "
                f"{least if least < low else most}"
            )
    return values.astype(np.int32)
