"""The plain formulas of all layers as one graph of ``torch.compile``: what the hand-written kernels compete with.

Rounded weights and penalty come from one call, so that the compiler may fuse them and Python launches nothing layer by
layer. All else of a step is what every form has: the handle's counters and guards, its ``step()``, the layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import waveq
from waveq.method import handle as handles
from waveq.method.penalty import Strengths, plain_penalty

__all__ = ["CompiledForm", "compiled_penalty"]


class CompiledForm:
    """Rounds a model's weights and makes its penalty in a compiled graph; the model's layers then read what it made.

    Args:
        handle: of the model, at a step of a constant schedule.
        mode: of ``torch.compile``; None is its default, "reduce-overhead" replays CUDA graphs.
    """

    def __init__(self, handle: waveq.WaveQ, mode: str | None = None) -> None:
        layers, settings = handle._all, handle.settings
        self._handle = handle
        self._made: list[Tensor] = []
        self._total = torch.zeros(())

        def formulas(strengths: Strengths) -> tuple[list[Tensor], Tensor]:
            rounded = [layer.state.quantize(layer.weight) for layer in layers]
            terms = [plain_penalty(layer, settings, strengths) for layer in layers]
            return rounded, sum(terms[1:], terms[0])

        self._graph = torch.compile(formulas, fullgraph=True, mode=mode)
        self._strengths = _strengths_of(handle)
        for place, layer in enumerate(layers):
            for module in layer.modules:
                owner: Any = type(module)  # parametrize has made a class for every module
                owner.weight = property(lambda _module, place=place: self._made[place])

    def round(self) -> None:
        """Make this step's weights and penalty; before the forward pass.

        Raises:
            ArithmeticError: at the first step, if they are not the plain form's.
        """
        torch.compiler.cudagraph_mark_step_begin()
        first = not self._made
        self._made, self._total = self._graph(self._strengths)
        if first:
            self._compare()

    @torch.no_grad()
    def _compare(self) -> None:
        """Weights beside a threshold may fall to either side of it, a thousandth of a layer and no more."""
        with waveq.use_backend("plain"):
            total = float(self._handle.penalty())
            for layer, made in zip(self._handle._all, self._made, strict=True):
                want = layer.state.quantize(layer.weight)
                share = float(((made - want).abs() > 1e-3 * want.abs().max()).float().mean())
                if share > 1e-3:
                    raise ArithmeticError(f"{share:.2g} of the weights of {layer.name} are not the plain form's")
        if abs(float(self._total) - total) > 1e-3 * abs(total):
            raise ArithmeticError(f"the penalty is {float(self._total):g}, the plain form's {total:g}")

    def penalty(self) -> Tensor:
        """The handle's penalty, 0-dim, with what the graph has made."""
        return _with_total(self._handle, lambda *_: self._total)


def compiled_penalty(handle: waveq.WaveQ) -> Callable[[], Tensor]:
    """The handle's penalty alone, 0-dim, by a graph of all layers' formulas."""
    layers, settings, strengths = handle._all, handle.settings, _strengths_of(handle)

    def formulas(strengths: Strengths) -> Tensor:
        terms = [plain_penalty(layer, settings, strengths) for layer in layers]
        return sum(terms[1:], terms[0])

    graph = torch.compile(formulas, fullgraph=True)
    return lambda: _with_total(handle, lambda *_: graph(strengths))


def _with_total(handle: waveq.WaveQ, total: Callable[..., Tensor]) -> Tensor:
    """``handle.penalty()`` with another way to sum the terms; its counters, guards and records as ever."""
    module: Any = handles
    own, module.penalty = module.penalty, total
    try:
        return handle.penalty()
    finally:
        module.penalty = own


def _strengths_of(handle: waveq.WaveQ) -> Strengths:
    found: list[Strengths] = []

    def look(_layers: Any, _settings: Any, strengths: Strengths, _seen: Any) -> Tensor:
        found.append(strengths)
        return torch.zeros(())

    with torch.no_grad():
        _with_total(handle, look)
    return found[0]
