"""Batch norm folded into the layer before it: what an accelerator runs, made before the network is trained for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from waveq.layers import QUANTIZABLE, outputs_of, resolve_skip
from waveq.method.checkpoint import ROOT_STATE
from waveq.method.wrappers import unwrapped

__all__ = ["fold_batch_norm"]


@torch.no_grad()
def fold_batch_norm(model: nn.Module, *, skip: Iterable[str] = ()) -> dict[str, str]:
    """Take every batch norm into the convolution or linear layer before it; in evaluation nothing else changes.

    With running mean m and variance v, gamma, beta and eps of the norm, output channel by output channel:
    w <- s w and b <- s (b - m) + beta, where s = gamma / sqrt(v + eps); computed in float64. An ``nn.Identity`` stands
    in the norm's place, and layers without a bias get one (Jacob et al. 2018, arXiv 1712.05877, section 3.2).

    Levels are not kept by this: a network that is folded once it is quantised has to be rounded anew, and loses most
    of its accuracy at few bits. So fold first, and let the last training be of the folded network: before ``attach``,
    or between two runs, ``wq.remove(); fold_batch_norm(model); wq = attach(model, bits=policy)``. Build the optimizer
    afterwards, for the biases are new.

    Args:
        model: changed in place; its forward is followed by ``torch.fx`` in its present mode.
        skip: batch norms that stay: exact names or patterns ("layer1.*").

    Returns:
        The layer that each norm went into, by names.

    Raises:
        ValueError: norms that cannot be folded, all by name, each with its reason; a forward that cannot be followed;
            an attached model; an unknown name in skip. The model is then as it was.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()).eval()
        >>> x = torch.randn(2, 3, 8, 8)
        >>> before = net(x)
        >>> fold_batch_norm(net), net[1], bool(torch.allclose(net(x), before, atol=1e-5))
        ({'1': '0'}, Identity(), True)
    """
    model = unwrapped(model)
    if any(name in model._buffers for name in ROOT_STATE):
        raise ValueError("the model is attached: fold before attach(), or after wq.remove()")
    norms = {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    left = resolve_skip(skip, norms)
    found = _layers_before({name: norm for name, norm in norms.items() if name not in left}, model)
    refused = {name: reason for name, reason in found.items() if isinstance(reason, str)}
    if refused:
        told = "; ".join(f"{name} ({reason})" for name, reason in refused.items())
        raise ValueError(f"batch norms that cannot be folded: {told}. To leave them as they are, skip={tuple(refused)}")
    folded = {}
    for name, layer in found.items():
        assert not isinstance(layer, str)
        layer_name, module = layer
        _fold(norms[name], module)
        folded[name] = layer_name
    for name in folded:
        parent, _, child = name.rpartition(".")
        model.get_submodule(parent)._modules[child] = nn.Identity()
    return folded


def _layers_before(norms: Mapping[str, _BatchNorm], model: nn.Module) -> dict[str, tuple[str, nn.Module] | str]:
    """The layer that each norm can go into, by name and itself, or why there is none."""
    if not norms:
        return {}
    nodes = list(_Followed().followed(model).nodes)
    modules = dict(model.named_modules(remove_duplicate=False))
    calls = Counter(id(modules[node.target]) for node in nodes if node.op == "call_module")
    holders = Counter(id(tensor) for module in model.modules() for tensor in module._parameters.values())
    called = {id(modules[node.target]): node for node in nodes if node.op == "call_module"}
    found: dict[str, tuple[str, nn.Module] | str] = {}
    for name, norm in norms.items():
        node = called.get(id(norm))
        before = node.args[0] if node is not None and node.args else None
        if node is None:
            found[name] = "its module is not called in this mode"
        elif calls[id(norm)] > 1:
            found[name] = f"it is called {calls[id(norm)]} times"
        elif norm.running_mean is None or norm.running_var is None:
            found[name] = "it has no running statistics"
        elif not isinstance(before, fx.Node) or before.op != "call_module":
            found[name] = f"it follows {before}, which is no convolution or linear layer"
        else:
            layer = modules[str(before.target)]
            reason = _cannot_take(layer, before, calls, holders)
            found[name] = f"{before.target} {reason}" if reason else (str(before.target), layer)
    return found


def _cannot_take(layer: nn.Module, node: fx.Node, calls: Counter[int], holders: Counter[int]) -> str:
    """Why a layer cannot take the norm that follows it; empty where it can."""
    if not isinstance(layer, QUANTIZABLE):
        return f"before it is a {type(layer).__name__}, no convolution or linear layer"
    if calls[id(layer)] > 1:
        return f"before it is called {calls[id(layer)]} times"
    if len(node.users) > 1:
        return "before it is read elsewhere too"
    if parametrize.is_parametrized(layer) or "weight" not in layer._parameters:
        return "before it has a weight that is computed from other tensors"
    if any(tensor is not None and holders[id(tensor)] > 1 for tensor in layer._parameters.values()):
        return "before it shares its weight"
    return ""


class _Followed(fx.Tracer):
    """Looks into every module but norms and layers, those that people derived from torch's among them."""

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is one node."""
        return isinstance(module, (_BatchNorm, *QUANTIZABLE)) or super().is_leaf_module(module, module_qualified_name)

    def followed(self, model: nn.Module) -> fx.Graph:
        """The graph of a model's forward."""
        try:
            return self.trace(model)
        except Exception as error:  # whatever the user's forward makes of stand-ins for tensors
            raise ValueError(
                f"the forward of {type(model).__name__} cannot be followed ({type(error).__name__}: {error}); "
                "fold its parts one by one: fold_batch_norm(model.backbone)"
            ) from error


def _fold(norm: _BatchNorm, layer: Any) -> None:
    mean, variance = _wide(norm.running_mean), _wide(norm.running_var)
    scale = (variance + norm.eps).rsqrt()
    shift = torch.zeros_like(mean)
    if norm.affine:
        scale, shift = scale * _wide(norm.weight), _wide(norm.bias)
    weight, outputs = layer.weight, outputs_of(layer)
    rows = outputs.rows(_wide(weight)) * scale[:, None]
    bias = torch.zeros_like(mean) if layer.bias is None else _wide(layer.bias)
    bias = (scale * (bias - mean) + shift).to(weight.dtype)
    weight.copy_(outputs.back(rows, like=weight))
    if layer.bias is None:
        layer.bias = nn.Parameter(bias, requires_grad=weight.requires_grad)
    else:
        layer.bias.copy_(bias)


def _wide(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor.detach().double()
