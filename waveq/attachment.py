"""attach(model): every weight layer gets a quantised weight, a wave, and bits that are learned or preset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from waveq._kernels.groups import Groups
from waveq.arguments import (
    Bits,
    check_scale_rule,
    choose_layers,
    resolve_activations,
    resolve_beta_lr,
    resolve_bits,
    resolve_bounds,
    resolve_budget,
    resolve_quantizer,
    resolve_scale,
    resolve_schedule,
    share_weights,
)
from waveq.budget import CostTable, merge_costs, relative_bit_costs
from waveq.checkpoint import ROOT_STATE, accept_plain_root, accept_plain_weight
from waveq.float_road import Forward, check_forward
from waveq.functional import BETA_MIN, ScaleRule
from waveq.handle import WaveQ
from waveq.layers import quantizable
from waveq.parametrization import FixedActivation, WaveParametrization, quantize_input
from waveq.presets import get_preset
from waveq.quantizers import make_activation_quantizer, make_quantizer, quantizer_class
from waveq.quantizers.base import ScaleMode
from waveq.reading import shorten
from waveq.rectifiers import Leaning
from waveq.schedules import Profile
from waveq.settings import Settings, WaveLayer

__all__ = ["WaveQ", "attach"]


def attach(
    model: nn.Module,
    *,
    quantizer: str | None = None,
    bits: Bits = "learn",
    skip: Iterable[str] = (),
    total_steps: int | None = None,
    preset: str = "recommended",
    schedule: str | Profile | None = None,
    scale: ScaleMode | None = None,
    forward: Forward = "quantized",
    fit_range: bool | None = None,
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
    ``model.parameters()`` as always: before or after, for the parameters stay the same objects (a learned scale is a
    new one, which only an optimizer built afterwards sees). Add ``penalty()`` to the loss, and call ``step()`` after
    ``optimizer.step()``.

    Args:
        model: any module; changed in place.
        quantizer: weight quantiser, see ``waveq.quantizers.quantizer_names()``; None is the one that a Policy given as
            ``bits`` was made with, else "dorefa".
        bits: "learn"; one number of total bits (1 to 9, sign included) for all layers; or a mapping or Policy that
            names every layer that is not skipped.
        skip: layers left in floating point: exact names or patterns ("layer1.*").
        total_steps: optimiser steps of the whole run; needed wherever a schedule depends on it.
        preset: "recommended", "paper" or "released"; None in any argument below means what the preset says.
        schedule: "three-phase" (default when learning), "constant" (default for preset bits), "exponential", "rising"
            (default on the float road of preset "recommended"), or a callable from step to (lambda_w, lambda_beta); a
            ``waveq.schedules.Schedule`` brings its own phases.
        scale: output scale of the levels: "none", "max" or "learned". Methods that learn their own levels (LSQ,
            LQ-Nets, DSQ, TTQ) have "learned" alone and take it by themselves.
        forward: "quantized"; or "float", the float road: the weights of the forward pass stay in floating point, the
            wave draws them to their levels, and ``finalize`` rounds once. Only where the task loss moves beta
            (preset "recommended") phase 2 is quantised. Inputs, which have no wave, are quantised from the
            first step on. ``with wq.rounded():`` shows the rounded network meanwhile.
        fit_range: with ``scale="max"``: choose the range of the levels, once, so that rounding moves the weights least
            (squared error), and clip the weights to it from then on, instead of the levels following the largest
            weight. On the float road that is the default; on the other one the default is not to.
        first_last: total bits of the network's first and last layer, which are then not learned.
        activation_bits: bits of the layers' inputs, 1 to 8: one number for all but the network's first layer, or a
            mapping by layer name. A layer whose first input holds negative values gets a signed grid. A ReLU in an
            ``nn.Sequential`` before a layer with an unsigned one is left out; ``wq.relus_left_out`` says which.
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
            total_steps; nothing to quantise; a scale, or learned bits, that the quantiser does not have; a quantiser
            other than the policy's.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> wq = attach(net, bits=4)
        >>> loss = net(torch.randn(5, 8)).square().mean() + wq.penalty()
        >>> loss.backward(); wq.step(); wq.bits()
        {'0': 4, '2': 4}
    """
    choices = get_preset(preset)
    quantizer = resolve_quantizer(quantizer, bits)
    check_scale_rule(scale_rule)
    road = check_forward(forward)
    layers = choose_layers(model, skip, bits)
    known = list(quantizable(model))
    shared = share_weights(layers)
    chosen = resolve_bits(bits, shared, (known[0], known[-1]), first_last)
    learning = 0 in chosen.values()
    plan = resolve_schedule(
        schedule,
        learning=learning,
        total_steps=total_steps,
        preset=choices,
        forward=road,
        lambda_w=lambda_w,
        lambda_beta=lambda_beta,
    )
    prices = merge_costs(layer_costs, shared)
    inputs = resolve_activations(activation_bits, list(layers), known[0], bits=bits)
    if activation_quantizer is not None and not inputs:
        raise ValueError(f"activation_quantizer={activation_quantizer!r} needs activation_bits, the bits of the inputs")
    chosen_scale = resolve_scale(scale, quantizer, choices, road)
    method = activation_quantizer or quantizer_class(quantizer).activation
    bounds_from = resolve_bounds(fit_range, road, chosen_scale, plan, total_steps)
    settings = Settings(
        preset=choices,
        quantizer=quantizer,
        schedule=plan,
        total_steps=total_steps,
        wave_on=choices.wave_on,
        order=choices.order,
        balance=choices.balance,
        beta_lr=resolve_beta_lr(beta_lr, choices, plan),
        beta_range=(BETA_MIN, choices.beta_max),
        bit_costs=relative_bit_costs(list(chosen), prices),
        budget=resolve_budget(target, chosen, prices, choices),
        skipped=tuple(name for name in known if name not in layers),
        forward=road,
        bounds_from=bounds_from,
        described={
            "preset": preset,
            "quantizer": quantizer,
            "scale": chosen_scale,
            "forward": road,
            "fit_range": bounds_from is not None,
            "activation_quantizer": method if inputs else None,
            "schedule": plan.name,
            "total_steps": total_steps,
            "target": dict(target) if target else None,
        },
    )
    groups = Groups()
    built = {
        name: WaveLayer(
            name,
            tuple(layers[each] for each in names),
            _new_state(
                name,
                layers[name],
                chosen[name],
                settings=settings,
                scale=chosen_scale,
                scale_rule=scale_rule,
                activation=(method, inputs[name]) if name in inputs else None,
                quantized=road == "quantized" and (not learning or choices.quantize_from_phase == 1),
                groups=groups,
            ),
        )
        for name, names in shared.items()
    }
    # nothing above has touched the model: a refused call leaves it as it was
    hooks = _register(model, built)
    return WaveQ(model, built, settings, hooks)


def _new_state(
    name: str,
    module: nn.Module,
    total_bits: int,
    *,
    settings: Settings,
    scale: ScaleMode,
    scale_rule: ScaleRule,
    activation: tuple[str, int] | None,
    quantized: bool,
    groups: Groups,
) -> WaveParametrization:
    """The parametrisation of one weight; ``total_bits`` is 0 where bits are learned."""
    weight, preset = module.weight, settings.preset
    assert isinstance(weight, nn.Parameter)
    state = WaveParametrization(
        make_quantizer(settings.quantizer, weight, total_bits=total_bits or None, scale=scale, layer=name),
        beta=float(total_bits - 1) if total_bits else preset.beta_init,
        total_bits=total_bits,
        quantized=quantized,
        hysteresis=preset.hysteresis,
        scale_rule=scale_rule,
        snap=preset.snap,
        task_moves_beta=preset.task_moves_beta,
        activation=None if activation is None else make_activation_quantizer(*activation).to(weight.device),
        device=weight.device,
        groups=groups,
    )
    state.quantizes_inputs_always = settings.forward == "float"
    return state


def _register(model: nn.Module, built: Mapping[str, WaveLayer]) -> list[Any]:
    hooks: list[Any] = [model.register_load_state_dict_pre_hook(accept_plain_root)]  # type: ignore[no-untyped-call]
    for layer in built.values():
        for module in layer.modules:
            parametrize.register_parametrization(module, "weight", layer.state)
            shorten(module)
            hooks.append(module.register_load_state_dict_pre_hook(accept_plain_weight))  # type: ignore[no-untyped-call]
            if layer.state.activation_bits is not None:
                _drop_fixed_activations(module)
                hooks.append(module.register_forward_pre_hook(quantize_input, with_kwargs=True))
    hooks.append(Leaning(model))
    device = next(iter(built.values())).state.beta.device
    step, dual = ROOT_STATE
    model.register_buffer(step, torch.zeros((), dtype=torch.int64, device=device))
    model.register_buffer(dual, torch.zeros((), dtype=torch.int64, device=device))
    return hooks


def _drop_fixed_activations(module: nn.Module) -> None:
    """Input quantisers of an earlier ``finalize`` make room for the new ones."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, FixedActivation):
            del module._forward_pre_hooks[key]
