"""Which layers of a model are quantised, and which of them share a weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from waveq.layers import quantizable, resolve_skip
from waveq.method.checkpoint import ROOT_STATE
from waveq.method.options import Bits
from waveq.policy import Policy

__all__ = ["choose_layers", "share_weights"]


def choose_layers(model: nn.Module, skip: Iterable[str], bits: Bits) -> dict[str, nn.Module]:
    """The layers to quantise, each with float weights that can be trained."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if torch.is_inference_mode_enabled():
        raise RuntimeError("attach() under torch.inference_mode(): what it makes could not be trained; call it outside")
    left_out = (*skip, *(bits.skipped if isinstance(bits, Policy) else ())) if not isinstance(skip, str) else skip
    known = quantizable(model)
    skipped = resolve_skip(left_out, known)
    layers = {name: module for name, module in known.items() if name not in skipped}
    if not layers:
        raise ValueError(f"nothing to quantise: the model has {len(known)} Linear and convolution layers, all skipped")
    for name, module in layers.items():
        if not name:
            raise ValueError("the model itself is a single layer, which has no name; wrap it in nn.Sequential")
        _check_weight(name, module)
    if taken := [name for name in ROOT_STATE if hasattr(model, name)]:
        raise ValueError(
            f"the model has a {taken[0]!r} already: it is attached. finalize() or remove() first, or attach all its "
            "layers in one call"
        )
    return layers


def _check_weight(name: str, module: nn.Module) -> None:
    if parametrize.is_parametrized(module, "weight"):
        raise ValueError(
            f"layer {name!r} already has a parametrised weight (attached before, or weight/spectral norm); remove that "
            "first, or skip the layer"
        )
    weight = module.weight
    if isinstance(weight, nn.parameter.UninitializedParameter):
        raise ValueError(f"layer {name!r} has no weights yet (lazy module): run one batch through the model first")
    if not isinstance(weight, nn.Parameter):
        raise ValueError(
            f"the weight of layer {name!r} is computed from other tensors (pruned, or weight norm by hooks): make that "
            "permanent first (torch.nn.utils.prune.remove, remove_weight_norm), or skip the layer"
        )
    if not weight.is_floating_point():
        raise ValueError(
            f"the weight of layer {name!r} is {weight.dtype}; only real floating-point weights are quantised"
        )
    if weight.is_meta:
        raise ValueError(
            f"the weights of layer {name!r} have no values yet (meta device): load or initialise them first"
        )
    if weight.is_inference():
        raise ValueError(f"the weights of layer {name!r} were made under torch.inference_mode() and cannot be trained")
    if not bool(torch.isfinite(weight).all()):
        raise ValueError(f"the weights of layer {name!r} hold NaN or infinity")


def share_weights(layers: Mapping[str, nn.Module]) -> dict[str, tuple[str, ...]]:
    """Layers by weight: the first name with each distinct parameter, and all names that use it."""
    groups: dict[int, list[str]] = {}
    for name, module in layers.items():
        groups.setdefault(id(module.weight), []).append(name)
    return {names[0]: tuple(names) for names in groups.values()}
