"""Weight and activation quantisers: one file a method, one registry, one grid description each."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import torch
from torch import Tensor

from waveq.functional import MAX_TOTAL_BITS
from waveq.quantizers.activation import check_activation_bits, quantize_activation
from waveq.quantizers.base import ScaleMode, WeightQuantizer
from waveq.quantizers.dorefa import DoReFa
from waveq.quantizers.wrpn import WRPN

__all__ = [
    "WeightQuantizer",
    "check_activation_bits",
    "check_total_bits",
    "make_quantizer",
    "quantize_activation",
    "quantize_weight",
    "quantizer_names",
]

_REGISTRY: dict[str, Callable[..., WeightQuantizer]] = {
    DoReFa.method: DoReFa,
    WRPN.method: WRPN,
}


def quantizer_names() -> tuple[str, ...]:
    """The registered methods, sorted.

    Example:
        >>> "dorefa" in quantizer_names()
        True
    """
    return tuple(sorted(_REGISTRY))


def make_quantizer(name: str, weight: Tensor, *, scale: ScaleMode = "none") -> WeightQuantizer:
    """A new quantiser for one layer.

    Args:
        name: a registered method.
        weight: the layer's weights; they start what is learned and are not kept.
        scale: how the levels are scaled: "none" (as published), "max" or "learned".

    Raises:
        ValueError: unknown method or scale.

    Example:
        >>> make_quantizer("dorefa", torch.randn(4, 3)).grid()
        <Grid.MID_RISE: 'mid-rise'>
    """
    if name not in _REGISTRY:
        near = difflib.get_close_matches(str(name), _REGISTRY, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown quantizer {name!r}{hint} (known: {', '.join(quantizer_names())})")
    return _REGISTRY[name](weight, scale=scale)


@torch.no_grad()
def quantize_weight(weight: Tensor, total_bits: int, *, quantizer: str = "dorefa", scale: ScaleMode = "none") -> Tensor:
    """Weights rounded to B total bits by a registered method; no gradient, shape and dtype of weight.

    Args:
        weight: floating, any shape.
        total_bits: B, sign included, 1 to 9.
        quantizer: a registered method.
        scale: how the levels are scaled.

    Raises:
        ValueError: bits out of range, unknown method or scale.

    Example:
        >>> quantize_weight(torch.tensor([-1.0, 0.2, 0.6]), 2, quantizer="wrpn").tolist()
        [-1.0, 0.0, 1.0]
    """
    method = make_quantizer(quantizer, weight, scale=scale)
    if check_total_bits(total_bits) == 1:
        return method.binarize(weight)
    bits = torch.tensor(float(total_bits - 1), device=weight.device)
    return method(weight.float(), bits).to(weight.dtype)  # type: ignore[no-any-return]


def check_total_bits(total_bits: object, *, layer: str | None = None) -> int:
    """The bits as an int, or a ValueError that names the layer and the range."""
    where = f" of layer {layer!r}" if layer else ""
    whole = isinstance(total_bits, int) and not isinstance(total_bits, bool)
    if not whole or not 1 <= total_bits <= MAX_TOTAL_BITS:  # type: ignore[operator]
        raise ValueError(
            f"the bits{where} must be a whole number from 1 to {MAX_TOTAL_BITS} (sign included), not {total_bits!r}"
        )
    return total_bits  # type: ignore[return-value]
