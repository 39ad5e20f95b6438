"""The two terms of eq. 2.2 for all layers: in one pass by a compiled kernel, or layer by layer through autograd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from waveq._kernels.backends import engine_for
from waveq._kernels.engine import Engine
from waveq._kernels.groups import alike
from waveq._kernels.rounding import Sines, waves
from waveq._kernels.sharded import gathered, is_sharded
from waveq.functional import power_of_two, sine_penalty
from waveq.method.operands import Operand, operands_of
from waveq.method.settings import Settings, WaveLayer
from waveq.method.sharding import by_shards

__all__ = ["UNMEASURED", "SeenWaves", "Strengths", "engine_of", "kinds_of", "penalty", "plain_penalty"]

UNMEASURED = 1.0  # a layer's strength before the first look at its gradient; until then no wave moves it

SeenWaves: TypeAlias = list[tuple[Sequence[WaveLayer | None], Tensor]]
"""Mean sin^2 (R0) of some layers at a time, (n,), constant; None stands for a layer that is not asked for."""

_Waves: TypeAlias = tuple[Sines, list[WaveLayer | None]]


@dataclass(frozen=True, slots=True)
class Strengths:
    """What multiplies the terms at one step.

    Attributes:
        wave: lambda_w.
        price: lambda_beta, of one bit of an average weight or input.
        learning: whether the step lies in phase 2, in which betas move.
        bit_costs: what one bit of each costs, with mean 1.
    """

    wave: float
    price: float
    learning: bool
    bit_costs: Mapping[str, float]


def penalty(
    layers: Sequence[WaveLayer], settings: Settings, strengths: Strengths, seen: SeenWaves | None = None
) -> Tensor:
    """sum_i lambda_w strength_i R_k(w_i, beta_i) + lambda_beta sum_i c_i beta_i, 0-dim float32 at least.

    The weights feel the first sum; beta feels the second, and the first one (without strength_i) where the preset says
    so. Inputs whose bits are learned have a beta in the second sum alone. The waves that were computed when the weights
    were rounded are taken as they are, the others that an engine can take go through it together, the rest through
    ``plain_penalty``.

    Args:
        layers: what ``attach`` made.
        settings: what it decided.
        strengths: at this step.
        seen: takes the mean sin^2 of the layers that an engine computed, where somebody wants it.
    """
    operands = operands_of(layers) if strengths.learning else ()
    if strengths.wave == 0.0 and not any(operand.state.learns for operand in operands):
        return layers[0].state.beta.detach().new_zeros(())
    if is_sharded(layers[0].weight):
        return _by_shards(layers, settings, strengths, operands)
    compiled, plain = _split(layers, settings) if strengths.wave != 0.0 else ([], list(layers))
    joined = _joined(compiled)
    if seen is not None:
        seen += [(those, sines.by_weights.detach()) for sines, those in joined]
    terms = [_waves(sines, those, settings, strengths) for sines, those in joined]
    terms += [plain_penalty(layer, settings, strengths) for layer in plain]
    if strengths.learning:
        paid = {layer.name for layer in plain}
        moving = [each for each in operands if each.state.bits_now == 0 and each.name not in paid]
        terms += [_price(moving, strengths)] if moving else []
    if len(terms) == 1:
        return terms[0]
    home = terms[0].device
    return sum((term.to(home) for term in terms[1:]), terms[0])


def _by_shards(
    layers: Sequence[WaveLayer], settings: Settings, strengths: Strengths, operands: Sequence[Operand]
) -> Tensor:
    """The same of sharded weights, one reduction over the processes for all layers."""
    terms = [by_shards(layer, partial(plain_penalty, layer, settings, strengths)) for layer in layers]
    total = gathered(sum(terms[1:], terms[0]))
    names = {layer.name for layer in layers}
    moving = [each for each in operands if each.state.bits_now == 0 and each.name not in names]
    return total + _price(moving, strengths) if moving else total


def _split(layers: Sequence[WaveLayer], settings: Settings) -> tuple[list[_Waves], list[WaveLayer]]:
    """The waves that engines have computed or can, each with its layers (None for a wave that is not asked for)."""
    riding: dict[int, _Waves] = {}
    alone: dict[Engine, list[WaveLayer]] = {}
    plain: list[WaveLayer] = []
    for layer in layers:
        found = layer.state.riding(layer.weight) if settings.wave_on != "raw" else None
        if found is not None:
            sines, place = found
            riding.setdefault(id(sines), (sines, [None] * len(sines.at)))[1][place] = layer
            continue
        engine = engine_of(layer, settings)
        if engine is None:
            plain.append(layer)
        else:
            alone.setdefault(engine, []).append(layer)
    made = list(riding.values())
    for engine, theirs in alone.items():
        made += waves_of(engine, theirs, settings)
    return made, plain


def waves_of(engine: Engine, layers: Sequence[WaveLayer], settings: Settings) -> list[_Waves]:
    """The waves of layers that nobody rounds."""
    raw = settings.wave_on == "raw"
    made: list[_Waves] = []
    for kind in kinds_of(layers):
        rest: list[WaveLayer | None] = list(kind)
        for sines in waves([layer.state for layer in kind], [layer.weight for layer in kind], engine, raw=raw):
            made.append((sines, rest[: len(sines.at)]))
            del rest[: len(sines.at)]
    return made


def kinds_of(layers: Sequence[WaveLayer]) -> list[list[WaveLayer]]:
    """Layers that one call can take together."""
    kinds = alike([layer.state for layer in layers], [layer.weight for layer in layers])
    return [[layers[place] for place in places] for places in kinds]


def _joined(parts: Sequence[_Waves]) -> list[_Waves]:
    """One vector for each device and dtype."""
    kinds: dict[object, list[_Waves]] = {}
    for part in parts:
        kinds.setdefault((part[0].at.device, part[0].by_weights.dtype), []).append(part)
    joined: list[_Waves] = []
    for those in kinds.values():
        columns = zip(*[sines for sines, _ in those], strict=True)
        sines = those[0][0] if len(those) == 1 else Sines(*[torch.cat(column) for column in columns])
        joined.append((sines, [layer for _, layers in those for layer in layers]))
    return joined


def _waves(sines: Sines, layers: Sequence[WaveLayer | None], settings: Settings, strengths: Strengths) -> Tensor:
    """sum_i lambda_w strength_i R_k of some layers, and beta's own gradient where the preset has it."""
    strength, by_weights = power_of_two(-settings.order * sines.at) * strengths.wave, sines.by_weights
    if settings.balance:
        one = sines.at.new_ones(())
        held = [one if layer is None else layer.kept("strength") for layer in layers]
        balance = torch.stack(held)
        strength, by_weights = strength * balance, _once_measured(by_weights, balance)
    counted = sines.at.new_tensor([layer is not None for layer in layers]) if None in layers else None
    strength = strength if counted is None else strength * counted
    term = torch.dot(by_weights, strength.to(by_weights.dtype))
    if settings.preset.sine_moves_beta and strengths.learning:
        moving = [
            at if layer is None or not layer.state.learns else layer.state.beta
            for at, layer in zip(sines.at, layers, strict=True)
        ]
        damping = power_of_two(-settings.order * torch.stack(moving)) * strengths.wave
        pull = ((damping if counted is None else damping * counted) * sines.by_beta).sum()
        # its value is already in the first term: only the gradient is wanted
        term = term + (pull - pull.detach())
    return term


def _once_measured(wave: Tensor, strength: Tensor) -> Tensor:
    """The same values, without gradient where nobody has measured: any fixed strength could throw weights far off."""
    return torch.where(strength == UNMEASURED, wave.detach(), wave)


def _price(operands: Sequence[Operand], strengths: Strengths) -> Tensor:
    """lambda_beta sum_i c_i beta_i."""
    betas = torch.stack([operand.kept("beta") for operand in operands])
    return torch.dot(betas, betas.new_tensor([strengths.price * strengths.bit_costs[each.name] for each in operands]))


def plain_penalty(layer: WaveLayer, settings: Settings, strengths: Strengths) -> Tensor:
    """One layer's terms by the formulas of ``functional``, differentiated by autograd: the readable twin."""
    state = layer.state
    term = state.beta.detach().new_zeros(())
    if strengths.wave != 0.0:
        u = layer.wave_input(settings.wave_on)
        beta = state.wave_beta().detach()
        wave = sine_penalty(u, beta, grid=state.grid, order=settings.order)
        if settings.balance:
            wave = _once_measured(wave, state.strength) * state.strength
        term = strengths.wave * wave
    if state.learns and strengths.learning:
        term = term + strengths.price * strengths.bit_costs[layer.name] * state.beta
        if settings.preset.sine_moves_beta and strengths.wave != 0.0:
            pull = sine_penalty(u.detach(), state.beta, grid=state.grid, order=settings.order)
            # its value is already in the first term: only the gradient is wanted
            term = term + strengths.wave * (pull - pull.detach())
    return term


def engine_of(layer: WaveLayer, settings: Settings) -> Engine | None:
    """The engine for a layer's wave; None where its coordinate is a formula that no kernel has."""
    state = layer.state
    if settings.wave_on != "raw" and (state.bits_now == 1 or not state.quantizer.compiles("coordinate")):
        return None
    return engine_for(layer.weight)
