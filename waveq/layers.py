"""Which layers of a model can be quantised, and how users name the ones that are not."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from waveq._names import nearest

__all__ = ["QUANTIZABLE", "Outputs", "is_layer", "outputs_of", "quantizable", "resolve_skip"]

QUANTIZABLE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def quantizable(model: nn.Module, skip: Iterable[str] = ()) -> dict[str, nn.Module]:
    """The layers with a weight to quantise, by ``named_modules()`` name and in its order, less the skipped ones.

    A module that is used in several places appears once, under its first name.

    Args:
        model: any module.
        skip: exact names or patterns ("layer1.*").

    Raises:
        ValueError: a name or pattern in skip matches no layer.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 10))
        >>> list(quantizable(net)), list(quantizable(net, skip=("0",)))
        (['0', '3'], ['3'])
    """
    layers = {name: module for name, module in model.named_modules() if is_layer(module)}
    left_out = resolve_skip(skip, layers)
    return {name: module for name, module in layers.items() if name not in left_out}


def is_layer(module: nn.Module) -> bool:
    """Whether a module is one of ``QUANTIZABLE``, or the linear layer that transformers calls Conv1D."""
    return isinstance(module, QUANTIZABLE) or _is_transformers_conv1d(module)


def _is_transformers_conv1d(module: nn.Module) -> bool:
    """By name, so that nobody imports transformers for the question."""
    return any(
        kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.") for kind in type(module).__mro__
    )


@dataclass(frozen=True)
class Outputs:
    """Where the output channels of a weight lie.

    Attributes:
        axis: the axis that counts them, 0 or 1; within a group where there are several.
        groups: equal parts of axis 0 with outputs of their own, where ``axis`` is 1.

    Example:
        >>> import torch
        >>> Outputs(axis=1).rows(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])).tolist()
        [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
    """

    axis: int = 0
    groups: int = 1

    def count(self, weight: Tensor) -> int:
        """How many outputs a weight has; a vector is one."""
        if weight.ndim < 2:
            return 1
        return weight.shape[0] if self.axis == 0 else self.groups * weight.shape[1]

    def rows(self, weight: Tensor) -> Tensor:
        """(outputs, values of each); a vector is one output."""
        if weight.ndim < 2:
            return weight.reshape(1, -1)
        if self.axis == 0:
            return weight.reshape(weight.shape[0], -1)
        return self._by_group(weight).reshape(self.groups * weight.shape[1], -1)

    def back(self, rows: Tensor, like: Tensor) -> Tensor:
        """``rows`` in the shape of the weight that they were made from."""
        if like.ndim < 2 or self.axis == 0:
            return rows.reshape(like.shape)
        return rows.reshape(self._by_group(like).shape).transpose(1, 2).reshape(like.shape)

    def spread(self, numbers: Tensor, like: Tensor) -> Tensor:
        """One number (outputs,) for each output, at the place of each of its weights; the shape broadcasts to them.

        Example:
            >>> import torch
            >>> Outputs().spread(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 3)).shape
            torch.Size([2, 1, 1])
        """
        if like.ndim < 2 or self.axis == 0:
            return numbers.reshape(-1, *[1] * (like.ndim - 1))
        return self.back(numbers[:, None].expand(-1, like.numel() // len(numbers)), like)

    def _by_group(self, weight: Tensor) -> Tensor:
        """(groups, outputs of a group, inputs of a group, ...)."""
        return weight.reshape(self.groups, weight.shape[0] // self.groups, *weight.shape[1:]).transpose(1, 2)


def outputs_of(module: nn.Module) -> Outputs:
    """Where the output channels of a layer's weight lie: the first axis, but for transposed ones.

    ConvTranspose has (inputs, outputs / groups, ...), transformers' Conv1D (inputs, outputs).

    Example:
        >>> outputs_of(nn.ConvTranspose2d(4, 6, 3, groups=2))
        Outputs(axis=1, groups=2)
    """
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        return Outputs(axis=1, groups=module.groups)
    return Outputs(axis=1) if _is_transformers_conv1d(module) else Outputs()


def resolve_skip(skip: Iterable[str], names: Iterable[str]) -> set[str]:
    """The names that the exact names and patterns of ``skip`` stand for."""
    if isinstance(skip, str):
        raise TypeError(f"skip must be a sequence of names, not the string {skip!r}; write skip=({skip!r},)")
    known = list(names)
    left_out: set[str] = set()
    for entry in skip:
        hits = fnmatch.filter(known, entry)
        if not hits and any(name.startswith(f"{entry}.") for name in known):
            raise ValueError(f"skip names {entry!r}, which holds layers but is none; for all of them write '{entry}.*'")
        if not hits:
            raise ValueError(f"skip names {entry!r}, which matches no layer{nearest(entry, known)}")
        left_out.update(hits)
    return left_out
