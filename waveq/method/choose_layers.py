"""Which layers of a model are quantised, and which of them share a weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.nn.utils import parametrize

from waveq.layers import resolve_skip
from waveq.method.checkpoint import ROOT_STATE
from waveq.method.options import Bits
from waveq.method.sites import EMBEDDINGS, WeightSite, weight_sites
from waveq.policy import Policy

__all__ = ["choose_layers", "share_weights"]


def choose_layers(
    model: nn.Module, skip: Iterable[str], bits: Bits, also: Iterable[str] = ()
) -> tuple[dict[str, WeightSite], set[str]]:
    """The weights to quantise, float ones that can be trained; and the names that are left out.

    Weights without any numbers are left out without a word of ``skip``.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, not {type(model).__name__}")
    if torch.is_inference_mode_enabled():
        raise RuntimeError("attach() under torch.inference_mode(): what it makes could not be trained; call it outside")
    left_out = (*skip, *(bits.skipped if isinstance(bits, Policy) else ())) if not isinstance(skip, str) else skip
    known = weight_sites(model, also, bits)
    skipped = resolve_skip(left_out, known)
    skipped |= {name for name, site in known.items() if _is_empty(site)}
    layers = {name: site for name, site in known.items() if name not in skipped}
    if not layers:
        raise ValueError(f"nothing to quantise: the model has {len(known)} Linear and convolution layers, all skipped")
    for name, site in layers.items():
        if not name:
            raise ValueError("the model itself is a single layer, which has no name; wrap it in nn.Sequential")
        _check_weight(name, site.module, site.tensor)
    if taken := [name for name in ROOT_STATE if hasattr(model, name)]:
        raise ValueError(
            f"the model has a {taken[0]!r} already: it is attached. finalize() or remove() first, or attach all its "
            "layers in one call"
        )
    return layers, skipped


def _is_empty(site: WeightSite) -> bool:
    """Without outputs or inputs, as in a network whose width was set to 0: there is nothing to round."""
    weight = site.module._parameters.get(site.tensor)
    return weight is not None and not nn.parameter.is_lazy(weight) and weight.numel() == 0


def _check_weight(name: str, module: nn.Module, tensor: str) -> None:
    if parametrize.is_parametrized(module, tensor):
        raise ValueError(
            f"layer {name!r} already has a parametrised weight (attached before, or weight/spectral norm); remove that "
            "first, or skip the layer"
        )
    weight = getattr(module, tensor)
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
    if isinstance(module, EMBEDDINGS) and (module.max_norm is not None or module.sparse):
        raise ValueError(
            f"the embedding {name!r} cannot be quantised in training: "
            + ("max_norm writes into its weight" if module.max_norm is not None else "its gradient is sparse")
            + "; make it with max_norm=None, sparse=False, or skip it"
        )


def share_weights(layers: Mapping[str, WeightSite]) -> dict[str, tuple[str, ...]]:
    """Layers by weight: the name that it gets its bits under, and all names that use it, that one first.

    A layer's name goes before a table's or a loose parameter's: a layer is what multiplies with the weight, and what
    machines price.
    """
    groups: dict[int, list[str]] = {}
    for name, site in layers.items():
        groups.setdefault(id(site.module._parameters[site.tensor]), []).append(name)
    ordered = {names[0]: names for names in (sorted(each, key=lambda n: layers[n].asked) for each in groups.values())}
    return {name: tuple(ordered[name]) for name in layers if name in ordered}
