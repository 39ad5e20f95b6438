"""What people put around a network: which of it ``attach`` looks into, which it refuses, and names from inside it."""

from __future__ import annotations

import dataclasses
import fnmatch
import gc
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from waveq.method.options import Method
from waveq.policy import Policy

__all__ = ["WHOLE", "bare_name", "names_of", "renamed", "resolve_names", "unwrapped"]

Value = TypeVar("Value")

_INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")  # in the middle of a name as well
_AROUND = "module."  # at its beginning: DataParallel, DistributedDataParallel, AveragedModel
_FIRST = (
    "attach to the network itself and wrap it afterwards: wq = waveq.attach(network, ...), then "
    "{call}. The model is as it was."
)
WHOLE = (
    "levels follow from whole weights: train the network whole or in DistributedDataParallel, call wq.finalize(), and "
    "shard the plain network it leaves"
)
_TOO_LATE = {
    "DistributedDataParallel": "DistributedDataParallel(network)",
    "DeepSpeedEngine": "deepspeed.initialize(model=network)",
    "RecursiveScriptModule": "train, wq.finalize() and torch.jit.script(network)",
    "TopLevelTracedModule": "train, wq.finalize() and torch.jit.trace(network, x)",
}
_SHARDED = "FullyShardedDataParallel"


def unwrapped(model: Any) -> Any:
    """The network inside ``torch.compile`` and DataParallel, which look at it anew at every call.

    Raises:
        TypeError: a wrapper that has arranged itself with the weights as they are, around the model, inside it, or
            around it elsewhere; it names the order to use.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> unwrapped(torch.compile(net)) is net, unwrapped(nn.DataParallel(net)) is net
        (True, True)
    """
    while isinstance(model, nn.Module):
        if "_orig_mod" in model._modules:
            model = model._modules["_orig_mod"]
        elif type(model) is nn.DataParallel:
            model = model.module
        else:
            break
    if isinstance(model, nn.Module):
        _refuse_wrappers(model)
    return model


def _refuse_wrappers(model: nn.Module) -> None:
    for name, module in model.named_modules():
        for kind in type(module).__mro__:
            if kind.__name__ in (*_TOO_LATE, _SHARDED) and kind.__module__.partition(".")[0] in ("torch", "deepspeed"):
                what = f"the module {name!r} of model" if name else "model"
                raise TypeError(
                    f"{what} is a {kind.__name__}, which has taken hold of the weights: " + _order(kind.__name__)
                )
    tensors = sys.modules.get("torch.distributed.tensor")
    if tensors is not None:
        for name, parameter in model.named_parameters():
            if isinstance(parameter, tensors.DTensor):
                sharded = "FSDPModule" in {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
                how = _FIRST.format(call="fully_shard(network, ignored_params=wq.scales())") if sharded else WHOLE
                raise TypeError(f"the weights of model are sharded ({name!r} is a DTensor): " + how)
    if dist.is_available() and dist.is_initialized():
        inside = {id(module) for module in model.modules()}
        for thing in gc.get_objects():
            if issubclass(type(thing), DistributedDataParallel) and any(id(m) in inside for m in thing.modules()):
                raise TypeError(
                    "model is inside a DistributedDataParallel already, which has set its hooks on the weights: "
                    + _order("DistributedDataParallel")
                )


def _order(kind: str) -> str:
    return WHOLE if kind == _SHARDED else _FIRST.format(call=_TOO_LATE[kind])


# ---------------------------------------------------------------------- names


def bare_name(name: str) -> str:
    """A layer's name without what wrappers put into it.

    Example:
        >>> bare_name("module._orig_mod.layer1.0"), bare_name("layer1._checkpoint_wrapped_module.0")
        ('layer1.0', 'layer1.0')
    """
    for part in _INSIDE:
        name = name.replace(part, "")
    while name.startswith(_AROUND):
        name = name.removeprefix(_AROUND)
    return name


def names_of(names: Iterable[str], known: Iterable[str], *, patterns: bool = False) -> dict[str, str]:
    """What names that match no layer are without wrappers, where that is a layer; others are left out.

    Args:
        names: as somebody wrote them.
        known: the model's layers.
        patterns: whether the names may be patterns, which then become patterns of bare names.

    Example:
        >>> names_of(["module.fc", "fc", "cf"], ["conv", "fc"])
        {'module.fc': 'fc'}
    """
    known = list(known)
    by_bare = {bare_name(name): name for name in known}
    if len(by_bare) < len(known):
        return {}
    found = {}
    for name in names:
        if name in known or (patterns and fnmatch.filter(known, name)):
            continue
        bare = bare_name(name)
        if bare in by_bare:
            found[name] = by_bare[bare]
        elif patterns and bare != name and fnmatch.filter(known, bare):
            found[name] = bare
    return found


def resolve_names(method: Method, known: Iterable[str]) -> Method:
    """The options with the model's names for layers instead of those that a wrapper gives them; a warning says so."""
    known = list(known)
    changed: dict[str, Any] = {}
    told: dict[str, str] = {}
    if isinstance(method.bits, Mapping):
        skipped = method.bits.skipped if isinstance(method.bits, Policy) else ()
        if found := names_of((*method.bits, *skipped), known):
            bits = method.bits
            changed["bits"] = renamed(bits, found) if isinstance(bits, Policy) else _renamed(bits, found)
            told |= found
    for option in ("activation_bits", "activation_signed", "layer_costs", "start_bits"):
        given = getattr(method, option)
        if isinstance(given, Mapping) and (found := names_of(given, known)):
            changed[option] = renamed(given, found) if isinstance(given, Policy) else _renamed(given, found)
            told |= found
    for option in ("skip", "also"):
        given = getattr(method, option)
        if not isinstance(given, str):
            names = tuple(given)
            found = names_of(names, known, patterns=True)
            changed[option] = tuple(found.get(name, name) for name in names)
            told |= found
    if told:
        first, new = next(iter(told.items()))
        warnings.warn(
            f"{len(told)} names are those of a wrapped model (DistributedDataParallel, torch.compile): {first!r} is "
            f"taken as {new!r}, as the layer is called in this model.",
            stacklevel=4,
        )
    return dataclasses.replace(method, **changed) if changed else method


def renamed(policy: Policy, names: Mapping[str, str]) -> Policy:
    """A policy with all that it says under other names."""
    inputs = policy.provenance.get("inputs")
    told = {"inputs": _renamed(inputs, names)} if isinstance(inputs, Mapping) else {}
    return Policy(
        _renamed(policy, names),
        activation_bits=_renamed(policy.activation_bits, names),
        betas=_renamed(policy.betas, names),
        scales=_renamed(policy.scales, names),
        weight_counts=_renamed(policy.weight_counts, names),
        skipped=tuple(names.get(name, name) for name in policy.skipped),
        quantizer=policy.quantizer,
        granularity=policy.granularity,
        provenance={**policy.provenance, **told},
    )


def _renamed(given: Mapping[str, Value], names: Mapping[str, str]) -> dict[str, Value]:
    return {names.get(name, name): value for name, value in given.items()}
