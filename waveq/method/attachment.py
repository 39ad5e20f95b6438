"""attach(model): every weight layer gets a quantised weight, a wave, and bits that are learned or preset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from waveq._kernels.groups import Groups
from waveq.functional import BETA_MIN, ScaleRule
from waveq.layers import quantizable
from waveq.method.arguments import (
    resolve_activations,
    resolve_beta_lr,
    resolve_bits,
    resolve_bounds,
    resolve_budget,
    resolve_quantizer,
    resolve_scale,
    resolve_schedule,
)
from waveq.method.budget import LayerCosts, merge_costs, relative_bit_costs
from waveq.method.checkpoint import ROOT_SEAL, ROOT_STATE, accept_plain_root, accept_plain_weight
from waveq.method.choose_layers import choose_layers, share_weights
from waveq.method.fixed_input import FixedInput, drop_input, keep_input
from waveq.method.handle import WaveQ
from waveq.method.options import Bits, Forward, Method, takes_options
from waveq.method.parametrization import WaveParametrization, quantize_input
from waveq.method.presets import get_preset
from waveq.method.relus import Leaning
from waveq.method.schedules import Profile
from waveq.method.seal import seal_of
from waveq.method.settings import Settings, WaveLayer
from waveq.method.wave_layer import make_plain, shorten
from waveq.method.wrappers import resolve_names, unwrapped
from waveq.quantizers import Quantizer, make_activation_quantizer, make_quantizer
from waveq.quantizers.base import ScaleMode

__all__ = ["WaveQ", "attach", "attach_method"]


@takes_options
def attach(
    model: nn.Module,
    *,
    quantizer: Quantizer | None = Method.quantizer,
    bits: Bits = Method.bits,
    skip: Iterable[str] = Method.skip,
    total_steps: int | None = Method.total_steps,
    preset: str = Method.preset,
    schedule: str | Profile | None = Method.schedule,
    scale: ScaleMode | None = Method.scale,
    forward: Forward = Method.forward,
    fit_range: bool | None = Method.fit_range,
    first_last: int | None = Method.first_last,
    activation_bits: int | Mapping[str, int] | None = Method.activation_bits,
    activation_quantizer: str | None = Method.activation_quantizer,
    lambda_w: float | None = Method.lambda_w,
    lambda_beta: float | None = Method.lambda_beta,
    target: Mapping[str, float] | None = Method.target,
    layer_costs: LayerCosts | None = Method.layer_costs,
    beta_lr: float | None = Method.beta_lr,
    scale_rule: ScaleRule = Method.scale_rule,
) -> WaveQ:
    """Quantise a model's layers during training, and learn their bits.

    Every Linear, Conv and ConvTranspose layer keeps its class and gets a parametrised weight. Build the optimizer from
    ``model.parameters()`` as always: before or after, for the parameters stay the same objects (a learned scale is a
    new one, which only an optimizer built afterwards sees). Add ``penalty()`` to the loss, and call ``step()`` after
    ``optimizer.step()``.

    Args:
        model: any module; changed in place. ``torch.compile`` and DataParallel are looked into; wrap it in others
            (DistributedDataParallel, FSDP) afterwards.
        OPTIONS

    Returns:
        The handle.

    Raises:
        ValueError: unknown layer, method, preset or schedule; bits out of range; NaN weights; learned bits without
            total_steps; nothing to quantise; a scale, or learned bits, that the quantiser does not have; a quantiser
            other than the policy's; a model that is attached already. The model is then as it was.
        TypeError: no module, or one inside a wrapper that has taken hold of the weights.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> wq = attach(net, bits=4)
        >>> loss = net(torch.randn(5, 8)).square().mean() + wq.penalty()
        >>> loss.backward(); wq.step(); wq.bits()
        {'0': 4, '2': 4}
    """
    given = dict(locals())  # the keywords above, which `takes_options` holds to the record's fields
    return attach_method(given.pop("model"), Method(**given))


def attach_method(model: nn.Module, method: Method) -> WaveQ:
    """``attach`` with the options as a record."""
    model = unwrapped(model)
    if isinstance(model, nn.Module):
        method = resolve_names(method, quantizable(model))
    preset = get_preset(method.preset)
    quantizer = resolve_quantizer(method.quantizer, method.bits)
    layers = choose_layers(model, method.skip, method.bits)
    known = list(quantizable(model))
    shared = share_weights(layers)
    chosen = resolve_bits(method.bits, shared, (known[0], known[-1]), method.first_last)
    learning = 0 in chosen.values()
    schedule = resolve_schedule(method, preset, learning=learning)
    costs = merge_costs(method.layer_costs, shared)
    inputs = resolve_activations(method.activation_bits, list(layers), known[0], bits=method.bits)
    if method.activation_quantizer is not None and not inputs:
        raise ValueError(
            f"activation_quantizer={method.activation_quantizer!r} needs activation_bits, the bits of the inputs"
        )
    activation = method.activation_quantizer or quantizer.activation
    scale = resolve_scale(method.scale, quantizer, preset, method.forward)
    bounds_from = resolve_bounds(method, scale, schedule)
    settings = Settings(
        preset=preset,
        quantizer=quantizer.method,
        schedule=schedule,
        total_steps=method.total_steps,
        wave_on=preset.wave_on,
        order=preset.order,
        balance=preset.balance,
        beta_lr=resolve_beta_lr(method.beta_lr, preset, schedule),
        beta_range=(BETA_MIN, preset.beta_max),
        bit_costs=relative_bit_costs(list(chosen), costs),
        budget=resolve_budget(method.target, chosen, costs, preset),
        skipped=tuple(name for name in known if name not in layers),
        forward=method.forward,
        bounds_from=bounds_from,
        described={
            "preset": preset.name,
            "quantizer": quantizer.method,
            "scale": scale,
            "forward": method.forward,
            "fit_range": bounds_from is not None,
            "activation_quantizer": activation if inputs else None,
            "schedule": schedule.name,
            "total_steps": method.total_steps,
            "target": dict(method.target) if method.target else None,
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
                quantizer=quantizer,
                settings=settings,
                scale=scale,
                scale_rule=method.scale_rule,
                activation=(activation, inputs[name]) if name in inputs else None,
                quantized=method.forward == "quantized" and (not learning or preset.quantize_from_phase == 1),
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
    quantizer: Quantizer,
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
        make_quantizer(quantizer, weight, total_bits=total_bits or None, scale=scale, layer=name),
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
    state.total_steps = settings.total_steps
    state.quantizes_inputs_always = settings.forward == "float"
    return state


def _register(model: nn.Module, built: Mapping[str, WaveLayer]) -> list[Any]:
    hooks: list[Any] = []
    dropped: dict[nn.Module, FixedInput] = {}
    try:
        hooks.append(model.register_load_state_dict_pre_hook(accept_plain_root))  # type: ignore[no-untyped-call]
        for layer in built.values():
            for module in layer.modules:
                if layer.state.activation_bits is not None and (fixed := drop_input(module)) is not None:
                    dropped[module] = fixed  # of an earlier ``finalize``
                parametrize.register_parametrization(module, "weight", layer.state)
                shorten(module)
                hooks.append(module.register_load_state_dict_pre_hook(accept_plain_weight))  # type: ignore[no-untyped-call]
                if layer.state.activation_bits is not None:
                    hooks.append(module.register_forward_pre_hook(quantize_input, with_kwargs=True))
        hooks.append(Leaning(model))
        device = next(iter(built.values())).state.beta.device
        for name in ROOT_STATE:
            model.register_buffer(name, torch.zeros((), dtype=torch.int64, device=device))
        model.register_buffer(ROOT_SEAL, torch.tensor(seal_of(0, 0), device=device))
    except BaseException:  # an interruption too: half attached is no state to be in
        for hook in hooks:
            hook.remove()
        for layer in built.values():
            attached = [module for module in layer.modules if parametrize.is_parametrized(module, "weight")]
            make_plain(WaveLayer(layer.name, tuple(attached), layer.state), None)
        for module, fixed in dropped.items():
            keep_input(module, fixed)
        for name in (*ROOT_STATE, ROOT_SEAL):
            model._buffers.pop(name, None)
        raise
    return hooks
