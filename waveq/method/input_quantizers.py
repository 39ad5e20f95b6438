"""What input quantisers learned, as plain data: it travels in a policy and goes back onto plain layers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from waveq._names import nearest
from waveq.layers import quantizable
from waveq.method.fixed_input import FIXED_INPUT, FixedInput, keep_input
from waveq.method.notes import read_note
from waveq.method.parametrization import WaveParametrization
from waveq.method.wrappers import names_of, renamed, unwrapped
from waveq.policy import Policy
from waveq.quantizers import ActivationQuantizer, make_activation_quantizer

__all__ = ["INPUTS", "describe_inputs", "restore_inputs"]

INPUTS = "inputs"  # the key in a policy's provenance


def describe_inputs(states: Mapping[str, WaveParametrization]) -> dict[str, dict[str, Any]]:
    """Method, sign and learned values of each layer's input quantiser, as JSON values; layers without one are left out.

    Where bits were learned, their real number (total bits less one) as well.

    Args:
        states: the parametrisation of each layer's weight.
    """
    return {
        name: {
            "method": state.activation.method,
            "signed": state.signed_now == 1,
            "learned": {key: value.tolist() for key, value in state.activation.state_dict().items()},
            **({} if state.inputs is None else {"beta": float(state.inputs.beta.detach())}),
        }
        for name, state in states.items()
        if state.activation is not None
    }


def restore_inputs(model: nn.Module, source: Policy | Mapping[str, Any]) -> None:
    """Put the input quantisers of a finalised network onto a plain model, which then loads its ``state_dict``.

    The ``state_dict`` of a finalised network holds its input quantisers; a plain model has no place for them, and
    ``load_state_dict`` says so. Once this has been called the two fit. Layers that share a weight share the quantiser's
    values.

    Args:
        model: changed in place.
        source: that ``state_dict``; or a policy, from ``wq.policy()`` or ``Policy.load``.

    Raises:
        ValueError: a layer that the model does not have; a policy that does not say what its inputs' quantisers
            learned; a ``state_dict`` without any. The model is then as it was.

    Example:
        >>> from waveq import attach
        >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> wq = attach(net, quantizer="lsq", bits=3, activation_bits=4)
        >>> y = net(torch.randn(8, 4)); wq.finalize()
        >>> twin = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> restore_inputs(twin, net.state_dict()); twin.load_state_dict(net.state_dict())
        <All keys matched successfully>
        >>> x = torch.randn(8, 4); bool((twin(x) == net(x)).all())
        True
    """
    layers = quantizable(unwrapped(model))
    made = _of_policy(source, layers) if isinstance(source, Policy) else _of_state_dict(source, layers)
    weights = {name: layers[name].weight for name in made}
    for name, fixed in made.items():
        for module in layers.values():
            if module.weight is weights[name]:
                keep_input(module, copy.deepcopy(fixed))


def _of_policy(policy: Policy, layers: Mapping[str, nn.Module]) -> dict[str, FixedInput]:
    policy = renamed(policy, names_of(policy.activation_bits, layers))
    told = policy.provenance.get(INPUTS)
    told = told if isinstance(told, Mapping) else {}
    made = {}
    for name, bits in policy.activation_bits.items():
        if name not in layers:
            raise ValueError(f"the policy names {name!r}, which the model does not have{nearest(name, layers)}")
        if name not in told:
            raise ValueError(f"the policy's provenance does not say how the inputs of layer {name!r} are quantised")
        made[name] = _build(name, {**told[name], "bits": bits} if isinstance(told[name], Mapping) else told[name])
    return made


def _of_state_dict(state_dict: Mapping[str, Any], layers: Mapping[str, nn.Module]) -> dict[str, FixedInput]:
    middle, note = f".{FIXED_INPUT}.", "_extra_state"
    told: dict[str, dict[str, Any]] = {}
    for key, value in state_dict.items():
        name, found, rest = key.partition(middle)
        if found:
            told.setdefault(name, {})[rest.removeprefix("quantizer.")] = value
    inside = names_of(told, layers)
    told = {inside.get(name, name): learned for name, learned in told.items()}
    if not told:
        raise ValueError("the state_dict holds no input quantisers: it is no finalised network's with activation_bits")
    made = {}
    for name, learned in told.items():
        if name not in layers:
            raise ValueError(f"the state_dict names {name!r}, which the model does not have{nearest(name, layers)}")
        facts = read_note(learned.pop(note, None))
        made[name] = _build(name, None if facts is None else {**facts, "learned": learned})
    return made


def _build(name: str, described: Any) -> FixedInput:
    try:
        quantizer = make_activation_quantizer(described["method"], described["bits"])
        _fill(quantizer, described["learned"])
        return FixedInput(described["bits"], signed=bool(described["signed"]), quantizer=quantizer)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"what is said of the inputs of layer {name!r} cannot be used: {error}") from None


def _fill(quantizer: ActivationQuantizer, learned: Mapping[str, Any]) -> None:
    now = quantizer.state_dict()
    quantizer.load_state_dict(
        {key: torch.as_tensor(value, dtype=now[key].dtype) if key in now else value for key, value in learned.items()}
    )
