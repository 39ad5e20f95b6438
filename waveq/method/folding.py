"""Batch norm folded into the layer before it: what an accelerator runs, made before the network is trained for it."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
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
    in the norm's place, and layers without a bias get one (Jacob et al. 2018, arXiv 1712.05877, section 3.2). Of a norm
    whose class has modules of its own (timm's BatchNormAct2d: an activation) these stay, one after the other. Classes
    that are not torch's are tried on copies and drawn numbers first, and refused where the fold is another function.

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
        model.get_submodule(parent)._modules[child] = _rest(norms[name])
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
            reason = _cannot_take(layer, before, calls, holders) or _differs(norm, layer)
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


def _rest(norm: nn.Module) -> nn.Module:
    """What stands in a norm's place: the modules that its class has beside normalising, if any."""
    if not norm._modules:
        return nn.Identity()
    rest = nn.Sequential(OrderedDict(norm.named_children()))
    rest.training = norm.training
    return rest


def _differs(norm: _BatchNorm, layer: Any) -> str:
    """Why the fold is another function, where the class of either has a forward that is not torch's; empty if not."""
    pair: tuple[Any, Any] = layer, norm
    strange = [type(each).__name__ for each in pair if not type(each).__module__.startswith("torch.nn.")]
    if not strange:
        return ""
    own, its = (copy.deepcopy(each).double().eval() for each in pair)
    drawn = torch.Generator().manual_seed(0)
    for tensor, low in ((its.running_mean, -0.5), (its.running_var, 0.5), (its.weight, 0.5), (its.bias, -0.5)):
        if tensor is not None:  # fresh ones would say nothing: they change no number
            tensor.copy_(torch.rand(tensor.shape, generator=drawn) + low)
    try:
        x = _example(own, drawn)
        expected = its(own(x))
        _fold(its, own)
        agrees = torch.allclose(_rest(its)(own(x)), expected, rtol=1e-6, atol=1e-6)
    except Exception as error:  # whatever a class of the user's makes of a double
        return f"and it cannot be tried on copies ({' and '.join(strange)}; {type(error).__name__}: {error})"
    return "" if agrees else f"and it are another function once they are folded ({' and '.join(strange)})"


def _example(layer: Any, drawn: torch.Generator) -> Tensor:
    """Inputs that a layer takes, of two samples, float64."""
    if isinstance(layer, _ConvNd):
        sides = [2 + (kernel - 1) * gap for kernel, gap in zip(layer.kernel_size, layer.dilation, strict=True)]
        shape = (2, layer.in_channels, *sides)
    else:
        shape = (2, getattr(layer, "in_features", layer.weight.shape[0]))
    return torch.randn(shape, generator=drawn, dtype=torch.float64).to(layer.weight.device)


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
