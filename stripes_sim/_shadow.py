"""A copy of a model to run: in evaluation mode, without hooks and parametrizations, with shared weights or shapes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

__all__ = ["shadow_of", "unparametrize", "unwrapped"]


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside torch.compile's or DataParallel's.

    Raises:
        TypeError: no module.
        ValueError: a TorchScript module, whose operators lie hidden in its own interpreter.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, but it is {type(model).__name__}")
    model = getattr(model, "_orig_mod", model)
    model = model.module if isinstance(model, nn.DataParallel) else model
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"module {name!r}" if name else "the model"
            raise ValueError(
                f"{where} is TorchScript, which cannot be traced: give the nn.Module that it was made from"
            )
    return model


def shadow_of(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy of the modules. On the meta device tensors have shapes and no storage; elsewhere the copy shares the
    model's parameters and has its own buffers, which forward may change.

    Raises:
        ValueError: the model cannot be copied.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        owned = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
        for tensor in owned:
            if isinstance(tensor, torch.Tensor) and id(tensor) not in memo:
                memo[id(tensor)] = _placed(tensor, device)
    try:
        shadow = copy.deepcopy(model, memo)
    except Exception as error:
        raise ValueError(f"{type(model).__name__} cannot be copied: {type(error).__name__}: {error}") from error
    for module in shadow.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            hooks.clear()
    for module in list(shadow.modules()):
        if parametrize.is_parametrized(module):
            for name, steps in list(module.parametrizations.items()):  # type: ignore[union-attr, operator]
                if hasattr(steps, "original"):
                    unparametrize(module, name, steps.original)
    return shadow.eval()


def _placed(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    parameter = isinstance(tensor, nn.Parameter)
    if device.type == "meta":
        place = torch.empty_like(tensor, device="meta", requires_grad=False)
    else:
        place = tensor.detach().to(device) if parameter else tensor.detach().to(device, copy=True)
    return nn.Parameter(place, requires_grad=False) if parameter else place


def unparametrize(module: nn.Module, name: str, original: Any) -> None:
    """Put a parameter in place of a parametrised one: the original, which computes nothing, or its value.

    torch's own removal would take the property from a class that copies of the module share.
    """
    # the property lives on the class that register_parametrization made for this one instance
    del module.parametrizations[name]  # type: ignore[union-attr, operator]
    plain = type(module).__mro__[1]
    if len(module.parametrizations) == 0:  # type: ignore[arg-type]
        module.__class__ = plain
        del module.parametrizations
    elif name in vars(type(module)):
        module.__class__ = type(
            type(module).__name__, (plain,), {k: v for k, v in vars(type(module)).items() if k != name}
        )
    module.register_parameter(name, original)
