"""What follows from the options of ``attach`` taken together, for a given model; every message says what to do."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from waveq._names import nearest
from waveq.functional import BETA_MIN
from waveq.method.budget import Budget, LayerCosts, parse_budget
from waveq.method.options import Bits, Forward, InputBitsOption, Method, usual_quantizer
from waveq.method.presets import Preset
from waveq.method.schedules import (
    Course,
    Profile,
    Schedule,
    constant,
    exponential,
    freezing_course,
    from_callable,
    rising,
    three_phase,
)
from waveq.policy import Policy
from waveq.quantizers import (
    Quantizer,
    WeightQuantizer,
    activation_quantizer_class,
    activation_quantizer_names,
    check_activation_bits,
    check_total_bits,
    find_quantizer,
    scale_modes,
)
from waveq.quantizers.base import Granularity, ScaleMode, check_channels

__all__ = [
    "check_learned_inputs",
    "resolve_activation_quantizer",
    "resolve_activations",
    "resolve_beta_lr",
    "resolve_bits",
    "resolve_bounds",
    "resolve_budget",
    "resolve_freezing",
    "resolve_granularity",
    "resolve_quantizer",
    "resolve_scale",
    "resolve_schedule",
    "resolve_signs",
]

_RANGE_AT = 0.05  # of the run
_SCHEDULES = ("three-phase", "search", "constant", "exponential", "rising")


def resolve_bits(
    bits: Bits, shared: Mapping[str, tuple[str, ...]], ends: Sequence[str], first_last: int | None
) -> dict[str, int]:
    """Total bits by first name of each weight; 0 where they are learned.

    Args:
        bits: as given to ``attach``.
        shared: layers by weight.
        ends: the weights of the network's first and last layer, skipped or not.
        first_last: total bits of those two.
    """
    if isinstance(bits, Mapping):
        chosen = _from_mapping(bits, shared)
    elif isinstance(bits, str):
        if bits != "learn":
            raise ValueError(
                f'bits must be "learn", a number of bits, or a mapping of layers to bits, not {bits!r}'
                + (" (for a saved policy: waveq.Policy.load)" if bits.endswith(".json") else "")
            )
        chosen = dict.fromkeys(shared, 0)
    else:
        chosen = dict.fromkeys(shared, check_total_bits(bits))
    if first_last is None:
        return chosen
    first_last = check_total_bits(first_last)
    at_ends = [first for first, names in shared.items() if set(names) & set(ends)]
    if not at_ends:
        raise ValueError(
            f"first_last={first_last} contradicts skip, which leaves out both {ends[0]!r} and {ends[-1]!r}"
        )
    for name in at_ends:
        if isinstance(bits, Mapping) and chosen[name] != first_last:
            raise ValueError(
                f"first_last={first_last} contradicts bits, which gives layer {name!r} {chosen[name]} bits"
            )
        chosen[name] = first_last
    return chosen


def _from_mapping(bits: Mapping[str, int], shared: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    names = [name for group in shared.values() for name in group]
    for name in bits:
        if name not in names:
            raise ValueError(f"bits names {name!r}, which is no layer to quantise{nearest(name, names)}")
    missing = [first for first, group in shared.items() if not any(name in bits for name in group)]
    if missing:
        raise ValueError(
            f"bits says nothing about: {', '.join(missing)}. Give their bits, or leave them in floating point (skip)"
        )
    chosen = {}
    for first, group in shared.items():
        given = {name: check_total_bits(bits[name], layer=name) for name in group if name in bits}
        if len(set(given.values())) > 1:
            told = ", ".join(f"{name!r} {value}" for name, value in given.items())
            raise ValueError(f"layers that share one weight must have the same bits, not {told}")
        chosen[first] = next(iter(given.values()))
    return chosen


def resolve_activations(
    activation_bits: InputBitsOption,
    names: list[str],
    first: str,
    *,
    bits: object = None,
    uncalled: Sequence[str] = (),
) -> dict[str, int]:
    """Bits of the inputs by layer, 0 where they are learned.

    Args:
        activation_bits: one number or "learn" for all but the first layer, or one of them by name.
        names: the layers to quantise.
        first: the network's first layer.
        bits: weight bits; a Policy brings activation bits of its own, which hold unless others are asked for.
        uncalled: weights whose inputs no hook can reach.
    """
    if activation_bits is None and isinstance(bits, Policy):
        activation_bits = bits.activation_bits
    if activation_bits is None:
        return {}
    if not isinstance(activation_bits, Mapping):
        return dict.fromkeys((name for name in names if name != first), _input_bits(activation_bits, None))
    for name in activation_bits:
        if name in uncalled:
            raise ValueError(
                f"activation_bits names {name!r}, whose inputs cannot be quantised: no module is called with them "
                "alone (attention and recurrent layers hand their weights to one function, embeddings take numbers of "
                "rows). Leave it out of activation_bits"
            )
        if name not in names:
            raise ValueError(f"activation_bits names {name!r}, which is no layer to quantise{nearest(name, names)}")
    return {name: _input_bits(value, name) for name, value in activation_bits.items()}


def _input_bits(value: object, layer: str | None) -> int:
    if isinstance(value, str):
        if value != "learn":
            where = f" of layer {layer!r}" if layer else ""
            raise ValueError(f'activation bits{where} must be "learn" or a whole number from 1 to 8, not {value!r}')
        return 0
    return check_activation_bits(value, layer=layer)


def check_learned_inputs(inputs: Mapping[str, int], asked: InputBitsOption, quantizer: str, preset: Preset) -> None:
    """Whether bits of inputs can be learned, where they are to be.

    Args:
        inputs: bits by layer, 0 where they are learned.
        asked: the option.
        quantizer: of the inputs.
        preset: says whether the task loss reaches beta.

    Raises:
        ValueError: there are no inputs to learn the bits of; a method or a preset that cannot.
    """
    if asked == "learn" and not inputs:
        raise ValueError(
            'activation_bits="learn" finds nothing to learn: the inputs of the network\'s first layer stay in floating '
            "point, and no hook reaches those of its other weights"
        )
    if 0 not in inputs.values():
        return
    if not activation_quantizer_class(quantizer).learns_bits:
        able = [name for name in activation_quantizer_names() if activation_quantizer_class(name).learns_bits]
        raise ValueError(
            f"activation quantizer {quantizer!r} cannot learn bits: what it has learned for one number of bits means "
            f"nothing for another; take activation_quantizer={' or '.join(repr(name) for name in able)}"
        )
    if not preset.task_moves_beta:
        raise ValueError(
            f'activation_bits="learn" needs the task loss to move beta, which preset {preset.name!r} does not have: '
            'inputs have no wave, and nothing else holds their bits up. Take preset="recommended"'
        )


def resolve_signs(signed: bool | Mapping[str, bool] | None, inputs: Mapping[str, int]) -> dict[str, bool]:
    """What the user says of the inputs' signs, by layer.

    Args:
        signed: as given to ``attach``.
        inputs: bits of the inputs by layer.
    """
    if signed is None:
        return {}
    if not inputs:
        raise ValueError(f"activation_signed={signed!r} needs activation_bits, the bits of the inputs")
    if not isinstance(signed, Mapping):
        return dict.fromkeys(inputs, signed)
    for name in signed:
        if name not in inputs:
            raise ValueError(
                f"activation_signed names {name!r}, whose inputs are not quantised{nearest(name, list(inputs))}"
            )
    return dict(signed)


def resolve_activation_quantizer(method: Method, published: str, preset: Preset) -> str:
    """The input quantiser's name.

    Args:
        method: the options.
        published: the one that the weight quantiser was published with.
        preset: whether DoReFa's fixed range, [0, 1], is kept where nobody asks for it.
    """
    if method.activation_quantizer is not None:
        return method.activation_quantizer
    return "range" if published == "dorefa" and preset.ranges_from_data else published


def resolve_schedule(method: Method, preset: Preset, *, learning: bool) -> Schedule:
    """The schedule by name, as a callable, or as a ``Schedule`` with phases of its own."""
    total_steps, lambda_w, lambda_beta = method.total_steps, method.lambda_w, method.lambda_beta
    if learning and total_steps is None:
        raise ValueError(
            f'{"" if method.bits == "learn" else "activation_"}bits="learn" needs total_steps, the optimiser steps of '
            "the whole run: attach(model, total_steps=epochs * len(loader)). It sets when the bits are learned and "
            "when they freeze."
        )
    if lambda_beta is not None and not learning:
        raise ValueError(
            'lambda_beta is the price of a learned bit; with preset bits nothing is learned (bits="learn")'
        )
    price = preset.lambda_beta if lambda_beta is None else lambda_beta
    if learning and price == 0.0:
        raise ValueError("lambda_beta must be above 0 when bits are learned: with free bits every layer keeps the most")
    kind = method.schedule or _usual_schedule(learning, method.forward, preset)
    usual = preset.pinning[1] if kind == "rising" else preset.lambda_w
    if _exponent(method, preset) is not None:
        usual = 0.0  # freezing alone is better than with the wave beside it, or as good: see docs/training.md
    strength = usual if lambda_w is None else lambda_w
    if callable(kind):
        return _own_schedule(kind, learning, total_steps, {"lambda_w": lambda_w, "lambda_beta": lambda_beta})
    price = price if learning else 0.0
    if kind == "constant":
        return constant(total_steps, lambda_w=strength, lambda_beta=price)
    if kind not in _SCHEDULES:
        raise ValueError(f"unknown schedule {kind!r}{nearest(kind, _SCHEDULES)}")
    if total_steps is None:
        raise ValueError(f"the {kind} schedule needs total_steps, the optimiser steps of the whole run")
    if kind == "exponential":
        return exponential(total_steps, lambda_w=strength, lambda_beta=price)
    if kind == "search":
        if not learning:
            raise ValueError('schedule "search" ends when the bits freeze; with preset bits there is nothing to search')
        return _search(total_steps, preset, lambda_w=strength, lambda_beta=price)
    rise, fall = (share * total_steps for share in preset.phases)
    if kind == "rising":
        first = min(strength, preset.pinning[0])
        phases = {"lambda_beta": price, "rise": rise, "fall": fall} if learning else {}
        return rising(total_steps, lambda_w=strength, first=first, **phases)
    return three_phase(
        total_steps,
        lambda_w=strength,
        lambda_beta=price,
        rise=rise,
        fall=fall,
        wave_rise=preset.wave_rise * total_steps,
    )


def _search(total_steps: int, preset: Preset, *, lambda_w: float, lambda_beta: float) -> Schedule:
    """The three phases of a longer run, up to the step at which its bits freeze."""
    whole = total_steps / preset.phases[1]
    found = three_phase(
        total_steps,
        lambda_w=lambda_w if preset.wave_rise < preset.phases[1] else 0.0,  # no wave that would rise behind the end
        lambda_beta=lambda_beta,
        rise=preset.phases[0] * whole,
        fall=total_steps,
        sharpness=max(1.0, whole / 60),
        wave_rise=preset.wave_rise * whole,
    )
    return dataclasses.replace(found, name="search")


def _usual_schedule(learning: bool, forward: Forward, preset: Preset) -> str:
    if forward == "float" and preset.name == "recommended":
        return "rising"
    return "three-phase" if learning else "constant"


def _own_schedule(
    profile: Profile, learning: bool, total_steps: int | None, strengths: Mapping[str, float | None]
) -> Schedule:
    given = [name for name, value in strengths.items() if value is not None]
    if given:
        raise ValueError(f"{' and '.join(given)} contradict a schedule that is a callable: it returns both strengths")
    if not isinstance(profile, Schedule):
        return from_callable(profile, total_steps, learning=learning)
    if learning and profile.fall is None:
        raise ValueError("this schedule has no step at which learned bits freeze (fall); use three_phase(...)")
    return profile


def resolve_budget(
    target: Mapping[str, float] | None,
    chosen: Mapping[str, int],
    layer_costs: LayerCosts | None,
    preset: Preset,
    *,
    learning: bool,
) -> Budget | None:
    """The budget, where one is set; only learned bits can be driven."""
    if target is None:
        return None
    if not learning:
        raise ValueError('target drives learned bits; with preset bits there is nothing to drive (use bits="learn")')
    return parse_budget(target, chosen, layer_costs, most_bits=math.ceil(preset.beta_max) + 1)


def resolve_quantizer(
    quantizer: Quantizer | None, bits: object, preset: Preset, forward: Forward = "quantized"
) -> type[WeightQuantizer] | WeightQuantizer:
    """The user's choice; else the policy's, whose bits are meant for it; else the usual one of preset and road."""
    made_with = bits.quantizer if isinstance(bits, Policy) else None
    found = find_quantizer(made_with or usual_quantizer(preset.name, forward) if quantizer is None else quantizer)
    if made_with is not None and found.method != made_with:
        raise ValueError(
            f"quantizer={found.method!r} contradicts bits, a policy made with {made_with!r}; leave quantizer out, or "
            "give the bits alone: bits=dict(policy)"
        )
    return found


def resolve_scale(
    scale: ScaleMode | None,
    quantizer: type[WeightQuantizer] | WeightQuantizer,
    preset: Preset,
    forward: Forward = "quantized",
) -> ScaleMode:
    """The user's wish as it is; else the preset's where the method has it; else the method's own."""
    modes = scale_modes(quantizer)
    chosen = scale or (preset.scale if preset.scale in modes else modes[0])
    if forward == "float" and chosen == "learned":
        whose = "scale='learned'" if scale in modes else f"quantizer {quantizer.method!r}"
        raise ValueError(
            f"forward='float' leaves {whose} without the gradient that it learns its levels from, which only a "
            "quantised forward pass gives; take quantizer 'midrise' or 'wrpn' with scale 'max'"
        )
    return chosen


def resolve_granularity(
    granularity: Granularity | None, bits: object, quantizer: type[WeightQuantizer] | WeightQuantizer, scale: ScaleMode
) -> Granularity:
    """The user's choice; else that of the policy, whose bits are meant for it; else the layer."""
    made_with: Granularity | None = bits.granularity if isinstance(bits, Policy) else None
    if granularity is not None and made_with not in (None, granularity):
        raise ValueError(
            f"granularity={granularity!r} contradicts bits, a policy made with {made_with!r}; leave granularity out, "
            "or give the bits alone: bits=dict(policy)"
        )
    chosen: Granularity = granularity or made_with or "layer"
    if chosen == "channel":
        check_channels(quantizer, scale)
    return chosen


def resolve_bounds(method: Method, scale: ScaleMode, schedule: Schedule) -> int | None:
    """The step at which the range of the levels is fixed; None where the levels follow the weights, or stay.

    Where bits are learned that is where they freeze. Else it is early, so that the network has time to learn to do
    without its outliers; one that is trained from scratch has found its range roughly by then.
    """
    if method.fit_range and scale != "max":
        raise ValueError(f"fit_range=True is for levels that follow the largest weight, scale='max', not {scale!r}")
    wanted = method.forward == "float" if method.fit_range is None else method.fit_range
    if not wanted or scale != "max":
        return None
    return schedule.fall or max(1, math.ceil(_RANGE_AT * (method.total_steps or 0)))


def resolve_freezing(
    method: Method, preset: Preset, quantizer: type[WeightQuantizer] | WeightQuantizer, schedule: Schedule
) -> Course | None:
    """How weights freeze on their levels; None where they do not.

    Levels must stay where they are when weights are put on them: a rounded weight has to be its own rounding.
    """
    if method.forward != "float":
        if method.freezing not in (None, "off"):
            raise ValueError(
                f"freezing={method.freezing!r} is for forward='float': a quantised forward pass rounds all weights"
            )
        return None
    exponent = _exponent(method, preset)
    if exponent is None:
        return None
    if quantizer.squash != "none":
        raise ValueError(
            f"forward='float' cannot freeze weights on the levels of quantizer {quantizer.method!r}: they lie in "
            "tanh(w), and a weight that is put on one is rounded to another. Take quantizer 'midrise' or 'wrpn', or "
            "freezing='off'"
        )
    if schedule.fall is not None and not preset.snap:
        raise ValueError(
            f"preset {preset.name!r} keeps the stretched grid of learned bits, whose last level is not the largest "
            "weight: freezing would shrink the range. Give the bits, or take freezing='off' or preset 'recommended'"
        )
    if method.total_steps is None:
        raise ValueError(
            "forward='float' freezes weights by their share of the run: give total_steps, or freezing='off'"
        )
    return freezing_course(method.total_steps, exponent=exponent, fall=schedule.fall)


def _exponent(method: Method, preset: Preset) -> float | None:
    """Of the course by which weights freeze, where they do."""
    wanted = preset.freezing if method.freezing is None else method.freezing
    return wanted if method.forward == "float" and isinstance(wanted, float) else None


def resolve_beta_lr(beta_lr: float | None, preset: Preset, schedule: Schedule, *, travel: float | None = None) -> float:
    """The rate at which the price alone would take beta as far as it may have to go twice during phase 2."""
    if beta_lr is not None:
        return beta_lr
    if preset.beta_lr is not None or schedule.fall is None:
        return preset.beta_lr or 0.0
    steps = max(1, schedule.fall - schedule.rise)
    looks = range(schedule.rise, schedule.fall, max(1, steps // 64))
    price = sum(schedule(step)[1] for step in looks) / max(1, len(looks))
    travel = preset.beta_max - BETA_MIN if travel is None else travel
    return 2.0 * travel / ((price if price > 0.0 else preset.lambda_beta) * steps)
