"""What input quantisers learned, as plain data: it travels in a policy and goes back onto plain layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from waveq._names import nearest
from waveq.layers import quantizable
from waveq.method.parametrization import FixedActivation, WaveParametrization
from waveq.policy import Policy
from waveq.quantizers import ActivationQuantizer, make_activation_quantizer

__all__ = ["INPUTS", "describe_inputs", "restore_inputs"]

INPUTS = "inputs"  # the key in a policy's provenance


def describe_inputs(states: Mapping[str, WaveParametrization]) -> dict[str, dict[str, Any]]:
    """Method, sign and learned values of each layer's input quantiser, as JSON values; layers without one are left out.

    Args:
        states: the parametrisation of each layer's weight.
    """
    return {
        name: {
            "method": state.activation.method,
            "signed": state.signed_now == 1,
            "learned": {key: value.tolist() for key, value in state.activation.state_dict().items()},
        }
        for name, state in states.items()
        if state.activation is not None
    }


def restore_inputs(model: nn.Module, policy: Policy) -> None:
    """Put the input quantisers of a policy onto a plain model: the one that ``finalize`` left, loaded from a file.

    ``finalize`` leaves quantised weights in the ``state_dict`` and input quantisers beside it. A plain model that has
    loaded that ``state_dict`` computes the same once this has been called. Layers that share a weight share the
    quantiser's values.

    Args:
        model: changed in place.
        policy: from ``wq.policy()``, or ``Policy.load``.

    Raises:
        ValueError: a layer that the model does not have, or a policy that does not say what its inputs' quantisers
            learned.

    Example:
        >>> from waveq import attach
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> wq = attach(net, quantizer="lsq", bits=3, activation_bits=4)
        >>> y = net(torch.randn(8, 4)); policy = wq.policy(); wq.finalize()
        >>> twin = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> _ = twin.load_state_dict(net.state_dict()); restore_inputs(twin, policy)
        >>> x = torch.randn(8, 4); bool((twin(x) == net(x)).all())
        True
    """
    layers = quantizable(model)
    told = policy.provenance.get(INPUTS)
    told = told if isinstance(told, Mapping) else {}
    hooks = {}
    for name, bits in policy.activation_bits.items():
        if name not in layers:
            raise ValueError(f"the policy names {name!r}, which the model does not have{nearest(name, layers)}")
        if name not in told:
            raise ValueError(f"the policy's provenance does not say how the inputs of layer {name!r} are quantised")
        hooks[name] = _build(name, bits, told[name])
    for name, hook in hooks.items():
        for module in layers.values():
            if module.weight is layers[name].weight:
                module.register_forward_pre_hook(hook)


def _build(name: str, bits: int, described: Any) -> FixedActivation:
    try:
        quantizer = make_activation_quantizer(described["method"], bits)
        _fill(quantizer, described["learned"])
        return FixedActivation(bits, signed=bool(described["signed"]), quantizer=quantizer)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"what the policy says of the inputs of layer {name!r} cannot be used: {error}") from None


def _fill(quantizer: ActivationQuantizer, learned: Mapping[str, Any]) -> None:
    now = quantizer.state_dict()
    quantizer.load_state_dict(
        {key: torch.tensor(value, dtype=now[key].dtype) if key in now else value for key, value in learned.items()}
    )
