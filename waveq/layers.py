"""Which layers of a model can be quantised, and how users name the ones that are not."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from torch import nn

from waveq._names import nearest

__all__ = ["QUANTIZABLE", "quantizable", "resolve_skip"]

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
    layers = {name: module for name, module in model.named_modules() if isinstance(module, QUANTIZABLE)}
    left_out = resolve_skip(skip, layers)
    return {name: module for name, module in layers.items() if name not in left_out}


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
