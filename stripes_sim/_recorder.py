"""The layers of a run, written down as its operators reach the backend.

The operators are watched, not the module classes, so functional calls, attention and user classes count like everything
else. Weights are told by the memory they lie in: a tensor computed from weights alone is a weight, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stripes_sim._operators import HARMLESS, LOOKUPS, PRODUCTS, SUMS
from stripes_sim._tensors import Tensors
from stripes_sim.layers import LayerShape

__all__ = ["Recorder", "TokensExpected", "UnknownLayerError", "running_modules"]


class UnknownLayerError(Exception):
    """A weight met an operator that is neither a known layer nor harmless."""


class TokensExpected(Exception):  # noqa: N818  (it is a question)
    """An embedding looks up what is no integer; ``inputs`` are the model's inputs that it may come from."""

    def __init__(self, inputs: frozenset[int]) -> None:
        super().__init__("an embedding looks up numbers that are no integers")
        self.inputs = inputs


@dataclass
class _Row:
    """A layer that may run several times, and the operators at which it did with the values that it worked on."""

    layer: LayerShape
    runs: list[tuple[int, frozenset[int]]] = field(default_factory=list)


@dataclass(frozen=True)
class _Weight:
    """A stored tensor: all its names, and which part of it a tensor is."""

    names: tuple[str, ...]
    elements: int


class Recorder(TorchDispatchMode):
    """Watches one run of ``model``, which has entered ``inputs``; ``where`` names the modules that are running."""

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor], where: list[str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.where = where
        self.tensors = Tensors()
        for tensor in inputs:
            self.tensors.enter(tensor)
        self.entered = len(inputs)
        self.rows: dict[Any, _Row] = {}
        self.products: dict[str, int] = {}
        # weights by storage; of weights computed from weights, too
        self.weights: dict[int, _Weight] = {}
        # products of two weights by storage, with the key of the row that they are unless they are merged
        self.unmerged: dict[int, list[Any]] = {}
        self.alive: list[Tensor] = []  # a storage that dies would hand its address to another one
        self._find_weights(model)

    def layers(self) -> list[LayerShape]:
        """What ran, in execution order."""
        rows = list(self.rows.values())
        found = [replace(row.layer, waiting=max(self.tensors.waiting(at, own) for at, own in row.runs)) for row in rows]
        return [replace(found[0], stored_before=0), *found[1:]] if found else []  # the first input comes anyway

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in LOOKUPS and args[1].is_floating_point():
            # by its value, or any of them if it was computed from some
            entered = frozenset(range(self.entered))
            raise TokensExpected(self.tensors.values([args[1]]) & entered or entered)
        result = func(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        layer = self._count(name, args, inputs, outputs)
        if not layer:
            self._check_known(func, name, inputs)
            self._follow_weights(name, inputs, outputs)
        self.tensors.follow(name.rstrip("_"), inputs, outputs, layer=layer)
        return result

    # which tensors are weights

    def _find_weights(self, model: nn.Module) -> None:
        named: dict[int, dict[str, int]] = {}
        elements: dict[int, int] = {}
        for module_name, module in model.named_modules(remove_duplicate=False):
            for tensor_name, tensor in module._parameters.items():
                if tensor is None:
                    continue
                self.alive.append(tensor)
                home = _home(tensor)
                named.setdefault(home, {}).setdefault(_name(module_name, tensor_name), _rank(module, tensor_name))
                elements[home] = max(tensor.numel(), elements.get(home, 0))
        for home, ranks in named.items():
            self.weights[home] = _Weight(tuple(sorted(ranks, key=lambda name: ranks[name])), elements[home])

    def _weight(self, tensor: object) -> _Weight | None:
        return self.weights.get(_home(tensor)) if isinstance(tensor, Tensor) else None

    def _own(self, tensor: Tensor, weight: _Weight) -> None:
        self.alive.append(tensor)
        self.weights.setdefault(_home(tensor), replace(weight, elements=tensor.numel()))

    def _check_known(self, func: Any, name: str, inputs: Sequence[Tensor]) -> None:
        for tensor in inputs:
            weight = self._weight(tensor)
            if weight and tensor.dim() > 1 and name.rstrip("_") not in HARMLESS:
                raise UnknownLayerError(
                    f"layer {weight.names[0]!r}: its weight goes into {func}, which is no layer that stripes_sim knows "
                    "how to price (convolutions, linear layers, matrix products, lookups)"
                )

    def _follow_weights(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Tensors computed from weights alone are weights: known before any input is there."""
        found = [(tensor, self._weight(tensor)) for tensor in inputs]
        merged = [key for tensor in inputs for key in self.unmerged.get(_home(tensor), ())]
        if not inputs or not all(weight or _home(tensor) in self.unmerged for tensor, weight in found):
            return
        owners = [weight for tensor, weight in found if weight and tensor.dim() > 1] or [w for _, w in found if w]
        same_size = any(w and tensor.numel() == outputs[0].numel() for tensor, w in found) if outputs else False
        if merged and not (name.rstrip("_") in SUMS and same_size):
            for tensor in outputs:
                self.unmerged.setdefault(_home(tensor), merged)
                self.alive.append(tensor)
            return
        for key in merged:  # the product was done before the run
            self.rows.pop(key, None)
        for tensor in outputs:
            if self._weight(tensor) is None:
                self._own(tensor, owners[0])

    # which operators are layers

    def _count(self, name: str, args: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> bool:
        """Record the layer behind an operator; False if it is none."""
        if name in ("convolution", "_convolution", "convolution_overrideable"):
            self._convolution(inputs, *args)
        elif name in PRODUCTS:
            left, right = (args[i] for i in PRODUCTS[name])
            key = self._product(inputs, left, right)
            if self._weight(left) and self._weight(right):
                self.unmerged.setdefault(_home(outputs[0]), []).append(key)
                self.alive.append(outputs[0])
        elif name in LOOKUPS:
            self._lookup(inputs, args[0], args[1])
        else:
            return False
        return True

    def _convolution(
        self,
        inputs: Sequence[Tensor],
        x: Tensor,
        weight: Tensor,
        _bias: object,
        stride: Any,
        padding: Any,
        dilation: Any,
        transposed: bool,
        output_padding: Any,
        groups: int,
        *_: object,
    ) -> None:
        per_group = weight.shape[1]
        channels = (x.shape[1], per_group * groups) if transposed else (per_group * groups, weight.shape[0])
        key = self._add_weighted(
            inputs,
            weight,
            x,
            "conv_transpose" if transposed else "conv",
            *channels,
            kernel_size=tuple(weight.shape[2:]),
            input_size=tuple(x.shape[2:]),
            stride=tuple(stride),
            padding=tuple(padding),
            dilation=tuple(dilation),
            output_padding=tuple(output_padding) if transposed else (0,),
            groups=groups,
            copies=x.shape[0],
        )
        self._meet(key, x, weight)

    def _product(self, inputs: Sequence[Tensor], left: Tensor, right: Tensor) -> Any:
        batch = left.shape[0] if left.dim() == 3 else 1
        rows, depth = left.shape[-2:]
        columns = right.shape[-1] if right.dim() > 1 else 1
        of_right, of_left = self._matrices(right, depth * columns, batch), self._matrices(left, rows * depth, batch)
        turned = right.mT if right.dim() > 1 else right[None]
        if self._weight(right) or (self._weight(left) is None and of_right <= of_left):
            x, stationary, tokens, outputs, matrices = left, right, rows, columns, of_right
            met = left, turned
        else:
            x, stationary, tokens, outputs, matrices = right, left, columns, rows, of_left
            met = turned, left
        sizes = {"tokens": tokens * (batch // matrices), "copies": matrices}
        if self._weight(stationary):
            key = self._add_weighted(inputs, stationary, x, "linear", depth, outputs, matrices=matrices, **sizes)
        else:
            before = self.tensors.before(left) + self.tensors.before(right)
            key = self._add(inputs, self._numbered("matmul"), "matmul", depth, outputs, before=before, **sizes)
        self._meet(key, *met, matrices=matrices)
        return key

    def _matrices(self, tensor: Tensor, elements: int, batch: int) -> int:
        """How many different matrices of so many elements a batch of them has."""
        matrices = -(-self.tensors.distinct(tensor) // max(elements, 1))
        return matrices if 0 < matrices <= batch and batch % matrices == 0 else batch

    def _lookup(self, inputs: Sequence[Tensor], table: Tensor, ids: Tensor) -> None:
        weight, running = self._weight(table), self.where[-1]
        names = weight.names if weight else (running or "embedding",)
        name = running if running in names else names[-1]
        stored_as = names[0] if name != names[0] else ""
        rows, width = table.shape
        self._add(inputs, name or "embedding", "embedding", rows, width, tokens=ids.numel(), stored_as=stored_as)

    def _meet(self, layer: LayerShape, x: Tensor, weight: Tensor, matrices: int = 1) -> None:
        """A layer multiplies these; for those who look at numbers.

        Those of a matrix product are (tokens, inputs) and (outputs, inputs), or batches of such with so many different
        ``matrices`` among the second.
        """

    # writing down

    def _add_weighted(
        self, inputs: Sequence[Tensor], tensor: Tensor, x: Tensor, kind: str, *channels: int, **sizes: Any
    ) -> LayerShape:
        weight, stored_as = self._weight(tensor), ""
        name = weight.names[0] if weight else self.where[-1]
        if weight and self.tensors.distinct(tensor) < weight.elements:
            stored_as = f"{name}[{tensor.storage_offset()}:]"  # a part of it, as attention reads its packed projection
        before = self.tensors.before(x)
        return self._add(inputs, name or kind, kind, *channels, before=before, stored_as=stored_as, **sizes)

    def _add(
        self,
        inputs: Sequence[Tensor],
        name: str,
        kind: Any,
        in_channels: int,
        out_channels: int,
        *,
        before: int = 0,
        **sizes: Any,
    ) -> LayerShape:
        layer = LayerShape(name=name, kind=kind, in_channels=in_channels, out_channels=out_channels, **sizes)
        before = min(before, layer.input_count)
        key = replace(layer, copies=layer.matrices)
        row = self.rows.setdefault(key, _Row(replace(layer, stored_before=before)))
        if row.runs:
            known = row.layer
            row.layer = replace(known, copies=known.copies + layer.copies, stored_before=known.stored_before + before)
        row.runs.append((self.tensors.operators + 1, self.tensors.values(inputs)))
        return key

    def _numbered(self, what: str) -> str:
        name = f"{self.where[-1]}.{what}" if self.where[-1] else what
        self.products[name] = self.products.get(name, 0) + 1
        return name if self.products[name] == 1 else f"{name}_{self.products[name]}"


@contextmanager
def running_modules(model: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are running, innermost last."""
    stack = [""]

    def enter(name: str) -> Any:
        return lambda *_: stack.append(name)

    handles = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(lambda *_: stack.pop() and None, always_call=False))
    yield stack
    for handle in handles:
        handle.remove()


def _name(module: str, tensor: str) -> str:
    """As `waveq.attach` names a weight; of a parametrised one, where it stands in its module."""
    if ".parametrizations." in f".{module}" and tensor.startswith("original"):
        module, _, tensor = module.rpartition("parametrizations.")
        module = module.removesuffix(".")
    return f"{module}.{tensor}".removesuffix(".weight").removeprefix(".")


def _rank(module: nn.Module, tensor: str) -> int:
    """Of several names of one weight the layer's comes first, as it gets the bits; a table's comes last."""
    if isinstance(module, nn.Embedding | nn.EmbeddingBag):
        return 2
    layer = tensor == "weight" or isinstance(module, nn.MultiheadAttention | nn.RNNBase | nn.RNNCellBase)
    return 0 if layer else 1


def _home(tensor: Any) -> int:
    return int(tensor.untyped_storage()._cdata)
