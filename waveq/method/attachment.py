"""attach(model): every weight layer gets a quantised weight, a wave, and bits that are learned or preset."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.utils import parametrize

from waveq._kernels.groups import Groups
from waveq.functional import BETA_MIN, ScaleRule
from waveq.method.arguments import (
    check_learned_inputs,
    resolve_activation_quantizer,
    resolve_activations,
    resolve_beta_lr,
    resolve_bits,
    resolve_bounds,
    resolve_budget,
    resolve_freezing,
    resolve_granularity,
    resolve_quantizer,
    resolve_scale,
    resolve_schedule,
    resolve_signs,
)
from waveq.method.budget import LayerCosts, merge_costs, relative_bit_costs
from waveq.method.checkpoint import ROOT_SEAL, ROOT_STATE, accept_plain_root, accept_plain_weight, drop_root_state
from waveq.method.chosen import ChosenWeight, choose_weights
from waveq.method.cost_arguments import resolve_pair_budget, resolve_pairs
from waveq.method.fixed_input import FixedInput, drop_input, keep_input
from waveq.method.frozen import Frozen, follow_loading
from waveq.method.handle import WaveQ
from waveq.method.input_bits import InputBits
from waveq.method.input_hook import quantize_input
from waveq.method.input_signs import InputSign
from waveq.method.layer_costs import require_costs
from waveq.method.multiplications import Multiplications, require_countable
from waveq.method.operand_names import input_name
from waveq.method.options import Bits, Forward, InputBitsOption, Method, takes_options
from waveq.method.parametrization import WaveParametrization
from waveq.method.presets import get_preset
from waveq.method.recurrent import read_parametrised
from waveq.method.relus import Leaning
from waveq.method.schedules import Profile
from waveq.method.seal import seal_of
from waveq.method.settings import Settings, WaveLayer
from waveq.method.sites import WeightSite, site_names
from waveq.method.start_bits import resolve_start
from waveq.method.wave_layer import KeptOrder, make_plain, shorten
from waveq.method.wrappers import resolve_names, unwrapped
from waveq.quantizers import Quantizer, make_activation_quantizer
from waveq.quantizers.base import Granularity, ScaleMode

__all__ = ["WaveQ", "attach", "attach_method"]

_MOST_INPUT_BITS = 8


@takes_options
def attach(
    model: nn.Module,
    *,
    quantizer: Quantizer | None = Method.quantizer,
    bits: Bits = Method.bits,
    skip: Iterable[str] = Method.skip,
    also: Iterable[str] = Method.also,
    total_steps: int | None = Method.total_steps,
    preset: str = Method.preset,
    schedule: str | Profile | None = Method.schedule,
    scale: ScaleMode | None = Method.scale,
    granularity: Granularity | None = Method.granularity,
    forward: Forward = Method.forward,
    fit_range: bool | None = Method.fit_range,
    freezing: float | Literal["off"] | None = Method.freezing,
    first_last: int | None = Method.first_last,
    activation_bits: InputBitsOption = Method.activation_bits,
    activation_quantizer: str | None = Method.activation_quantizer,
    activation_signed: bool | Mapping[str, bool] | None = Method.activation_signed,
    lambda_w: float | None = Method.lambda_w,
    lambda_beta: float | None = Method.lambda_beta,
    target: Mapping[str, float] | None = Method.target,
    layer_costs: LayerCosts | None = Method.layer_costs,
    start_bits: Mapping[str, float] | float | None = Method.start_bits,
    beta_lr: float | None = Method.beta_lr,
    scale_rule: ScaleRule = Method.scale_rule,
) -> WaveQ:
    """Quantise a model's layers during training, and learn their bits.

    Every Linear, Conv and ConvTranspose layer, and the matrices of MultiheadAttention and of recurrent layers, keep
    their class and get parametrised weights. Whatever else holds one of these weights (a tied embedding) reads it
    quantised too. Build the optimizer from ``model.parameters()`` afterwards: LSQ's steps and other learned scales are
    parameters too (the weights stay the same objects, so that an optimizer from before moves these alone). Add
    ``penalty()`` to the loss, and call ``step()`` after ``optimizer.step()``.

    Args:
        model: any module; changed in place. ``torch.compile`` and DataParallel are looked into; wrap it in
            DistributedDataParallel afterwards. Sharded weights (FSDP) are refused.
        OPTIONS

    Returns:
        The handle.

    Raises:
        ValueError: unknown layer, method, preset or schedule; bits out of range; NaN weights; learned bits without
            total_steps; nothing to quantise; a scale, or learned bits, that the quantiser does not have; a quantiser
            other than the policy's; a model that is attached already. The model is then as it was.
        TypeError: no module, or one inside a wrapper that has taken hold of the weights or sharded them.

    Example:
        >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> wq = attach(net, bits=4)
        >>> loss = net(torch.randn(5, 8)).square().mean() + wq.penalty()
        >>> loss.backward(); wq.step(); wq.bits()
        {'0': 4, '2': 4}
    """
    given = dict(locals())  # the keywords above, which `takes_options` holds to the record's fields
    return attach_method(given.pop("model"), Method(**given))


def attach_method(model: nn.Module, method: Method, *, search: Mapping[str, Any] | None = None) -> WaveQ:
    """``attach`` with the options as a record; ``search`` says where preset bits were found, for the provenance."""
    model = unwrapped(model)
    if isinstance(model, nn.Module):
        method = resolve_names(method, site_names(model))
    preset = get_preset(method.preset)
    quantizer = resolve_quantizer(method.quantizer, method.bits, preset, method.forward)
    choice = choose_weights(model, skip=method.skip, also=method.also, bits=method.bits)
    layers, known, shared = choice.layers, choice.known, choice.shared
    chosen = resolve_bits(method.bits, shared, _ends(known or layers), method.first_last)
    uncalled = [name for name, site in layers.items() if not site.called]
    inputs = resolve_activations(
        method.activation_bits,
        [name for name in layers if name not in uncalled],
        next(iter(known), ""),
        bits=method.bits,
        uncalled=uncalled,
    )
    if method.activation_quantizer is not None and not inputs:
        raise ValueError(
            f"activation_quantizer={method.activation_quantizer!r} needs activation_bits, the bits of the inputs"
        )
    signs = resolve_signs(method.activation_signed, inputs)
    activation = resolve_activation_quantizer(method, quantizer.activation, preset)
    check_learned_inputs(inputs, method.activation_bits, activation, preset)
    learning = 0 in (*chosen.values(), *inputs.values())
    start = resolve_start(method.start_bits, chosen, inputs, preset)
    schedule = resolve_schedule(method, preset, learning=learning)
    require_costs(method.layer_costs)
    costs = merge_costs(method.layer_costs, shared)
    counter = Multiplications()
    pairs = resolve_pairs(
        method.target, chosen, inputs, costs, most_bits=math.ceil(preset.beta_max) + 1, counted=counter
    )
    counts = pairs is not None and pairs.tables is None
    if counts:
        require_countable(layers)
    scale = resolve_scale(method.scale, quantizer, preset, method.forward)
    granularity = resolve_granularity(method.granularity, method.bits, quantizer, scale)
    bounds_from = resolve_bounds(method, scale, schedule)
    freezing = resolve_freezing(method, preset, quantizer, schedule)
    settings = Settings(
        preset=preset,
        quantizer=quantizer.method,
        granularity=granularity,
        schedule=schedule,
        total_steps=method.total_steps,
        wave_on=preset.wave_on,
        order=preset.order,
        balance=preset.balance,
        beta_lr=resolve_beta_lr(method.beta_lr, preset, schedule, travel=start.travel),
        beta_range=(BETA_MIN, preset.beta_max),
        travel=start.travel,
        bit_costs=_plain_costs(chosen, inputs, costs) if pairs is None else {},
        budget=resolve_budget(method.target, chosen, costs, preset, learning=learning)
        if pairs is None or set(method.target or ()) == {"mean_bits"}
        else resolve_pair_budget(method.target, chosen, inputs, pairs, learning=learning),
        pairs=pairs,
        counter=counter if counts else None,
        skipped=tuple(name for name in known if name in choice.skipped),
        forward=method.forward,
        bounds_from=bounds_from,
        freezing=freezing,
        described={
            "preset": preset.name,
            "quantizer": quantizer.method,
            "scale": scale,
            "granularity": granularity,
            "forward": method.forward,
            "fit_range": bounds_from is not None,
            "freezing": None if freezing is None else freezing.exponent,
            "activation_quantizer": activation if inputs else None,
            "schedule": schedule.name,
            "total_steps": method.total_steps,
            "target": dict(method.target) if method.target else None,
            **({} if search is None else {"search": dict(search)}),
        },
        method=method,
    )
    groups, reported = Groups(), list[str]()
    sites = {name: weight.sites for name, weight in choice.weights.items()}
    built = {
        name: WaveLayer(
            name,
            tuple(site.module for site in sites[name]),
            _new_state(
                choice.weights[name],
                chosen[name],
                quantizer=quantizer,
                settings=settings,
                scale=scale,
                granularity=granularity,
                scale_rule=method.scale_rule,
                activation=(activation, inputs[name]) if name in inputs else None,
                start=(start.weights[name], start.inputs.get(name, preset.beta_init)),
                signed=signs.get(name),
                quantized=method.forward == "quantized" and (not learning or preset.quantize_from_phase == 1),
                groups=groups,
                sign=InputSign(name, reported),
            ),
            tuple(site.tensor for site in sites[name]),
        )
        for name in shared
    }
    # nothing above has touched the model: a refused call leaves it as it was
    hooks = _register(model, built, sites, counter if counts else None)
    return WaveQ(model, built, settings, hooks)


def _new_state(
    chosen: ChosenWeight,
    total_bits: int,
    *,
    quantizer: Quantizer,
    settings: Settings,
    scale: ScaleMode,
    granularity: Granularity,
    scale_rule: ScaleRule,
    activation: tuple[str, int] | None,
    start: tuple[float, float],
    signed: bool | None,
    quantized: bool,
    groups: Groups,
    sign: InputSign,
) -> WaveParametrization:
    """The parametrisation of one weight; ``total_bits`` is 0 where bits are learned, from the betas of ``start`` on."""
    weight, preset = chosen.tensor, settings.preset
    beta, input_beta = start
    quantizes, inputs = None, None
    if activation is not None:
        method, bits = activation
        first_bits = bits or min(math.ceil(input_beta) + 1, _MOST_INPUT_BITS)
        quantizes = make_activation_quantizer(method, first_bits).to(weight.device)
        if not bits:
            inputs = InputBits(
                quantizes,
                beta=input_beta,
                hysteresis=preset.hysteresis,
                scale_rule=scale_rule,
                device=weight.device,
            )
    state = WaveParametrization(
        chosen.quantizer(quantizer, total_bits=total_bits or None, scale=scale, granularity=granularity),
        beta=float(total_bits - 1) if total_bits else beta,
        total_bits=total_bits,
        quantized=quantized,
        hysteresis=preset.hysteresis,
        scale_rule=scale_rule,
        snap=preset.snap,
        task_moves_beta=preset.task_moves_beta,
        activation=quantizes,
        device=weight.device,
        groups=groups,
        inputs=inputs,
    )
    if not total_bits and beta < preset.beta_init:
        state.quantizer.follow_bits(weight.detach(), math.ceil(preset.beta_init) + 1, math.ceil(beta) + 1)
    if settings.freezing is not None:
        state.frozen = Frozen(weight)
    state.total_steps = settings.total_steps
    state.quantizes_inputs_always = settings.forward == "float"
    state.sign = sign
    if signed is not None:
        state.set_signed(signed)
        state.sign.told = True
    return state


def _ends(sites: Mapping[str, WeightSite]) -> list[str]:
    """The weights of the first module and of the last one."""
    modules = [site.module for site in sites.values()]
    return [name for name, site in sites.items() if site.module in (modules[0], modules[-1])]


def _plain_costs(chosen: Mapping[str, int], inputs: Mapping[str, int], costs: LayerCosts | None) -> dict[str, float]:
    """c_i of eq. 2.2 where it does not depend on other bits; without costs a bit costs the same everywhere."""
    if costs is not None:
        return relative_bit_costs(list(chosen), costs)
    return dict.fromkeys([*chosen, *(input_name(name) for name, bits in inputs.items() if not bits)], 1.0)


def _register(
    model: nn.Module,
    built: Mapping[str, WaveLayer],
    sites: Mapping[str, Sequence[WeightSite]],
    counter: Multiplications | None,
) -> list[Any]:
    hooks: list[Any] = []
    dropped: dict[nn.Module, FixedInput] = {}
    try:
        _register_all(model, built, sites, hooks, dropped)
        if counter is not None:
            hooks.append(counter)
            counter.begin(model, list(built.values()))
    except BaseException:  # an interruption too: half attached is no state to be in
        for layer in built.values():
            pairs = zip(layer.modules, layer.tensors, strict=True)
            attached = [(module, tensor) for module, tensor in pairs if parametrize.is_parametrized(module, tensor)]
            if attached:
                modules, tensors = zip(*attached, strict=True)
                make_plain(WaveLayer(layer.name, modules, layer.state, tensors), None)
        for hook in hooks:
            hook.remove()
        for module, fixed in dropped.items():
            keep_input(module, fixed)
        drop_root_state(model)
        raise
    return hooks


def _register_all(
    model: nn.Module,
    built: Mapping[str, WaveLayer],
    sites: Mapping[str, Sequence[WeightSite]],
    hooks: list[Any],
    dropped: dict[nn.Module, FixedInput],
) -> None:
    hooks.append(model.register_load_state_dict_pre_hook(accept_plain_root))  # type: ignore[no-untyped-call]
    for layer in built.values():
        for site in sites[layer.name]:
            module, accept = site.module, functools.partial(accept_plain_weight, tensor=site.tensor)
            quantizes_inputs = site.called and layer.state.activation_bits is not None
            if quantizes_inputs and (fixed := drop_input(module)) is not None:
                dropped[module] = fixed  # of an earlier ``finalize``
            hooks.append(KeptOrder(module, site.order))
            with torch.no_grad():  # torch reads the weight; what is learned along with reading must not move yet
                parametrize.register_parametrization(module, site.tensor, layer.state)
            if layer.state.frozen is not None:
                chain: Any = module.parametrizations
                chain[site.tensor].register_load_state_dict_post_hook(follow_loading)
            shorten(module, site.tensor)
            hooks.append(module.register_load_state_dict_pre_hook(accept))  # type: ignore[no-untyped-call]
            if isinstance(module, nn.RNNBase):
                read_parametrised(module)
            if quantizes_inputs:
                hooks.append(module.register_forward_pre_hook(quantize_input, with_kwargs=True))
    for layer in built.values():
        layer.state.reads = 0
        layer.state.kept.clear()
    hooks.append(Leaning(model))
    device = next(iter(built.values())).state.beta.device
    for name in ROOT_STATE:
        model.register_buffer(name, torch.zeros((), dtype=torch.int64, device=device))
    model.register_buffer(ROOT_SEAL, torch.tensor(seal_of(0, 0), device=device))
