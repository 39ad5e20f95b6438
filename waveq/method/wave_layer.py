"""What a layer is while it is attached: the quick way to its quantised weight, and how it becomes a plain one again.

``module.weight`` of a parametrised layer runs through a property, a container module and the parametrisation, each with
its own searches: some forty Python calls, for a tensor that was computed when the first layer was read. This property
asks the parametrisation itself; whatever is out of the ordinary takes torch's own way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from waveq.method.fixed_input import FixedInput, keep_input
from waveq.method.parametrization import WaveParametrization
from waveq.method.settings import WaveLayer

__all__ = ["make_plain", "shorten"]


def shorten(module: nn.Module) -> None:
    """Put the quick property before torch's own; the class is the layer's own, and goes with the parametrisation."""
    owner: Any = type(module)
    torchs: property = owner.weight
    long_way: Any = torchs.fget  # taken out here: torch.compile in torch 2.6 cannot look into a property

    def read(self: Any) -> Tensor:
        if torch.compiler.is_compiling() or parametrize._cache_enabled:
            return long_way(self)  # type: ignore[no-any-return]
        chain = self._modules["parametrizations"]._modules["weight"]
        state = chain._modules["0"]
        if type(state) is not WaveParametrization or _has_company(chain, state):
            return long_way(self)  # type: ignore[no-any-return]
        found = state.read(chain._parameters["original"])
        return long_way(self) if found is None else found

    owner.weight = property(read, torchs.fset)


def _has_company(chain: nn.Module, state: nn.Module) -> bool:
    """Whether somebody stacked another parametrisation on top, or hooked into one."""
    return len(chain._modules) > 1 or bool(
        chain._forward_hooks or chain._forward_pre_hooks or state._forward_hooks or state._forward_pre_hooks
    )


def make_plain(layer: WaveLayer, value: Tensor | None) -> None:
    """Take the parametrisation off every module of a layer.

    Args:
        layer: what ``attach`` made.
        value: the weight from now on, in place; inputs then stay quantised as they are. None leaves float weights and
            float inputs.
    """
    if not layer.modules:
        return
    weight, state = layer.weight, layer.state
    for module in layer.modules:
        _take_own_class(module)
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        _put_weight_first(module)
        if value is not None and state.activation is not None:
            signed = state.signed_now == 1
            keep_input(module, FixedInput(state.activation.bits, signed=signed, quantizer=state.activation))
    if value is not None:
        weight.copy_(value)


def _put_weight_first(module: nn.Module) -> None:
    """The order of a plain layer, on which ``state_dict`` keys and optimizers' saved states depend."""
    others = [name for name in module._parameters if name != "weight"]
    for name in others:
        module._parameters[name] = module._parameters.pop(name)


def _take_own_class(module: nn.Module) -> None:
    """Torch takes the property off the class, which copies of the module share."""
    shared: Any = type(module)
    own = {name: value for name, value in vars(shared).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, own)
