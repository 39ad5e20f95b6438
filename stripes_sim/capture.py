"""Integers that a model's layers multiply on real inputs, for machines whose cycles depend on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stripes_sim.bits import MAX_BITS, nearest, resolve_bits

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Captured", "capture"]


@dataclass(frozen=True, kw_only=True)
class Captured:
    """Layer -> int32 array, as `stripes_sim.Accelerator.run` takes them.

    ``activations``: (samples, channels, *size) of convolutions, (samples, tokens, in_channels) of linear layers, with
    an axis of calls behind the samples where a layer runs several times (of experts or heads behind the samples, too).
    ``weights``: as torch stores them; of a product of two activations its second operand, (matrices, outputs, inputs).
    ``samples``: how many.
    """

    activations: dict[str, npt.NDArray[np.int32]]
    weights: dict[str, npt.NDArray[np.int32]]
    samples: int

    def __repr__(self) -> str:
        zeros = np.mean([float(np.mean(x == 0)) for x in self.activations.values()])
        return (
            f"Captured({len(self.activations)} layers, {self.samples} samples, {zeros:.0%} of activations are zero, "
            "mean of layers)"
        )


def capture(
    model: nn.Module,
    inputs: Any,
    *,
    activation_bits: int | Mapping[str, int] = 8,
    weight_bits: int | Mapping[str, int] = 8,
    activation_scales: Mapping[str, float] | None = None,
    device: torch.device | str = "cpu",
) -> Captured:
    """Run a model on real inputs in evaluation mode, and write down what its layers multiply.

    Numbers become integers by one scale for each layer: round(x / scale) with

        scale = max|x| / (2^bits - 1)           where no activation of the layer is negative
        scale = max|x| / (2^(bits - 1) - 1)     otherwise, and for weights; at 1 bit the sign, 0 or -1

    so that values of a grid are its codes if its last one occurs. The model is not touched.

    Args:
        model: any module that `stripes_sim.trace` knows, with the weights that it has. Parametrised weights are taken
            as they are computed.
        inputs: a tensor, a sequence of positional arguments, or a mapping of keyword arguments; the first axis of the
            first tensor counts samples.
        activation_bits, weight_bits: 1 to 16, one for all or by layer; layers left out of a mapping count 16.
        activation_scales: layer -> scale of a grid that its inputs lie on, where that is known.
        device: where the model runs.

    Returns:
        Activations and weights by layer. A product of two activations whose batch mixes samples and heads in no order
        that is known is left out; a run names it in its notes.

    Raises:
        TypeError, ValueError: no module, one that cannot run on the inputs, bits out of range, or unknown layers.

    >>> import torch
    >>> found = capture(torch.nn.Linear(2, 2), torch.tensor([[0.0, 3.0]]), activation_bits=2)
    >>> found.activations
    {'linear': array([[[0, 3]]], dtype=int32)}
    """
    from stripes_sim._seen import seen_values

    seen = seen_values(model, inputs, device)
    names = list(seen)
    for name in activation_scales or {}:
        if name not in seen:
            raise ValueError(f"activation_scales names {name!r}, which is no layer of this run{nearest(name, names)}")
    weighted = [name for name, (_, _, product) in seen.items() if not product]
    streamed = resolve_bits(names, _whole(activation_bits, names), argument="activation_bits", default_bits=MAX_BITS)
    stored = resolve_bits(weighted, _whole(weight_bits, weighted), argument="weight_bits", default_bits=MAX_BITS)
    stationary = dict(zip(weighted, stored.tolist(), strict=True))
    activations, weights, samples = {}, {}, 0
    for name, bits in zip(names, streamed.tolist(), strict=True):
        x, w = (tensor.double().cpu().numpy() for tensor in seen[name][:2])
        product = name not in stationary
        samples = len(x)
        activations[name] = _codes(x, bits, (activation_scales or {}).get(name), signed=bool((x < 0).any()))
        signed = not product or bool((w < 0).any())
        weights[name] = _codes(w, bits if product else stationary[name], None, signed=signed)
    return Captured(activations=activations, weights=weights, samples=samples)


def _whole(bits: int | Mapping[str, int], names: list[str]) -> int | dict[str, int]:
    """Without the layers that multiply nothing here, such as lookups."""
    return {name: bits[name] for name in bits if name in names} if isinstance(bits, Mapping) else bits


def _codes(x: npt.NDArray[np.float64], bits: int, scale: float | None, *, signed: bool) -> npt.NDArray[np.int32]:
    if signed and bits == 1:
        return np.where(x < 0, -1, 0).astype(np.int32)
    most = 2 ** (bits - signed) - 1
    unit = float(np.abs(x).max()) / most if scale is None else scale
    codes = np.rint(x / unit) if unit > 0 else np.zeros_like(x)
    return np.clip(codes, -most * signed, most).astype(np.int32)
