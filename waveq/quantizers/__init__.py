"""Weight and activation quantisers: one file a method, one registry, one grid description each."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from waveq._names import suggestion
from waveq.functional import MAX_TOTAL_BITS
from waveq.quantizers.activation import (
    ActivationQuantizer,
    DoReFaActivation,
    check_activation_bits,
    quantize_activation,
)
from waveq.quantizers.base import ScaleMode, WeightQuantizer
from waveq.quantizers.dorefa import DoReFa
from waveq.quantizers.dsq import DSQ, DSQActivation
from waveq.quantizers.lqnets import LQNets, LQNetsActivation
from waveq.quantizers.lsq import LSQ, LSQActivation
from waveq.quantizers.pact import PACT, PACTActivation
from waveq.quantizers.ttq import TTQ
from waveq.quantizers.wrpn import WRPN

__all__ = [
    "ActivationQuantizer",
    "DoReFaActivation",
    "WeightQuantizer",
    "activation_quantizer_names",
    "check_activation_bits",
    "check_total_bits",
    "make_activation_quantizer",
    "make_quantizer",
    "quantize_activation",
    "quantize_weight",
    "quantizer_class",
    "quantizer_names",
]

_REGISTRY: dict[str, type[WeightQuantizer]] = {
    method.method: method for method in (DoReFa, WRPN, PACT, LSQ, LQNets, DSQ, TTQ)
}
_ACTIVATIONS: dict[str, type[ActivationQuantizer]] = {
    method.method: method
    for method in (DoReFaActivation, PACTActivation, LSQActivation, LQNetsActivation, DSQActivation)
}


def quantizer_names() -> tuple[str, ...]:
    """The registered methods, sorted.

    Example:
        >>> "dorefa" in quantizer_names()
        True
    """
    return tuple(sorted(_REGISTRY))


def quantizer_class(name: str) -> type[WeightQuantizer]:
    """The class of a registered method: which bits and scales it has, and whether its bits can be learned.

    Raises:
        ValueError: unknown method.

    Example:
        >>> quantizer_class("dorefa").scale_modes
        ('none', 'max', 'learned')
    """
    if name not in _REGISTRY:
        raise _unknown("quantizer", name, quantizer_names())
    return _REGISTRY[name]


def activation_quantizer_names() -> tuple[str, ...]:
    """The registered activation quantisers, sorted.

    Example:
        >>> "dorefa" in activation_quantizer_names()
        True
    """
    return tuple(sorted(_ACTIVATIONS))


def make_activation_quantizer(name: str, bits: int) -> ActivationQuantizer:
    """A new quantiser for one layer's inputs.

    Args:
        name: a registered method.
        bits: k, 1 to 8.

    Raises:
        ValueError: unknown method, or bits that it does not have.

    Example:
        >>> make_activation_quantizer("dorefa", 2)(torch.tensor([-0.4, 0.3, 4.0]))
        tensor([0.0000, 0.3333, 1.0000])
    """
    if name not in _ACTIVATIONS:
        raise _unknown("activation quantizer", name, activation_quantizer_names())
    return _ACTIVATIONS[name](bits)


def _unknown(what: str, name: object, known: tuple[str, ...]) -> ValueError:
    return ValueError(f"unknown {what} {name!r}{suggestion(name, known)} (known: {', '.join(known)})")


def make_quantizer(
    name: str,
    weight: Tensor,
    *,
    total_bits: int | None = None,
    scale: ScaleMode | None = None,
    layer: str | None = None,
) -> WeightQuantizer:
    """A new quantiser for one layer.

    Args:
        name: a registered method.
        weight: the layer's weights; they start what is learned and are not kept.
        total_bits: B of the layer; None means that its bits are learned.
        scale: how the levels are scaled: "none" (as published), "max" or "learned"; None takes the method's own.
        layer: named in the message of an error.

    Raises:
        ValueError: unknown method or scale; bits that the method does not have, or that it cannot learn.

    Example:
        >>> make_quantizer("dorefa", torch.randn(4, 3)).grid()
        <Grid.MID_RISE: 'mid-rise'>
    """
    method = quantizer_class(name)
    where = f" (layer {layer!r})" if layer else ""
    if total_bits is None and not method.learns_bits:
        raise ValueError(
            f"quantizer {name!r} cannot learn bits: its levels are no stretched grid; give each layer's bits{where}"
        )
    if total_bits is not None and check_total_bits(total_bits, layer=layer) not in method.bit_counts:
        least, most = method.bit_counts[0], method.bit_counts[-1]
        span = f"{least} total bits only" if least == most else f"{least} to {most} total bits"
        raise ValueError(f"quantizer {name!r} has {span}, not {total_bits}{where}")
    return method(weight, total_bits=total_bits, scale=scale)


@torch.no_grad()
def quantize_weight(
    weight: Tensor, total_bits: int, *, quantizer: str = "dorefa", scale: ScaleMode | None = None
) -> Tensor:
    """Weights rounded to B total bits by a registered method; no gradient, shape and dtype of weight.

    Args:
        weight: floating, any shape.
        total_bits: B, sign included, 1 to 9.
        quantizer: a registered method.
        scale: how the levels are scaled; None takes the method's own.

    Raises:
        ValueError: bits out of range, unknown method or scale.

    Example:
        >>> quantize_weight(torch.tensor([-1.0, 0.2, 0.6]), 2, quantizer="wrpn").tolist()
        [-1.0, 0.0, 1.0]
    """
    method = make_quantizer(quantizer, weight, total_bits=check_total_bits(total_bits), scale=scale)
    if total_bits == 1:
        return method.binarize(weight)
    bits = torch.tensor(float(total_bits - 1), device=weight.device)
    return method(weight.float(), bits).to(weight.dtype)  # type: ignore[no-any-return]


def check_total_bits(total_bits: object, *, layer: str | None = None) -> int:
    """The bits as an int, or a ValueError that names the layer and the range."""
    where = f" of layer {layer!r}" if layer else ""
    whole = isinstance(total_bits, Integral) and not isinstance(total_bits, bool)  # numpy's integers are welcome
    if not whole or not 1 <= total_bits <= MAX_TOTAL_BITS:  # type: ignore[operator]
        raise ValueError(
            f"the bits{where} must be a whole number from 1 to {MAX_TOTAL_BITS} (sign included), not {total_bits!r}"
        )
    return int(total_bits)  # type: ignore[call-overload, no-any-return]
