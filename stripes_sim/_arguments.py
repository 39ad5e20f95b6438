"""What a model is called with: made of shapes, or the user's own tensors on the device where it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["Arguments", "from_shapes", "from_tensors"]


class Arguments(NamedTuple):
    """Positional and keyword arguments of a call."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors in them, in order."""
        return [leaf for leaf in tree_leaves((self.args, self.kwargs)) if isinstance(leaf, Tensor)]

    @property
    def text(self) -> str:
        """Shapes and dtypes, for messages."""
        return ", ".join(f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}" for tensor in self.tensors)


def from_shapes(input_shape: Any, dtype: Any, default: torch.dtype, integers: Sequence[int], device: Any) -> Arguments:
    """Empty tensors of one sample.

    Args:
        input_shape: a shape without batch dimension, a sequence of them, or a mapping from argument names to them.
        dtype: of all inputs, or one for each as a sequence or mapping; None leaves it to ``default``.
        default: of inputs without a dtype, but for the inputs at ``integers``, which are token ids.
        device: where they lie.

    Raises:
        ValueError: something that is no shape, an unknown dtype, or more or fewer of them than inputs.
    """
    named = dict(input_shape) if isinstance(input_shape, Mapping) else None
    shapes = _shapes(list(named.values()) if named is not None else input_shape, input_shape)
    kinds = _kinds(dtype, len(shapes), list(named) if named is not None else None)
    tensors = [
        torch.zeros((1, *shape), dtype=kind or (torch.int64 if place in integers else default), device=device)
        for place, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
    ]
    if named is not None:
        return Arguments((), dict(zip(named, tensors, strict=True)))
    return Arguments(tuple(tensors), {})


def from_tensors(inputs: Any, device: torch.device) -> Arguments:
    """The user's inputs: one tensor, a sequence of positional arguments or a mapping of keyword arguments.

    Raises:
        ValueError: no tensor is in them.
    """
    if isinstance(inputs, Mapping):
        given = Arguments((), dict(inputs))
    elif isinstance(inputs, Sequence) and not isinstance(inputs, str):
        given = Arguments(tuple(inputs), {})
    else:
        given = Arguments((inputs,), {})
    if not given.tensors:
        raise ValueError(
            "inputs must be a tensor, a sequence of positional arguments or a mapping of keyword arguments with "
            f"tensors in them, but it is {inputs!r}"
        )

    def placed(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        return torch.empty_like(leaf, device="meta") if device.type == "meta" else leaf.detach().to(device, copy=True)

    args, kwargs = tree_map(placed, tuple(given))
    return Arguments(args, kwargs)


def _shapes(shapes: Any, given: Any) -> list[tuple[int, ...]]:
    items = tuple(shapes) if isinstance(shapes, Sequence) and not isinstance(shapes, str) else None
    nested = items is not None and items and all(isinstance(item, Sequence) for item in items)
    found = [tuple(item) for item in items or ()] if nested else [items]
    for shape in found:
        if not shape or any(isinstance(n, bool) or not hasattr(n, "__index__") or n < 1 for n in shape):
            raise ValueError(
                "input_shape must be one sample's sizes without batch dimension, such as (3, 32, 32), a sequence of "
                f"such shapes or a mapping of names to them, but it is {given!r}"
            )
    return [tuple(int(n) for n in shape or ()) for shape in found]


def _kinds(dtype: Any, inputs: int, names: list[str] | None) -> list[torch.dtype | None]:
    if isinstance(dtype, Mapping):
        for name in dtype:
            if name not in (names or ()):
                raise ValueError(f"dtype names {name!r}, which is no input (inputs: {names or 'have no names'})")
        chosen = [dtype.get(name) for name in names or ()]
    elif isinstance(dtype, Sequence) and not isinstance(dtype, str):
        chosen = list(dtype)
        if len(chosen) != inputs:
            raise ValueError(f"dtype must be one for all inputs, or one for each of {inputs}, but it is {dtype!r}")
    else:
        chosen = [dtype] * inputs
    return [_kind(each) for each in chosen]


def _kind(dtype: Any) -> torch.dtype | None:
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and not isinstance(kind, torch.dtype):
        raise ValueError(f"dtype must be a torch.dtype or its name, such as 'int64', but it is {dtype!r}")
    return kind
