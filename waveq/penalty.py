"""The two terms of eq. 2.2 for all layers: in one pass by a compiled kernel, or layer by layer through autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from waveq._kernels.gang import wave_total
from waveq._kernels.interface import Engine, WaveRow
from waveq._kernels.recipe import Coordinate, Number
from waveq._kernels.wave import fused_wave
from waveq.backends import engine_for
from waveq.functional import sine_penalty
from waveq.settings import Settings, WaveLayer

__all__ = ["Strengths", "engine_of", "penalty", "plain_penalty", "wave_betas", "wave_row"]


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


def _split(layers: Sequence[WaveLayer], strengths: Strengths) -> tuple[list[tuple[WaveLayer, Tensor]], list[WaveLayer]]:
    """The layers whose wave came along when their weights were rounded, with it, and the others."""
    along, alone = [], []
    for layer in layers:
        wave = layer.state.riding_wave(layer.weight) if strengths.wave != 0.0 else None
        if wave is None:
            alone.append(layer)
        else:
            along.append((layer, wave))
    return along, alone


def _riding(along: Sequence[tuple[WaveLayer, Tensor]], settings: Settings, strengths: Strengths) -> Tensor:
    balances = [layer.state.strength.item() if settings.balance else 1.0 for layer, _ in along]
    moving = [layer for layer, _ in along if layer.state.learns and strengths.learning]
    return wave_total(
        [wave for _, wave in along],
        [strengths.wave * balance for balance in balances],
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


def wave_row(layer: WaveLayer, settings: Settings, engine: Engine, beta: Number) -> WaveRow:
    """The layer as the kernels see it."""
    state, weight = layer.state, layer.weight
    if settings.wave_on == "raw":
        coordinate = Coordinate("clip", 1.0, None, -torch.inf, torch.inf)
    else:
        coordinate = state.quantizer.coordinate_recipe(weight, state.memory.largest(weight, engine), beta)
    return WaveRow(weight, coordinate, state.grid)


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
    rows = [wave_row(layer, settings, engine, b) for layer, b in zip(layers, each, strict=True)]
    balances = torch.stack([layer.state.strength for layer in layers]) if settings.balance else torch.ones_like(beta)
    strength = strengths.wave * balances.detach()
    total = fused_wave(engine, rows, beta, strength=strength, beta_strength=strengths.wave, order=settings.order)
    if not moving:
        return total
    learned = torch.stack([layer.state.beta for layer in moving])
    costs = [strengths.price * settings.bit_costs[layer.name] for layer in moving]
    return total + torch.dot(learned, torch.tensor(costs, dtype=learned.dtype, device=learned.device))
