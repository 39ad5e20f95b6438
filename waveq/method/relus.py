"""ReLUs that are not run, because the quantiser behind them clips at zero anyway.

Inside an ``nn.Sequential`` what a module puts out goes to the next module and nowhere else, so that a ReLU before a
layer whose inputs are quantised can be left out. The Sequential gets a class of its own that decides at every call; the
ReLU itself stays as it is: called by anybody else it is a ReLU.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as torch_modules

from waveq.layers import QUANTIZABLE
from waveq.method.input_hook import quantize_input
from waveq.method.parametrization import WaveParametrization, parametrization_of

__all__ = ["LeanSequential", "Leaning", "relus_left_out"]

_RECTIFIERS = (nn.ReLU, nn.ReLU6)
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)  # the largest of clipped values is the clipped largest one
_BETWEEN = (nn.Identity, nn.Flatten, *_POOLS)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm)
_BEFORE = (*QUANTIZABLE, *_NORMS)  # their output is a new tensor, which only the ReLU sees


class LeanSequential(nn.Sequential):
    """An ``nn.Sequential`` that leaves out each ReLU whose work the layer behind it does; see ``relus_left_out``.

    It holds no plan: slices, copies and chains that were changed decide for themselves.
    """

    def forward(self, input: Any) -> Any:  # noqa: A002  # nn.Sequential's own name for it
        """What ``nn.Sequential`` computes, to the last bit."""
        if torch.compiler.is_compiling() or _has_global_hooks():
            return super().forward(input)  # type: ignore[no-untyped-call]
        modules, x = [module for _, module in _chain(self)], input
        owing: WaveParametrization | None = None
        for place, module in enumerate(modules):
            if owing is not None and isinstance(module, QUANTIZABLE):
                owing.unrectified, owing = x, None
            elif type(module) in _RECTIFIERS and (behind := _layer_behind(modules, place)) is not None:
                state = parametrization_of(modules[behind])
                if state.rectifies(module, x):
                    owing = state
                    continue
            x = module(x)
        return x


class Leaning:
    """The Sequentials of a model that leave ReLUs out, until ``remove``.

    Args:
        model: with its layers' hooks in place; the classes of its Sequentials are changed.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        for module in list(model.modules()):
            if not isinstance(module, LeanSequential) and _is_chain(module) and any(_pairs(module)):
                module.__class__ = _lean_class(type(module))  # type: ignore[arg-type]  # mypy: no Hashable

    def remove(self) -> None:
        """Give the Sequentials their own classes back."""
        for module in self._model.modules():
            if isinstance(module, LeanSequential):
                order = type(module).__mro__
                module.__class__ = order[order.index(LeanSequential) + 1]


def relus_left_out(model: nn.Module) -> dict[str, str]:
    """The ReLUs that are left out, each with the layer that does its work, as ``named_modules()`` has their names.

    A ReLU, or ReLU6, is left out of a Sequential (or of Sequentials within one another) where it follows a convolution,
    a linear layer or a normalisation, and is followed, with nothing but Identity, Flatten and max-pooling between, by a
    layer whose input quantiser does the same work; where none of these has hooks of the user's; and from the step after
    the one in which the inputs were first seen to have no sign.

    Args:
        model: attached.

    Example:
        >>> from waveq import attach
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> wq = attach(net, bits=4, activation_bits=4, activation_quantizer="range")
        >>> loss = net(torch.randn(8, 4)).sum() + wq.penalty(); wq.relus_left_out
        {}
        >>> loss.backward(); wq.step(); wq.relus_left_out
        {'1': '2'}
    """
    found: dict[str, str] = {}
    for prefix, module in model.named_modules():
        if isinstance(module, LeanSequential):
            for relu, layer, rectifier, state in _pairs(module, f"{prefix}." if prefix else ""):
                if state.may_rectify(rectifier):
                    found[relu] = layer
    return found


@functools.cache
def _lean_class(original: type[nn.Module]) -> type[nn.Module]:
    """The same class with our ``forward``; ``isinstance`` finds no difference."""
    if original is nn.Sequential:
        return LeanSequential
    return type(f"Lean{original.__name__}", (LeanSequential, original), {"__module__": original.__module__})


def _is_chain(module: nn.Module) -> bool:
    """Whether its ``forward`` is nn.Sequential's own, or ours."""
    if not isinstance(module, nn.Sequential) or "forward" in module.__dict__:
        return False
    kind = type(module)
    return kind.forward in (nn.Sequential.forward, LeanSequential.forward) and kind.__iter__ is nn.Sequential.__iter__


def _chain(sequential: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Names and modules in the order of their calls; Sequentials inside that do nothing else are taken apart."""
    for name, module in sequential._modules.items():
        assert module is not None  # nn.Sequential cannot call it either
        plain = type(module).__call__ is nn.Module.__call__ and module._compiled_call_impl is None
        if plain and _is_chain(module) and not _has_hooks(module):
            yield from _chain(module, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", module


def _pairs(sequential: nn.Module, prefix: str = "") -> Iterator[tuple[str, str, nn.Module, WaveParametrization]]:
    """Names of a ReLU and of the layer that may do its work, the ReLU, and that layer's parametrisation."""
    steps = list(_chain(sequential, prefix))
    modules = [module for _, module in steps]
    for place, (name, module) in enumerate(steps):
        if type(module) in _RECTIFIERS and (behind := _layer_behind(modules, place)) is not None:
            yield name, steps[behind][0], module, parametrization_of(modules[behind])


def _layer_behind(modules: Sequence[nn.Module], place: int) -> int | None:
    """Where the layer is that quantises the output of the ReLU at ``place``; None where anything speaks against it."""
    if place == 0 or not _makes_new_tensor(modules[place - 1]) or _has_hooks(modules[place]):
        return None
    for later in range(place + 1, len(modules)):
        module = modules[later]
        if isinstance(module, QUANTIZABLE):
            ours = list(module._forward_pre_hooks.values()) == [quantize_input]  # others would see what no ReLU saw
            return later if ours else None
        if type(module) not in _BETWEEN or _has_hooks(module) or getattr(module, "return_indices", False):
            return None
    return None


def _makes_new_tensor(module: nn.Module) -> bool:
    """Whether nobody but the next module sees the output: an addition in place, say, would change what was saved."""
    owners = [kind for kind in _BEFORE if isinstance(module, kind)]
    own = any(type(module).forward is kind.forward for kind in owners)
    return own and not module._forward_hooks and "forward" not in module.__dict__


def _has_global_hooks() -> bool:
    """Whether somebody has hooked every module of the process; torch's own question for it is newer than 2.6."""
    forward = torch_modules._global_forward_hooks or torch_modules._global_forward_pre_hooks
    return bool(forward or torch_modules._global_backward_hooks or torch_modules._global_backward_pre_hooks)


def _has_hooks(module: nn.Module) -> bool:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return any(hooks) or "forward" in module.__dict__
