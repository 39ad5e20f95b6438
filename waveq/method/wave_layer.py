"""What a layer is while it is attached: the quick way to its quantised weight, and how it becomes a plain one again.

``module.weight`` of a parametrised layer runs through a property, a container module and the parametrisation, each with
its own searches: some forty Python calls, for a tensor that was computed when the first layer was read. This property
asks the parametrisation itself; whatever is out of the ordinary takes torch's own way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from waveq.method.fixed_input import FixedInput, keep_input
from waveq.method.input_hook import quantize_input
from waveq.method.parametrization import WaveParametrization
from waveq.method.recurrent import keep_plain_weights
from waveq.method.settings import WaveLayer

__all__ = ["KeptOrder", "make_plain", "shorten"]


def shorten(module: nn.Module, tensor: str = "weight") -> None:
    """Put the quick property before torch's own; the class is the layer's own, and goes with the parametrisation."""
    owner: Any = type(module)
    torchs: property = getattr(owner, tensor)
    long_way: Any = torchs.fget  # taken out here: torch.compile in torch 2.6 cannot look into a property

    def read(self: Any) -> Tensor:
        if torch.compiler.is_compiling() or parametrize._cache_enabled:
            return long_way(self)  # type: ignore[no-any-return]
        chain = self._modules["parametrizations"]._modules[tensor]
        state = chain._modules["0"]
        if type(state) is not WaveParametrization or _has_company(chain, state):
            return long_way(self)  # type: ignore[no-any-return]
        found = state.read(chain._parameters["original"])
        return long_way(self) if found is None else found

    setattr(owner, tensor, property(read, torchs.fset))


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
    for module, tensor in zip(layer.modules, layer.tensors, strict=True):
        hooked = quantize_input in module._forward_pre_hooks.values()
        _take_own_class(module)
        parametrize.remove_parametrizations(module, tensor, leave_parametrized=False)
        if value is not None and state.activation is not None and hooked:
            signed = state.signed_now == 1
            keep_input(module, FixedInput(state.activation.bits, signed=signed, quantizer=state.activation))
    if value is not None:
        weight.copy_(value)


class KeptOrder:
    """The order of a plain module's parameters, on which ``state_dict`` keys and optimizers' saved states depend.

    Args:
        module: any.
        names: its parameters in order.
    """

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self._module, self._names = module, tuple(names)

    def remove(self) -> None:
        """Put them back, once all parametrisations are off."""
        kept = self._module._parameters
        for name in [
            *(each for each in self._names if each in kept),
            *(each for each in kept if each not in self._names),
        ]:
            kept[name] = kept.pop(name)
        if isinstance(self._module, nn.RNNBase):
            keep_plain_weights(self._module)

    def remove_from_copy(self, named: Mapping[int, str], root: nn.Module) -> None:
        """The same for the module's copy.

        Args:
            named: the names of the originals, by ``id``.
            root: the copy of the whole model.
        """
        KeptOrder(root.get_submodule(named[id(self._module)]), self._names).remove()


def _take_own_class(module: nn.Module) -> None:
    """Torch takes the property off the class, which copies of the module share."""
    shared: Any = type(module)
    own = {name: value for name, value in vars(shared).items() if name not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, own)
