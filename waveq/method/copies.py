"""Copies of an attached model, averaged ones above all, become plain networks on their grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from waveq.method.checkpoint import ROOT_STATE, accept_plain_root, accept_plain_weight, drop_root_state
from waveq.method.input_hook import quantize_input
from waveq.method.learned_policy import require_finite
from waveq.method.multiplications import CountCalls
from waveq.method.parametrization import WaveParametrization
from waveq.method.relus import Leaning
from waveq.method.settings import WaveLayer
from waveq.method.start import Start
from waveq.method.wave_layer import KeptOrder, make_plain

__all__ = ["finalize_copy"]


@torch.no_grad()
def finalize_copy(model: nn.Module, layers: Mapping[str, WaveLayer], hooks: Sequence[Any], copied: nn.Module) -> None:
    """Round a copy's own weights to the bits of the run, and make it plain; see ``WaveQ.finalize_copy``.

    Args:
        model: the attached one, whose bits are fixed.
        layers: its layers.
        hooks: what ``attach`` put onto it.
        copied: changed in place.
    """
    root = _attached_root(copied)
    names = {id(module): name for name, module in model.named_modules()}
    theirs = {name: _layer_of(root, layer, names) for name, layer in layers.items()}
    require_finite(list(theirs.values()))
    for name, layer in theirs.items():
        layer.state.follow(layers[name].state)
    values = {name: layer.state.quantize(layer.weight.detach()) for name, layer in theirs.items()}
    for name, layer in theirs.items():
        make_plain(layer, values[name])
    for hook in hooks:
        if isinstance(hook, KeptOrder):
            hook.remove_from_copy(names, root)
    Leaning(root).remove()
    for module in root.modules():
        _drop_hooks(module)
    drop_root_state(root)


def _attached_root(copied: Any) -> nn.Module:
    """The copy itself, or what AveragedModel and others hold it in."""
    root = copied
    while isinstance(root, nn.Module) and ROOT_STATE[0] not in root._buffers:
        root = next((root._modules[name] for name in ("module", "_orig_mod") if name in root._modules), None)
    if not isinstance(root, nn.Module):
        raise ValueError(
            f"a copy of the attached model is expected, or AveragedModel with one, not this {type(copied).__name__}: "
            "copy or average the model after attach, and finish each copy once"
        )
    return root


def _layer_of(root: nn.Module, layer: WaveLayer, names: Mapping[int, str]) -> WaveLayer:
    modules: list[nn.Module] = []
    state: Any = None
    for module, tensor in zip(layer.modules, layer.tensors, strict=True):
        name = names[id(module)]
        try:
            found = root.get_submodule(name)
            state = found.parametrizations[tensor][0]  # type: ignore[index]
        except (AttributeError, KeyError):
            state = None
        if not isinstance(state, WaveParametrization) or state is layer.state:
            raise ValueError(f"the copy's layer {name!r} is no copy of the attached model's")
        modules.append(found)
    return WaveLayer(layer.name, tuple(modules), state, layer.tensors)


def _drop_hooks(module: nn.Module) -> None:
    for key, hook in list(module._forward_pre_hooks.items()):
        if hook is quantize_input:
            del module._forward_pre_hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)
    for key, hook in list(module._forward_hooks.items()):
        if isinstance(hook, CountCalls):
            del module._forward_hooks[key]
            module._forward_hooks_with_kwargs.pop(key, None)
    for key, hook in list(module._load_state_dict_pre_hooks.items()):
        function = getattr(hook, "hook", hook)
        if getattr(function, "func", function) in (accept_plain_root, accept_plain_weight):
            del module._load_state_dict_pre_hooks[key]
    for key, hook in list(module._load_state_dict_post_hooks.items()):
        if isinstance(getattr(hook, "__self__", None), Start):
            del module._load_state_dict_post_hooks[key]
