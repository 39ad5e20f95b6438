"""The two terms of eq. 2.2 for all layers: in one pass by a compiled kernel, or layer by layer through autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from waveq._kernels.interface import Engine, WaveRow
from waveq._kernels.recipe import Coordinate
from waveq._kernels.wave import fused_wave
from waveq.backends import engine_for
from waveq.functional import sine_penalty
from waveq.settings import Settings, WaveLayer

__all__ = ["Strengths", "engine_of", "penalty", "plain_penalty", "wave_row"]


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
    fused: dict[tuple[Engine, torch.device], list[WaveLayer]] = {}
    plain = []
    for layer in layers:
        engine = engine_of(layer, settings) if strengths.wave != 0.0 else None
        if engine is None:
            plain.append(layer)
        else:
            fused.setdefault((engine, layer.weight.device), []).append(layer)
    terms = [_fused(engine, group, settings, strengths) for (engine, _), group in fused.items()]
    terms += [plain_penalty(layer, settings, strengths) for layer in plain]
    if len(terms) == 1:
        return terms[0]
    home = terms[0].device
    return torch.stack([term.to(home) for term in terms]).sum()


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


def wave_row(layer: WaveLayer, settings: Settings, engine: Engine, beta: Tensor) -> WaveRow:
    """The layer as the kernels see it."""
    state, weight = layer.state, layer.weight
    if settings.wave_on == "raw":
        coordinate = Coordinate("clip", torch.ones_like(beta), None, -torch.inf, torch.inf)
    else:
        coordinate = state.quantizer.coordinate_recipe(weight, state.memory.largest(weight, engine), beta)
    return WaveRow(weight, coordinate, state.grid)


def _fused(engine: Engine, layers: Sequence[WaveLayer], settings: Settings, strengths: Strengths) -> Tensor:
    states = [layer.state for layer in layers]
    moving = [state for state in states if state.learns and strengths.learning]
    pulled = settings.preset.sine_moves_beta and bool(moving)
    betas = [state.wave_beta() for state in states]
    stacked = torch.stack(betas)
    if not pulled:
        stacked = stacked.detach()
    rows = [
        wave_row(layer, settings, engine, beta) for layer, beta in zip(layers, stacked.detach().unbind(), strict=True)
    ]
    strength = strengths.wave * (
        torch.stack([state.strength for state in states]) if settings.balance else torch.ones_like(stacked).detach()
    )
    total = fused_wave(engine, rows, stacked, strength=strength, beta_strength=strengths.wave, order=settings.order)
    if not moving:
        return total
    costs = [settings.bit_costs[layer.name] for layer in layers if layer.state.learns]
    learned = torch.stack([state.beta for state in moving])
    return total + strengths.price * (learned * torch.tensor(costs, dtype=learned.dtype, device=learned.device)).sum()
