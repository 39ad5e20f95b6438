"""What a phase brings with it: the bits freeze, and the forward pass begins to use quantised weights."""

from __future__ import annotations

from collections.abc import Sequence

from waveq.method.operands import operands_of, preset_inputs
from waveq.method.settings import Settings, WaveLayer

__all__ = ["enter_phase", "freeze_bits"]


def enter_phase(layers: Sequence[WaveLayer], settings: Settings, phase: int) -> bool:
    """Freeze the bits when phase 3 begins, and quantise the forward pass from the preset's phase on.

    Returns:
        Whether bits were fixed.
    """
    fixed = phase == 3 and freeze_bits(layers, settings)
    _quantize_forward(layers, settings, phase)
    return fixed


def freeze_bits(layers: Sequence[WaveLayer], settings: Settings) -> bool:
    """Fix the bits that are still learned: ceil(beta - hysteresis), within the budget where one is set.

    Returns:
        Whether there were any.
    """
    free = [operand for operand in operands_of(layers) if operand.state.learns]
    if not free:
        return False
    chosen = {operand.name: operand.total_bits for operand in free}
    budget = settings.budget
    if budget is not None:
        running = [layer for layer in layers if layer.state.ran] or layers  # what never ran must not pay for the others
        operands = operands_of(running)
        betas = {operand.name: operand.beta for operand in operands if operand.state.learns}
        fixed = {operand.name: operand.total_bits for operand in operands if not operand.state.learns}
        fixed |= preset_inputs(running) if budget.counts_inputs else {}
        chosen |= budget.round(betas, {name: chosen[name] for name in betas}, fixed)
    for operand in free:
        operand.freeze(chosen[operand.name])
    return True


def _quantize_forward(layers: Sequence[WaveLayer], settings: Settings, phase: int) -> None:
    preset = settings.preset
    if settings.forward == "float":  # the task moves beta through quantised weights, or not at all
        wanted = phase == 2 and preset.task_moves_beta and any(operand.state.learns for operand in operands_of(layers))
    elif phase >= preset.quantize_from_phase:
        wanted = True
    else:
        return
    for layer in layers:
        if layer.state.is_quantized is not wanted:
            layer.state.set_quantized(wanted)
