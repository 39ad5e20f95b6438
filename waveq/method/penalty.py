"""The two terms of eq. 2.2 for all layers: in one pass by a compiled kernel, or layer by layer through autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from waveq._kernels.interface import Engine, WaveRow
from waveq._kernels.recipe import Coordinate, Number
from waveq._kernels.rounding import largest_weights
from waveq._kernels.wave import fused_wave
from waveq._kernels.wave_total import wave_total
from waveq.backends import engine_for
from waveq.functional import sine_penalty
from waveq.method.settings import Settings, WaveLayer

__all__ = ["Strengths", "engine_of", "penalty", "plain_penalty", "wave_betas", "wave_rows"]


_Riding: TypeAlias = tuple[WaveLayer, Tensor, int]  # with R_k of the layer's band, and its place there


@dataclass(frozen=True, slots=True)
class Strengths:
    """What multiplies the terms at one step.

    Attributes:
        wave: lambda_w.
        price: lambda_beta, of one bit of an average layer.
        learning: whether the step lies in phase 2, in which betas move.
    """

    wave: float
    price: float
    learning: bool


def penalty(layers: Sequence[WaveLayer], settings: Settings, strengths: Strengths) -> Tensor:
    """sum_i lambda_w strength_i R_k(w_i, beta_i) + lambda_beta sum_i c_i beta_i, 0-dim float32 at least.

    The weights feel the first sum; beta feels the second, and the first one (without strength_i) where the preset says
    so. Layers that one engine can take go through it together, the others through ``plain_penalty``.
    """
    if strengths.wave == 0.0 and not (strengths.learning and any(layer.state.learns for layer in layers)):
        return layers[0].state.beta.detach().new_zeros(())
    along, alone = _split(layers, strengths)
    terms = [_riding(along, settings, strengths)] if along else []
    fused: dict[tuple[Engine, torch.device], list[WaveLayer]] = {}
    for layer in alone:
        engine = engine_of(layer, settings) if strengths.wave != 0.0 else None
        if engine is None:
            terms.append(plain_penalty(layer, settings, strengths))
        else:
            fused.setdefault((engine, layer.weight.device), []).append(layer)
    terms += [_fused(engine, group, settings, strengths) for (engine, _), group in fused.items()]
    if len(terms) == 1:
        return terms[0]
    home = terms[0].device
    return torch.stack([term.to(home) for term in terms]).sum()


def _split(layers: Sequence[WaveLayer], strengths: Strengths) -> tuple[list[_Riding], list[WaveLayer]]:
    """The layers whose wave came along when their weights were rounded, with it, and the others."""
    along: list[_Riding] = []
    alone: list[WaveLayer] = []
    for layer in layers:
        wave = layer.state.riding_wave(layer.weight) if strengths.wave != 0.0 else None
        if wave is None:
            alone.append(layer)
        else:
            along.append((layer, *wave))
    return along, alone


def _riding(along: Sequence[_Riding], settings: Settings, strengths: Strengths) -> Tensor:
    waves: dict[int, tuple[Tensor, list[float]]] = {}
    for layer, wave, place in along:
        _, factors = waves.setdefault(id(wave), (wave, [0.0] * len(wave)))
        factors[place] = strengths.wave * (layer.state.strength.item() if settings.balance else 1.0)
    moving = [layer for layer, _, _ in along if layer.state.learns and strengths.learning]
    return wave_total(
        [wave for wave, _ in waves.values()],
        [factors for _, factors in waves.values()],
        [layer.state.beta for layer in moving],
        [strengths.price * settings.bit_costs[layer.name] for layer in moving],
    )


def plain_penalty(layer: WaveLayer, settings: Settings, strengths: Strengths) -> Tensor:
    """One layer's terms by the formulas of ``functional``, differentiated by autograd: the readable twin."""
    state = layer.state
    term = state.beta.detach().new_zeros(())
    if strengths.wave != 0.0:
        u = layer.wave_input(settings.wave_on)
        beta = state.wave_beta().detach()
        balance = state.strength if settings.balance else 1.0
        term = strengths.wave * balance * sine_penalty(u, beta, grid=state.grid, order=settings.order)
    if state.learns and strengths.learning:
        term = term + strengths.price * settings.bit_costs[layer.name] * state.beta
        if settings.preset.sine_moves_beta and strengths.wave != 0.0:
            pull = sine_penalty(u.detach(), state.beta, grid=state.grid, order=settings.order)
            # its value is already in the first term: only the gradient is wanted
            term = term + strengths.wave * (pull - pull.detach())
    return term


def engine_of(layer: WaveLayer, settings: Settings) -> Engine | None:
    """The engine for a layer's wave; None where its coordinate is a formula that no kernel has."""
    state = layer.state
    raw = settings.wave_on == "raw"
    if not raw and (state.bits_now == 1 or not state.quantizer.compiles()):
        return None
    return engine_for(layer.weight)


def wave_rows(
    layers: Sequence[WaveLayer], settings: Settings, engine: Engine, betas: Sequence[Number]
) -> list[WaveRow]:
    """The layers as the kernels see them."""
    if settings.wave_on == "raw":
        raw = Coordinate("clip", 1.0, None, -torch.inf, torch.inf)
        return [WaveRow(layer.weight, raw, layer.state.grid) for layer in layers]
    weights = [layer.weight for layer in layers]
    largest = largest_weights(engine, weights, [layer.state.memory for layer in layers])
    return [
        WaveRow(weight, layer.state.quantizer.coordinate_recipe(weight, most, beta), layer.state.grid)
        for layer, weight, most, beta in zip(layers, weights, largest, betas, strict=True)
    ]


def wave_betas(layers: Sequence[WaveLayer], engine: Engine) -> tuple[Tensor, Sequence[Number]]:
    """The betas that set the waves, constant: as a vector, and one by one as the engine likes them."""
    if engine.plain_numbers:
        numbers = [layer.state.wave_number() for layer in layers]
        return torch.tensor(numbers), numbers
    stacked = torch.stack([layer.state.wave_beta().detach() for layer in layers])
    return stacked, stacked.unbind()


def _fused(engine: Engine, layers: Sequence[WaveLayer], settings: Settings, strengths: Strengths) -> Tensor:
    moving = [layer for layer in layers if layer.state.learns and strengths.learning]
    beta, each = wave_betas(layers, engine)
    if settings.preset.sine_moves_beta and moving:
        beta = torch.stack([layer.state.wave_beta() for layer in layers])
    rows = wave_rows(layers, settings, engine, each)
    balances = torch.stack([layer.state.strength for layer in layers]) if settings.balance else torch.ones_like(beta)
    strength = strengths.wave * balances.detach()
    total = fused_wave(engine, rows, beta, strength=strength, beta_strength=strengths.wave, order=settings.order)
    if not moving:
        return total
    learned = torch.stack([layer.state.beta for layer in moving])
    costs = [strengths.price * settings.bit_costs[layer.name] for layer in moving]
    return total + torch.dot(learned, torch.tensor(costs, dtype=learned.dtype, device=learned.device))
