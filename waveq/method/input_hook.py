"""What quantises a layer's input: a hook before its forward pass."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from waveq.method.input_signs import sign_of
from waveq.method.parametrization import parametrization_of

__all__ = ["quantize_input"]

_Args: TypeAlias = tuple[Any, ...]
_Kwargs: TypeAlias = dict[str, Any]


def quantize_input(module: nn.Module, args: _Args, kwargs: _Kwargs) -> tuple[_Args, _Kwargs] | None:
    """Forward pre-hook, with keywords: quantise a layer's input where its parametrisation says so."""
    state = parametrization_of(module)
    if state.activation is None or not (state.quantizes_inputs or state.observer):
        return None
    x = args[0] if args else kwargs["input"]
    if x.is_meta:
        return None
    if not torch.compiler.is_compiling():
        state.__dict__["input_calls"] += 1
    if state.observer is not None:
        state.observer(x.detach())
        return None
    if (unrectified := state.unrectified) is not None:
        state.unrectified = None
        if x is unrectified:
            return _with_input(state.activation.rectified(x), args, kwargs)
    # TransformerEncoder leaves padding out in evaluation
    signed = sign_of(state, x.values() if x.is_nested else x)
    quantizer = state.activation if state.inputs is None else state.inputs
    return _with_input(quantizer(x, signed=signed), args, kwargs)


def _with_input(x: Tensor, args: _Args, kwargs: _Kwargs) -> tuple[_Args, _Kwargs]:
    return ((x, *args[1:]), kwargs) if args else (args, {**kwargs, "input": x})
