"""A network of somebody else's to attach to: how it is made, what it is called with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

__all__ = ["Case", "image", "tokens"]


@dataclass(frozen=True)
class Case:
    """One network, small and with random weights; nothing is downloaded.

    Attributes:
        name: in the table.
        package: that it comes from, for ``importlib``; "torch" for the ones built here.
        make: builds it.
        inputs: the keywords or positional arguments of one call.
        attach: options of ``attach`` beside the bits.
        why: what is special about it.
    """

    name: str
    package: str
    make: Callable[[], nn.Module]
    inputs: Callable[[], Mapping[str, Any] | tuple[Any, ...]]
    attach: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""


def image(size: int = 32, batch: int = 2) -> Callable[[], tuple[Any, ...]]:
    """A batch of noise as images of three channels."""
    return lambda: (torch.randn(batch, 3, size, size),)


def tokens(names: str = "input_ids", *, vocabulary: int = 60, length: int = 8) -> Callable[[], dict[str, Any]]:
    """A batch of two rows of token numbers under each of the names (apart by blanks)."""
    return lambda: {name: torch.randint(5, vocabulary, (2, length)) for name in names.split()}
