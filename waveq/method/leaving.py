"""How a layer becomes a plain one again, with its float weights or with those on its grid."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import parametrize

from waveq.method.parametrization import FixedActivation
from waveq.method.settings import WaveLayer

__all__ = ["make_plain"]


def make_plain(layer: WaveLayer, value: Tensor | None) -> None:
    """Take the parametrisation off every module of a layer.

    Args:
        layer: what ``attach`` made.
        value: the weight from now on, in place; inputs then stay quantised as they are. None leaves float weights and
            float inputs.
    """
    weight, state = layer.weight, layer.state
    for module in layer.modules:
        parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
        _put_weight_first(module)
        if value is not None and state.activation is not None:
            keep = FixedActivation(state.activation.bits, signed=state.signed_now == 1, quantizer=state.activation)
            module.register_forward_pre_hook(keep, with_kwargs=True)
    if value is not None:
        weight.copy_(value)


def _put_weight_first(module: nn.Module) -> None:
    """The order of a plain layer, on which ``state_dict`` keys and optimizers' saved states depend."""
    others = [name for name in module._parameters if name != "weight"]
    for name in others:
        module._parameters[name] = module._parameters.pop(name)
