"""Quantised inputs of a plain float model's layers, the same for every policy."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from waveq.layers import quantizable
from waveq.method.arguments import resolve_activations
from waveq.method.fixed_input import FixedInput, keep_input

__all__ = ["quantize_inputs"]


def quantize_inputs(
    model: nn.Module, names: tuple[str, ...], bits: int | Mapping[str, int] | None, x: Tensor
) -> dict[str, int]:
    """Put DoReFa's activation quantiser before layers; x through the float model shows whose inputs have a sign.

    Args:
        model: changed in place; run once in evaluation mode where there is something to quantise.
        names: the layers that may be named.
        bits: one number for all of them but the network's first layer, a mapping by name, or None.
        x: a first batch.

    Returns:
        Bits by layer.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))
        >>> quantize_inputs(net, ("0", "2"), 4, torch.randn(5, 3))
        {'2': 4}
    """
    chosen = resolve_activations(bits, list(names), next(iter(quantizable(model))))
    if not chosen:
        return {}
    layers = {name: model.get_submodule(name) for name in chosen}
    signed: dict[str, bool] = {}
    watches = [
        layer.register_forward_pre_hook(functools.partial(_note_sign, signed, name)) for name, layer in layers.items()
    ]
    training = [module for module in model.modules() if module.training]
    with torch.no_grad():
        model.eval()(x)
    for module in training:
        module.training = True
    for watch in watches:
        watch.remove()
    for name, layer in layers.items():
        keep_input(layer, FixedInput(chosen[name], signed=signed.get(name, False)))
    return chosen


def _note_sign(signed: dict[str, bool], name: str, _module: nn.Module, args: tuple[Any, ...]) -> None:
    signed.setdefault(name, bool((args[0] < 0).any()))
