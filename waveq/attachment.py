"""attach(model): every weight layer gets a quantised weight, a wave, and bits that are learned or preset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.utils import parametrize

from waveq.budget import CostTable, parse_budget, relative_bit_costs
from waveq.checkpoint import ROOT_STATE, accept_plain_root, accept_plain_weight
from waveq.functional import BETA_MIN, ScaleRule
from waveq.handle import WaveQ
from waveq.layers import nearest, quantizable, resolve_skip
from waveq.parametrization import WaveParametrization, quantize_input
from waveq.policy import Policy
from waveq.presets import Preset, get_preset
from waveq.quantizers import (
    check_activation_bits,
    check_total_bits,
    make_activation_quantizer,
    make_quantizer,
    quantizer_class,
)
from waveq.quantizers.base import ScaleMode
from waveq.schedules import Profile, Schedule, constant, exponential, from_callable, three_phase
from waveq.settings import Settings, WaveLayer

__all__ = ["WaveQ", "attach"]

Bits = Literal["learn"] | int | Mapping[str, int]


def attach(
    model: nn.Module,
    *,
    quantizer: str = "dorefa",
    bits: Bits = "learn",
    skip: Iterable[str] = (),
    total_steps: int | None = None,
    preset: str = "recommended",
    schedule: str | Profile | None = None,
    scale: ScaleMode | None = None,
    first_last: int | None = None,
    activation_bits: int | Mapping[str, int] | None = None,
    activation_quantizer: str | None = None,
    lambda_w: float | None = None,
    lambda_beta: float | None = None,
    target: Mapping[str, float] | None = None,
    layer_costs: CostTable | None = None,
    beta_lr: float | None = None,
    scale_rule: ScaleRule = "exact",
) -> WaveQ:
    """Quantise a model's layers during training, and learn their bits.

    Every Linear, Conv and ConvTranspose layer keeps its class and gets a parametrised weight. Build the optimizer from
    ``model.parameters()`` as always; add ``penalty()`` to the loss, call ``step()`` after ``optimizer.step()``.

    Args:
        model: any module; changed in place.
        quantizer: weight quantiser, see ``waveq.quantizers.quantizer_names()``.
        bits: "learn"; one number of total bits (1 to 9, sign included) for all layers; or a mapping or Policy that
            names every layer that is not skipped.
        skip: layers left in floating point: exact names or patterns ("layer1.*").
        total_steps: optimiser steps of the whole run; needed wherever a schedule depends on it.
        preset: "recommended", "paper" or "released"; None in any argument below means what the preset says.
        schedule: "three-phase" (default when learning), "constant" (default for preset bits), "exponential", or a
            callable from step to (lambda_w, lambda_beta).
        scale: output scale of the levels: "none", "max" or "learned". Methods that learn their own levels (LSQ,
            LQ-Nets, DSQ, TTQ) have "learned" alone and take it by themselves.
        first_last: total bits of the first and the last layer, which are then not learned.
        activation_bits: bits of the layers' inputs, 1 to 8: one number for all but the network's first layer, or a
            mapping by layer name. A layer whose first input holds negative values gets a signed grid.
        activation_quantizer: their method, see ``waveq.quantizers.activation_quantizer_names()``; None takes the one
            that the weight quantiser was published with. What it learns is in ``model.parameters()``.
        lambda_w: strength of the wave on the weights.
        lambda_beta: price of one bit.
        target: a budget instead of a price: {"mean_bits": 3.85}, or a share of the 8-bit cost, {"energy_pj": 0.4}.
        layer_costs: what a bit costs in each layer: a number, or cost by total bits (needed for shares).
        beta_lr: rate of beta's own SGD.
        scale_rule: the form of c(beta): "exact", or the printed "2^(b/beta)" and "2^(b-beta)".

    Returns:
        The handle.

    Raises:
        ValueError: unknown layer, method, preset or schedule; bits out of range; NaN weights; learned bits without
            total_steps; nothing to quantise; a scale, or learned bits, that the quantiser does not have.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> wq = attach(net, bits=4)
        >>> loss = net(torch.randn(5, 8)).square().mean() + wq.penalty()
        >>> loss.backward(); wq.step(); wq.bits()
        {'0': 4, '2': 4}
    """
    choices = get_preset(preset)
    layers = _choose_layers(model, skip, bits)
    chosen = _resolve_bits(bits, list(layers), first_last)
    learning = 0 in chosen.values()
    plan = _resolve_schedule(schedule, learning, total_steps, choices, lambda_w, lambda_beta)
    budget = _resolve_budget(target, list(layers), layer_costs, learning)
    costs = relative_bit_costs(list(layers), layer_costs)
    inputs = _resolve_activations(activation_bits, list(layers), next(iter(quantizable(model))))
    if activation_quantizer is not None and not inputs:
        raise ValueError(f"activation_quantizer={activation_quantizer!r} needs activation_bits, the bits of the inputs")
    chosen_scale = _resolve_scale(scale, quantizer, choices)
    method = activation_quantizer or quantizer_class(quantizer).activation
    built = _build_layers(layers, chosen, inputs, method, choices, quantizer, chosen_scale, scale_rule, learning)
    hooks = _register(model, built)
    settings = Settings(
        preset=choices,
        quantizer=quantizer,
        schedule=plan,
        total_steps=total_steps,
        wave_on=choices.wave_on,
        order=choices.order,
        balance=choices.balance,
        beta_lr=_resolve_beta_lr(beta_lr, choices, plan),
        beta_range=(BETA_MIN, choices.beta_max),
        bit_costs=costs,
        budget=budget,
        skipped=tuple(name for name in quantizable(model) if name not in layers and name not in _aliases(built)),
        described={
            "preset": preset,
            "quantizer": quantizer,
            "scale": chosen_scale,
            "activation_quantizer": method if inputs else None,
            "schedule": plan.name,
            "total_steps": total_steps,
            "target": dict(target) if target else None,
        },
    )
    return WaveQ(model, built, settings, hooks)


# ---------------------------------------------------------------------- arguments


def _choose_layers(model: nn.Module, skip: Iterable[str], bits: Bits) -> dict[str, nn.Module]:
    left_out = (*skip, *(bits.skipped if isinstance(bits, Policy) else ())) if not isinstance(skip, str) else skip
    known = quantizable(model)
    layers = {name: module for name, module in known.items() if name not in resolve_skip(left_out, known)}
    if not layers:
        raise ValueError(f"nothing to quantise: the model has {len(known)} Linear and convolution layers, all skipped")
    for name, module in layers.items():
        if not name:
            raise ValueError("the model itself is a single layer, which has no name; wrap it in nn.Sequential")
        if parametrize.is_parametrized(module, "weight"):
            raise ValueError(
                f"layer {name!r} already has a parametrised weight (attached before, or weight/spectral norm); remove "
                "that first, or skip the layer"
            )
        weight = module.weight
        if isinstance(weight, nn.parameter.UninitializedParameter):
            raise ValueError(f"layer {name!r} has no weights yet (lazy module): run one batch through the model first")
        if not bool(torch.isfinite(weight).all()):  # type: ignore[arg-type]
            raise ValueError(f"the weights of layer {name!r} hold NaN or infinity")
    return layers


def _resolve_bits(bits: Bits, names: list[str], first_last: int | None) -> dict[str, int]:
    """Total bits by layer; 0 where they are learned."""
    if isinstance(bits, Mapping):
        chosen = _from_mapping(bits, names)
    elif bits == "learn":
        chosen = dict.fromkeys(names, 0)
    elif isinstance(bits, str):
        raise ValueError(f'bits must be "learn", a number of bits, or a mapping of layers to bits, not {bits!r}')
    else:
        chosen = dict.fromkeys(names, check_total_bits(bits))
    if first_last is not None:
        check_total_bits(first_last)
        chosen[names[0]] = chosen[names[-1]] = first_last
    return chosen


def _from_mapping(bits: Mapping[str, int], names: list[str]) -> dict[str, int]:
    for name in bits:
        if name not in names:
            raise ValueError(f"bits names {name!r}, which is no layer to quantise{nearest(name, names)}")
    missing = [name for name in names if name not in bits]
    if missing:
        raise ValueError(
            f"bits says nothing about: {', '.join(missing)}. Give their bits, or leave them in floating point with skip="
        )
    return {name: check_total_bits(bits[name], layer=name) for name in names}


def _resolve_activations(bits: int | Mapping[str, int] | None, names: list[str], first: str) -> dict[str, int]:
    if bits is None:
        return {}
    if not isinstance(bits, Mapping):
        check_activation_bits(bits)
        return {name: bits for name in names if name != first}
    for name, value in bits.items():
        if name not in names:
            raise ValueError(f"activation_bits names {name!r}, which is no layer to quantise{nearest(name, names)}")
        check_activation_bits(value)
    return dict(bits)


def _resolve_schedule(
    schedule: str | Profile | None,
    learning: bool,
    total_steps: int | None,
    preset: Preset,
    lambda_w: float | None,
    lambda_beta: float | None,
) -> Schedule:
    kind = schedule or ("three-phase" if learning else "constant")
    if learning and total_steps is None:
        raise ValueError(
            'bits="learn" needs total_steps, the optimiser steps of the whole run: attach(model, total_steps=epochs * '
            "len(loader)). The bits are learned in its second third and frozen after three quarters."
        )
    strength_w = preset.lambda_w if lambda_w is None else _check_strength("lambda_w", lambda_w)
    price = preset.lambda_beta if lambda_beta is None else _check_strength("lambda_beta", lambda_beta)
    price = price if learning else 0.0
    if callable(kind):
        return from_callable(kind, total_steps, learning=learning)
    if kind == "constant":
        return constant(total_steps, lambda_w=strength_w, lambda_beta=price)
    if kind not in ("three-phase", "exponential"):
        known = ("three-phase", "constant", "exponential")
        raise ValueError(f"unknown schedule {kind!r}{nearest(kind, known)}")
    if total_steps is None:
        raise ValueError(f"the {kind} schedule needs total_steps, the optimiser steps of the whole run")
    make = three_phase if kind == "three-phase" else exponential
    return make(total_steps, lambda_w=strength_w, lambda_beta=price)


def _check_strength(name: str, value: float) -> float:
    if not 0.0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number >= 0, not {value!r}")
    return float(value)


def _resolve_budget(
    target: Mapping[str, float] | None, names: list[str], layer_costs: CostTable | None, learning: bool
) -> Any:
    if target is None:
        return None
    if not learning:
        raise ValueError('target drives learned bits; with preset bits there is nothing to drive (use bits="learn")')
    return parse_budget(target, names, layer_costs)


def _resolve_scale(scale: ScaleMode | None, quantizer: str, preset: Preset) -> ScaleMode:
    """The user's wish as it is; else the preset's where the method has it; else the method's own."""
    modes = quantizer_class(quantizer).scale_modes
    return scale or (preset.scale if preset.scale in modes else modes[0])


def _resolve_beta_lr(beta_lr: float | None, preset: Preset, schedule: Schedule) -> float:
    """The rate at which the price alone would take beta down its whole range twice during phase 2."""
    if beta_lr is not None:
        return _check_strength("beta_lr", beta_lr)
    if preset.beta_lr is not None or schedule.fall is None:
        return preset.beta_lr or 0.0
    middle = (schedule.rise + schedule.fall) // 2
    _, price = schedule(middle)
    travel = 2.0 * (preset.beta_max - BETA_MIN)
    return travel / (max(price, 1e-12) * max(1, schedule.fall - schedule.rise))


# ---------------------------------------------------------------------- construction


def _build_layers(
    layers: Mapping[str, nn.Module],
    chosen: Mapping[str, int],
    inputs: Mapping[str, int],
    activation_quantizer: str,
    preset: Preset,
    quantizer: str,
    scale: ScaleMode,
    scale_rule: ScaleRule,
    learning: bool,
) -> dict[str, WaveLayer]:
    """One WaveLayer for each distinct weight: modules that share a parameter share its bits."""
    sharing: dict[int, list[str]] = {}
    for name, module in layers.items():
        sharing.setdefault(id(module.weight), []).append(name)
    built = {}
    for first, *others in sharing.values():
        weight = layers[first].weight
        assert isinstance(weight, nn.Parameter)
        for other in others:
            if chosen[other] != chosen[first]:
                raise ValueError(
                    f"layers {first!r} and {other!r} share one weight but have {chosen[first]} and {chosen[other]} bits"
                )
        state = WaveParametrization(
            make_quantizer(quantizer, weight, total_bits=chosen[first] or None, scale=scale, layer=first),
            beta=float(chosen[first] - 1) if chosen[first] else preset.beta_init,
            total_bits=chosen[first],
            quantized=not learning or preset.quantize_from_phase == 1,
            hysteresis=preset.hysteresis,
            scale_rule=scale_rule,
            snap=preset.snap,
            task_moves_beta=preset.task_moves_beta,
            activation=(
                make_activation_quantizer(activation_quantizer, inputs[first]).to(weight.device)
                if first in inputs
                else None
            ),
            device=weight.device,
        )
        built[first] = WaveLayer(first, tuple(layers[name] for name in (first, *others)), state)
    return built


def _register(model: nn.Module, built: Mapping[str, WaveLayer]) -> list[Any]:
    hooks: list[Any] = [model.register_load_state_dict_pre_hook(accept_plain_root)]
    for layer in built.values():
        for module in layer.modules:
            parametrize.register_parametrization(module, "weight", layer.state)
            hooks.append(module.register_load_state_dict_pre_hook(accept_plain_weight))
            if layer.state.activation_bits is not None:
                hooks.append(module.register_forward_pre_hook(quantize_input))
    device = next(iter(built.values())).state.beta.device
    step, dual = ROOT_STATE
    model.register_buffer(step, torch.zeros((), dtype=torch.int64, device=device))
    model.register_buffer(dual, torch.zeros((), dtype=torch.int64, device=device))
    return hooks


def _aliases(built: Mapping[str, WaveLayer]) -> set[str]:
    """Layers that live under the name of the one whose weight they share (none of them is skipped)."""
    return set(built)
