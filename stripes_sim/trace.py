"""From a torch model to a workload, on the meta device: shapes flow through the model, no number is computed.

The operators that reach the backend are watched, not the module classes, so functional calls, attention and user
classes count like everything else. A layer is named after the module that owns its weight.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stripes_sim._operators import HARMLESS, LOOKUPS, PRODUCTS
from stripes_sim.layers import LayerShape

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["trace"]


def trace(
    model: nn.Module,
    input_shape: Sequence[int] | Sequence[Sequence[int]] = (3, 32, 32),
    *,
    dtype: torch.dtype | str | None = None,
) -> list[LayerShape]:
    """The workload of one inference of ``model``, in execution order.

    The model is copied without its weights to the meta device, put into evaluation mode there, and called once; the
    user's model, its mode and the random number generator are not touched. Parametrizations are left out of the copy
    and hooks are not called, so a model with `waveq.attach` traces like the plain one. Layers that inference does not
    reach are not part of the workload. A layer that runs several times has ``copies``.

    Args:
        model: any module.
        input_shape: one sample's shape without batch dimension, or a sequence of shapes for several inputs.
        dtype: of the inputs; ``torch.int64`` or ``"int64"`` for token ids (default: float32).

    Returns:
        `LayerShape` objects: convolutions, linear layers, attention's matrix products (``kind="matmul"``), lookups.

    Raises:
        ValueError: the model cannot run on that shape, or a weight meets an operator that is no known layer.

    >>> from torch import nn
    >>> layers = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 10)), (3, 32, 32))
    >>> [(layer.name, layer.kind, layer.macs) for layer in layers]
    [('0', 'conv', 194400), ('2', 'linear', 72000)]
    """
    import torch
    from torch import nn

    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, but it is {type(model).__name__}")
    shapes = _shapes(input_shape)
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"dtype must be a torch.dtype or its name, such as 'int64', but it is {dtype!r}")
    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("meta"):
        shadow = _meta_copy(model)
        inputs = [torch.empty((1, *shape), dtype=kind) for shape in shapes]
        with _location(shadow) as where:
            recorder = _recorder(shadow, where)
            try:
                with recorder:
                    shadow(*inputs)
            except _UnknownLayerError as error:
                raise ValueError(str(error)) from None
            except Exception as error:
                raise ValueError(
                    f"the model cannot run on input_shape={input_shape!r} (dtype {str(kind).removeprefix('torch.')}, "
                    f"batch dimension added): {type(error).__name__} in {where[-1] or 'the model itself'}: "
                    f"{str(error).splitlines()[0] if str(error) else 'no message'}"
                ) from error
    if not recorder.layers:
        raise ValueError(f"no layer with weights runs in {type(model).__name__}: there is nothing to trace")
    return list(recorder.layers.values())


class _UnknownLayerError(Exception):
    """A weight met an operator that is neither a known layer nor harmless."""


def _shapes(input_shape: Any) -> list[tuple[int, ...]]:
    items = tuple(input_shape) if isinstance(input_shape, Sequence) and not isinstance(input_shape, str) else None
    nested = items is not None and items and all(isinstance(item, Sequence) for item in items)
    shapes = [tuple(item) for item in items or ()] if nested else [items]
    for shape in shapes:
        if not shape or any(isinstance(n, bool) or not hasattr(n, "__index__") or n < 1 for n in shape):
            raise ValueError(
                "input_shape must be one sample's sizes without batch dimension, such as (3, 32, 32), or a sequence "
                f"of such shapes, but it is {input_shape!r}"
            )
    return [tuple(int(n) for n in shape or ()) for shape in shapes]


def _meta_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose tensors have shapes and no storage; nothing large is copied on the way."""
    import torch
    from torch import nn
    from torch.nn.utils import parametrize

    memo: dict[int, Any] = {}
    for module in model.modules():
        owned = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
        for tensor in owned:
            if isinstance(tensor, torch.Tensor) and id(tensor) not in memo:
                empty = torch.empty_like(tensor, device="meta", requires_grad=False)
                parameter = isinstance(tensor, nn.Parameter)
                memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if parameter else empty
    try:
        shadow = copy.deepcopy(model, memo)
    except Exception as error:
        raise ValueError(f"{type(model).__name__} cannot be copied: {type(error).__name__}: {error}") from error
    for module in shadow.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            hooks.clear()
    for module in list(shadow.modules()):
        if parametrize.is_parametrized(module):
            for name, steps in list(module.parametrizations.items()):  # type: ignore[union-attr, operator]
                if hasattr(steps, "original"):
                    _unparametrize(module, name, steps.original)
    return shadow.eval()


def _unparametrize(module: nn.Module, name: str, original: Any) -> None:
    """Put the original tensor back and compute nothing (torch's own removal evaluates the parametrization)."""
    # the property lives on the class that register_parametrization made for this one instance
    del module.parametrizations[name]  # type: ignore[union-attr, operator]
    plain = type(module).__mro__[1]
    if len(module.parametrizations) == 0:  # type: ignore[arg-type]
        module.__class__ = plain
        del module.parametrizations
    elif name in vars(type(module)):
        module.__class__ = type(
            type(module).__name__, (plain,), {k: v for k, v in vars(type(module)).items() if k != name}
        )
    module.register_parameter(name, original)


@contextmanager
def _location(shadow: nn.Module) -> Iterator[list[str]]:
    """The names of the modules that are running, innermost last."""
    stack = [""]

    def enter(name: str) -> Callable[..., None]:
        return lambda *_: stack.append(name)

    handles = []
    for name, module in shadow.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(lambda *_: stack.pop() and None, always_call=False))
    yield stack
    for handle in handles:
        handle.remove()


def _recorder(shadow: nn.Module, where: list[str]) -> Any:
    """A dispatch mode that writes down every layer; defined here so that torch is imported only when needed."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.layers: dict[LayerShape | tuple[str, LayerShape], LayerShape] = {}
            self.products: dict[str, int] = {}
            # storages of weights, and of tensors computed from weights alone, with the owner's name
            self.owners: dict[int, list[str]] = {}
            self.alive: list[torch.Tensor] = []
            for name, parameter in shadow.named_parameters(remove_duplicate=False):
                self.own(parameter, name.removesuffix(".weight"))

        def own(self, tensor: torch.Tensor, name: str) -> None:
            self.alive.append(tensor)  # a storage that dies would hand its address to another one
            self.owners.setdefault(tensor.untyped_storage()._cdata, []).append(name)

        def owner(self, tensor: object) -> str | None:
            names = self.owners.get(tensor.untyped_storage()._cdata) if isinstance(tensor, torch.Tensor) else None
            if not names:
                return None
            # tied weights have several owners: the module that is running is the one meant
            return next((name for name in names if name == where[-1]), names[0])

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            name = func.overloadpacket.__name__
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            owned = [self.owner(tensor) for tensor in tensors]
            if not self.count(name, args, result):
                big = [o for o, tensor in zip(owned, tensors, strict=True) if o and tensor.dim() > 1]
                if big and name.rstrip("_") not in HARMLESS:
                    raise _UnknownLayerError(
                        f"layer {big[0]!r}: its weight goes into {func}, which is no layer that stripes_sim knows how "
                        "to price (convolutions, linear layers, matrix products, lookups)"
                    )
                if tensors and all(owned):
                    for leaf in tree_leaves(result):
                        if isinstance(leaf, torch.Tensor) and self.owner(leaf) is None:
                            self.own(leaf, str((big or owned)[0]))
            return result

        def count(self, name: str, args: Any, result: Any) -> bool:
            """Record the layer behind an operator; False if it is none."""
            if name in ("convolution", "_convolution", "convolution_overrideable"):
                self.convolution(*args)
            elif name in PRODUCTS:
                self.product(*(args[i] for i in PRODUCTS[name]))
            elif name.startswith("_scaled_dot_product"):
                self.attention(*args[:3])
            elif name in LOOKUPS:
                table, ids = args[0], args[1]
                owner = self.owner(table) or where[-1]
                self.add(owner, "embedding", table.shape[0], table.shape[1], tokens=ids.numel())
            else:
                return False
            return True

        def convolution(
            self,
            x: torch.Tensor,
            weight: torch.Tensor,
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
            self.add(
                self.owner(weight) or where[-1],
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

        def product(self, left: torch.Tensor, right: torch.Tensor) -> None:
            batch = left.shape[0] if left.dim() == 3 else 1
            rows, depth = left.shape[-2:]
            columns = right.shape[-1] if right.dim() > 1 else 1
            if owner := self.owner(right):
                self.add(owner, "linear", depth, columns, tokens=batch * rows)
            elif owner := self.owner(left):
                self.add(owner, "linear", depth, rows, tokens=batch * columns)
            else:
                self.add(self.numbered("matmul"), "matmul", depth, columns, tokens=rows, copies=batch)

        def attention(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
            heads = query.shape[:-2].numel()
            tokens, depth = query.shape[-2:]
            for name, in_channels, out_channels in (
                ("scores", depth, key.shape[-2]),
                ("values", key.shape[-2], value.shape[-1]),
            ):
                self.add(self.numbered(name), "matmul", in_channels, out_channels, tokens=tokens, copies=heads)

        def numbered(self, what: str) -> str:
            name = f"{where[-1]}.{what}" if where[-1] else what
            self.products[name] = self.products.get(name, 0) + 1
            return name if self.products[name] == 1 else f"{name}_{self.products[name]}"

        def add(self, name: str, kind: Any, in_channels: int, out_channels: int, **sizes: Any) -> None:
            layer = LayerShape(name=name, kind=kind, in_channels=in_channels, out_channels=out_channels, **sizes)
            once = replace(layer, copies=1)
            known = self.layers.get(once)
            self.layers[once] = replace(known, copies=known.copies + layer.copies) if known else layer

    return Recorder()
