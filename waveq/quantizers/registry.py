"""Methods by name, open to methods of others: ``register`` one, or give ``attach`` its class.

    @waveq.quantizers.register("my-method")
    class MyMethod(waveq.quantizers.WeightQuantizer): ...

A registered method is found by its name wherever a name is given: ``attach``, policies, recipes, the command line.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar, get_args, overload

import torch
from torch import Tensor

from waveq._bits import check_total_bits
from waveq._names import check_choice, suggestion
from waveq._registry import Registry, origin
from waveq.layers import Outputs
from waveq.quantizers.activation import ActivationQuantizer, DoReFaActivation
from waveq.quantizers.base import Granularity, ScaleMode, WeightQuantizer, check_channels
from waveq.quantizers.dorefa import DoReFa
from waveq.quantizers.dsq import DSQ, DSQActivation
from waveq.quantizers.lqnets import LQNets, LQNetsActivation
from waveq.quantizers.lsq import LSQ, LSQActivation
from waveq.quantizers.midrise import MidRise
from waveq.quantizers.pact import PACT, PACTActivation
from waveq.quantizers.ranged import RangedActivation
from waveq.quantizers.ttq import TTQ
from waveq.quantizers.wrpn import WRPN

__all__ = [
    "Quantizer",
    "activation_quantizer_class",
    "activation_quantizer_names",
    "find_quantizer",
    "make_activation_quantizer",
    "make_quantizer",
    "quantize_weight",
    "quantizer_class",
    "quantizer_names",
    "register",
    "round_by",
    "scale_modes",
]

Quantizer = str | type[WeightQuantizer] | WeightQuantizer
"""A method: its registered name, its class, or an instance whose copies serve all layers."""

_Method = TypeVar("_Method", bound=type[WeightQuantizer] | type[ActivationQuantizer])
_WEIGHTS: Registry[type[WeightQuantizer]] = Registry("quantizer")
_ACTIVATIONS: Registry[type[ActivationQuantizer]] = Registry("activation quantizer")


@overload
def register(name: str) -> Callable[[_Method], _Method]: ...
@overload
def register(name: str, method: _Method) -> _Method: ...
def register(name: str, method: Any = None) -> Any:
    """Give a method a name; as a function, or as a decorator of the class.

    Args:
        name: lower-case letters, digits, hyphens, underscores, dots. It becomes the class's ``method``.
        method: a class derived from ``WeightQuantizer`` (weights) or ``ActivationQuantizer`` (inputs); the two have
            names apart from each other, so that a method may have both.

    Returns:
        The class.

    Raises:
        TypeError: not such a class.
        ValueError: not a name, or one that another method has; a method that has another name.

    Example:
        >>> register("lsq", LSQ)  # the same again is nothing new
        <class 'waveq.quantizers.lsq.LSQ'>
        >>> register("lsq", WRPN)
        Traceback (most recent call last):
        ValueError: waveq.quantizers.wrpn.WRPN is registered as 'wrpn' already; derive a class from it for 'lsq'
    """
    if method is None:
        return lambda decorated: register(name, decorated)
    registry: Registry[Any] = _ACTIVATIONS if _is_class_of(method, ActivationQuantizer) else _WEIGHTS
    if registry is _WEIGHTS and not _is_class_of(method, WeightQuantizer):
        raise TypeError(f"a class derived from WeightQuantizer or ActivationQuantizer is expected, not {method!r}")
    for known, holder in registry.items():
        if holder is method and known != name:
            raise ValueError(
                f"{origin(method)} is registered as {known!r} already; derive a class from it for {name!r}"
            )
    registry.add(name, method, maker=method)
    method.method = name
    return method


def _is_class_of(thing: object, base: type) -> bool:
    return isinstance(thing, type) and issubclass(thing, base)


for _method in (DoReFa, WRPN, MidRise, PACT, LSQ, LQNets, DSQ, TTQ):
    register(_method.method, _method)
for _activation in (DoReFaActivation, RangedActivation, PACTActivation, LSQActivation, LQNetsActivation, DSQActivation):
    register(_activation.method, _activation)


def quantizer_names() -> tuple[str, ...]:
    """The registered methods, sorted.

    Example:
        >>> "dorefa" in quantizer_names()
        True
    """
    return tuple(sorted(_WEIGHTS))


def activation_quantizer_names() -> tuple[str, ...]:
    """The registered activation quantisers, sorted.

    Example:
        >>> "dorefa" in activation_quantizer_names()
        True
    """
    return tuple(sorted(_ACTIVATIONS))


def find_quantizer(quantizer: Quantizer) -> type[WeightQuantizer] | WeightQuantizer:
    """What a name stands for; a class or an instance as it is, once it is sure that its name means no other method.

    Raises:
        TypeError: none of the three.
        ValueError: an unknown name; a class that has a registered method's name; an instance that holds parameters or
            buffers: they started from other weights, so that a copy of them serves no layer.

    Example:
        >>> find_quantizer("dorefa")
        <class 'waveq.quantizers.dorefa.DoReFa'>
        >>> find_quantizer(WRPN(torch.ones(1), scale="max")).scale
        'max'
    """
    if isinstance(quantizer, str):
        if quantizer not in _WEIGHTS:
            raise _unknown("quantizer", quantizer, quantizer_names())
        return _WEIGHTS[quantizer]
    method = quantizer if isinstance(quantizer, type) else type(quantizer)
    if not issubclass(method, WeightQuantizer):
        raise TypeError(
            f"quantizer must be a name, a class derived from waveq.quantizers.WeightQuantizer, or an instance of one, "
            f"not {quantizer!r}"
        )
    named = _WEIGHTS.get(method.method, method)
    if origin(named) != origin(method):
        raise ValueError(
            f"{origin(method)} calls itself {method.method!r}, which is {origin(named)}; give it a `method` of its own"
        )
    if isinstance(quantizer, WeightQuantizer) and quantizer.state_dict():
        held = ", ".join(quantizer.state_dict())
        raise ValueError(
            f"this quantizer {method.method!r} holds {held}, which started from the weights that it was made with; "
            "give the class, and every layer gets one of its own"
        )
    return quantizer


def quantizer_class(quantizer: Quantizer) -> type[WeightQuantizer]:
    """The class of a method: its name, which bits and scales it has, and whether its bits can be learned.

    Raises:
        TypeError, ValueError: see `find_quantizer`.

    Example:
        >>> quantizer_class("dorefa").scale_modes
        ('none', 'max', 'learned')
    """
    found = find_quantizer(quantizer)
    return found if isinstance(found, type) else type(found)


def scale_modes(quantizer: Quantizer) -> tuple[ScaleMode, ...]:
    """The scales that a method can have, the usual one first; an instance has one already.

    Example:
        >>> scale_modes("lsq"), scale_modes(WRPN(torch.ones(1), scale="max"))
        (('learned',), ('max',))
    """
    found = find_quantizer(quantizer)
    return found.scale_modes if isinstance(found, type) else (found.scale,)


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
    return activation_quantizer_class(name)(bits)


def activation_quantizer_class(name: str) -> type[ActivationQuantizer]:
    """The class of an input quantiser: which bits it has, and whether they can be learned.

    Raises:
        ValueError: unknown method.

    Example:
        >>> activation_quantizer_class("range").learns_bits, activation_quantizer_class("lqnets").learns_bits
        (True, False)
    """
    if name not in _ACTIVATIONS:
        raise _unknown("activation quantizer", name, activation_quantizer_names())
    return _ACTIVATIONS[name]


def _unknown(what: str, name: object, known: tuple[str, ...]) -> ValueError:
    return ValueError(f"unknown {what} {name!r}{suggestion(name, known)} (known: {', '.join(known)})")


def require_bits(quantizer: Quantizer, total_bits: int, *, layer: str | None = None) -> None:
    """Refuse bits that a method does not have.

    Raises:
        ValueError: unknown method, or not its bits; the message names methods that have them.

    Example:
        >>> require_bits("lsq", 1)
        Traceback (most recent call last):
        ...
        ValueError: quantizer 'lsq' has 2 to 9 total bits, not 1; these have: ...
    """
    found = find_quantizer(quantizer)
    if check_total_bits(total_bits, layer=layer) not in found.bit_counts:
        least, most = found.bit_counts[0], found.bit_counts[-1]
        where = f" (layer {layer!r})" if layer else ""
        span = f"{least} total bits only" if least == most else f"{least} to {most} total bits"
        able = ", ".join(repr(known) for known in quantizer_names() if total_bits in _WEIGHTS[known].bit_counts)
        raise ValueError(f"quantizer {found.method!r} has {span}, not {total_bits}{where}; these have: {able}")


def make_quantizer(
    quantizer: Quantizer,
    weight: Tensor,
    *,
    total_bits: int | None = None,
    scale: ScaleMode | None = None,
    layer: str | None = None,
    granularity: Granularity = "layer",
    outputs: Outputs | None = None,
) -> WeightQuantizer:
    """A new quantiser for one layer.

    Args:
        quantizer: a registered method, a class, or an instance, which is copied.
        weight: the layer's weights; they start what is learned and are not kept.
        total_bits: B of the layer; None means that its bits are learned.
        scale: how the levels are scaled: "none" (as published), "max" or "learned"; None takes the method's own.
        layer: named in the message of an error.
        granularity: "layer", or "channel": a scale for each output channel.
        outputs: where the output channels lie (``waveq.layers.outputs_of(module)``); None is the first axis.

    Raises:
        ValueError: unknown method or scale; bits that the method does not have, or that it cannot learn.
        TypeError: see `find_quantizer`.

    Example:
        >>> make_quantizer("dorefa", torch.randn(4, 3)).grid()
        <Grid.MID_RISE: 'mid-rise'>
    """
    found = find_quantizer(quantizer)
    name = found.method
    where = f" (layer {layer!r})" if layer else ""
    if total_bits is None and not found.learns_bits:
        raise ValueError(
            f"quantizer {name!r} cannot learn bits: its levels are no stretched grid; give each layer's bits{where}"
        )
    if total_bits is not None:
        require_bits(found, total_bits, layer=layer)
    where_outputs = outputs or Outputs()
    channels: dict[str, Any] = {"outputs": where_outputs} if found.by_output else {}
    check_choice("granularity", granularity, get_args(Granularity))
    if granularity == "channel":
        check_channels(found, scale)
        channels = {"channels": where_outputs}
    if isinstance(found, type):
        return found(weight, total_bits=total_bits, scale=scale, **channels)
    if scale not in (None, found.scale):
        raise ValueError(f"this quantizer {name!r} was made with scale {found.scale!r}, not {scale!r}")
    made = copy.deepcopy(found)
    if "channels" in channels:
        made.divide(weight, channels["channels"])
    return made


@torch.no_grad()
def quantize_weight(
    weight: Tensor,
    total_bits: int,
    *,
    quantizer: Quantizer = "lsq",
    scale: ScaleMode | None = None,
    granularity: Granularity = "layer",
    outputs: Outputs | None = None,
) -> Tensor:
    """Weights rounded to B total bits by a method; no gradient, shape and dtype of weight.

    Args:
        weight: floating, any shape.
        total_bits: B, sign included, 1 to 9.
        quantizer: a registered method, a class or an instance.
        scale: how the levels are scaled; None takes the method's own.
        granularity: "layer", or "channel": a scale for each output channel.
        outputs: where the output channels lie (``waveq.layers.outputs_of(module)``); None is the first axis.

    Raises:
        ValueError: bits out of range, unknown method or scale.
        TypeError: see `find_quantizer`.

    Example:
        >>> quantize_weight(torch.tensor([-1.0, 0.2, 0.6]), 2, quantizer="wrpn").tolist()
        [-1.0, 0.0, 1.0]
    """
    bits_and_scale: dict[str, Any] = {"total_bits": check_total_bits(total_bits), "scale": scale}
    method = make_quantizer(quantizer, weight, **bits_and_scale, granularity=granularity, outputs=outputs)
    return round_by(method, weight, total_bits)


def round_by(method: WeightQuantizer, weight: Tensor, total_bits: int) -> Tensor:
    """Weights on the levels of a quantiser that was made for them; computed in float32 at least, dtype of weight."""
    wide = weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight
    if total_bits == 1:
        return method.binarize(wide).to(weight.dtype)
    bits = torch.tensor(float(total_bits - 1), device=weight.device)
    return method(wide, bits).to(weight.dtype)  # type: ignore[no-any-return]
