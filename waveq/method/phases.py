"""What a phase brings with it: the bits freeze, and the forward pass begins to use quantised weights."""

from __future__ import annotations

from collections.abc import Sequence

from waveq.method.settings import Settings, WaveLayer

__all__ = ["enter_phase", "freeze_bits"]


def enter_phase(layers: Sequence[WaveLayer], settings: Settings, phase: int) -> None:
    """Freeze the bits when phase 3 begins, and quantise the forward pass from the preset's phase on."""
    if phase == 3:
        freeze_bits(layers, settings)
    _quantize_forward(layers, settings, phase)


def freeze_bits(layers: Sequence[WaveLayer], settings: Settings) -> None:
    """Fix the bits that are still learned: ceil(beta - hysteresis), within the budget where one is set."""
    free = [layer for layer in layers if layer.state.learns]
    if not free:
        return
    chosen = {layer.name: layer.total_bits for layer in free}
    if settings.budget is not None:
        running = [layer for layer in layers if layer.state.ran] or layers  # what never ran must not pay for the others
        betas = {layer.name: layer.beta for layer in running if layer.state.learns}
        fixed = {layer.name: layer.total_bits for layer in running if not layer.state.learns}
        chosen |= settings.budget.round(betas, {name: chosen[name] for name in betas}, fixed)
    for layer in free:
        state, total_bits = layer.state, chosen[layer.name]
        state.freeze(total_bits)
        if state.snap:  # otherwise the grid of the learned beta stays, and its range with it
            state.quantizer.restart(layer.weight.detach(), total_bits)


def _quantize_forward(layers: Sequence[WaveLayer], settings: Settings, phase: int) -> None:
    preset = settings.preset
    if settings.forward == "float":  # the task moves beta through quantised weights, or not at all
        wanted = phase == 2 and preset.task_moves_beta and any(layer.state.learns for layer in layers)
    elif phase >= preset.quantize_from_phase:
        wanted = True
    else:
        return
    for layer in layers:
        if layer.state.is_quantized is not wanted:
            layer.state.set_quantized(wanted)
