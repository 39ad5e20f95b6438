"""What a network does with its quantised weights before it multiplies with them: found in the first forward pass."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves

from waveq.method.coverage import own_forward
from waveq.method.settings import WaveLayer

__all__ = ["FormulaProbe"]

# of the functions' own names: those that multiply or look up, and those that hand values on as they are
_PRODUCTS = """
    linear bilinear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution matmul mm bmm mv
    addmm addbmm baddbmm einsum tensordot dot __matmul__ __rmatmul__ embedding embedding_bag lstm gru rnn_tanh rnn_relu
    lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell multi_head_attention_forward _native_multi_head_attention
    _transformer_encoder_layer_fwd _grouped_mm grouped_mm _scaled_grouped_mm
"""
_PASSING = """
    t transpose transpose_ permute movedim swapaxes reshape reshape_as view view_as flatten unflatten chunk split
    tensor_split unbind select narrow __getitem__ index_select squeeze unsqueeze expand expand_as repeat tile cat concat
    stack vstack hstack contiguous clone detach to type type_as float half bfloat16 double cpu cuda requires_grad_ T mT
    H mH data flip roll gather pad
"""
_SCALING = "mul __mul__ __rmul__ div __truediv__ true_divide neg __neg__"  # by one number
_PRODUCTS_NAMES, _PASSING_NAMES, _SCALING_NAMES = (
    frozenset(names.split()) for names in (_PRODUCTS, _PASSING, _SCALING)
)


class FormulaProbe:
    """Watches a model's first forward pass, and warns of quantised weights that go through another formula first.

    Layers with a forward of their own are warned of too, unless what they return is the product with their weight:
    padding an input (timm's Conv2dSame) or casting it changes no level.

    Args:
        model: attached; its hooks are taken off again after the first forward pass, or by ``remove``.
        layers: what ``attach`` made.
    """

    def __init__(self, model: nn.Module, layers: Sequence[WaveLayer]) -> None:
        self._layers = tuple(layers)
        self._strange = own_forward({layer.name: layer.modules[0] for layer in layers})  # and not looked at so far
        self._mode: _Watch | None = None
        self._inner: list[Any] = []
        self._handles = [
            model.register_forward_pre_hook(self._begin),
            model.register_forward_hook(self._end, always_call=True),
        ]

    def unseen(self) -> list[str]:
        """A sentence on layers with a forward of their own that no pass has shown (compiled ones), once."""
        unseen, self._strange = self._strange, {}
        return [_own(unseen)] if unseen else []

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in [*self._handles, *self._inner]:
            handle.remove()
        self._handles, self._inner = [], []

    def _begin(self, *_: Any) -> None:
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None or self._mode is not None:
            return
        self._mode = mode = _Watch()
        for layer in self._layers:
            hook = _Tell(mode, layer.name)
            self._inner.append(layer.state.register_forward_hook(hook))
            if layer.name in self._strange:
                self._inner.append(layer.modules[0].register_forward_hook(_Answer(mode, layer.name)))
        mode.__enter__()  # type: ignore[no-untyped-call]

    def _end(self, *_: Any) -> None:
        mode, self._mode = self._mode, None
        if mode is None:
            return
        mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        self.remove()
        doubtful = {name: self._strange.pop(name) for name in mode.answered if name in self._strange}
        if doubtful := {name: kind for name, kind in doubtful.items() if name in mode.doubtful - set(mode.found)}:
            warnings.warn(_own(doubtful), stacklevel=3)
        if mode.found:
            told = ", ".join(f"{name} ({formula})" for name, formula in mode.found.items())
            warnings.warn(
                f"quantised weights go through another formula before they are used: {told}. What the network "
                "multiplies with is then not on the levels of their bits. Skip these layers, or make the formula's "
                "result the weight before attach()",
                stacklevel=3,
            )


def _own(layers: Mapping[str, str]) -> str:
    named = ", ".join(f"{name} ({kind})" for name, kind in layers.items())
    return (
        f"layers with a forward of their own: {named}. Where it makes another weight of theirs, or does more than "
        "the layer that it is derived from, what is computed is not on the levels of their bits: then skip them"
    )


class _Tell:
    """Forward hook of a parametrisation: says which tensor is a layer's quantised weight."""

    def __init__(self, mode: _Watch, name: str) -> None:
        self._mode, self._name = mode, name

    def __call__(self, _state: nn.Module, _args: Any, weight: Tensor) -> None:
        self._mode.follow(weight, self._name)


class _Answer:
    """Forward hook of a layer: whether it returns the product with its quantised weight, and nothing more."""

    def __init__(self, mode: _Watch, name: str) -> None:
        self._mode, self._name = mode, name

    def __call__(self, _layer: nn.Module, _args: Any, result: Any) -> None:
        self._mode.answered.add(self._name)
        product = self._mode.products.get(id(result))
        if product is None or self._name not in product[1]:
            self._mode.doubtful.add(self._name)


class _Watch(TorchFunctionMode):
    """Follows the weights through functions that hand them on, and remembers the first one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self.products: dict[int, tuple[Tensor, set[str]]] = {}  # by id; kept, as those below
        self.answered: set[str] = set()  # layers with a forward of their own that were called
        self.doubtful: set[str] = set()  # those of them that return something else than a product
        self._followed: dict[int, tuple[Tensor, str]] = {}  # the tensors are kept, so that no id is used twice

    def follow(self, tensor: Tensor, name: str) -> None:
        """From now on this tensor stands for a layer's weight."""
        self._followed[id(tensor)] = tensor, name

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        followed = [
            self._followed[id(leaf)]
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, Tensor) and id(leaf) in self._followed
        ]
        if followed:
            self._judge(func, args, followed, [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)])
        return result

    def _judge(self, func: Any, args: Any, followed: list[tuple[Tensor, str]], results: list[Tensor]) -> None:
        name = getattr(func, "__name__", "")
        if name == "__get__":  # an attribute, such as .T
            name = (resolve_name(func) or "").split(".")[-2]
        if name in _PRODUCTS_NAMES:
            for each in results:
                self.products[id(each)] = each, {layer for _, layer in followed}
            return
        by_number = name in _SCALING_NAMES and all(not isinstance(a, Tensor) or a.numel() == 1 for a in args[1:])
        for tensor, layer in followed:
            if name in _PASSING_NAMES or by_number:
                for each in results:
                    self.follow(each, layer)
            elif any(each.numel() >= tensor.numel() > 1 and each.is_floating_point() for each in results):
                self.found.setdefault(layer, name)
