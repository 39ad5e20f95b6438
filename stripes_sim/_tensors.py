"""What a trace knows of every tensor: which value it holds, how much of it is distinct, and what was there before.

A *value* is what one operator makes of the model's inputs; views of it and what is written into it are the same value.
A tensor that repeats another one (key heads for the query heads that share them), moves it about or changes each of its
elements has no more distinct elements than that one. What is computed from inputs of the model without a layer between
(a cache that is scaled) was stored before the run like them.

>>> import torch
>>> tensors = Tensors()
>>> cache = torch.empty(2, 1, 16, device="meta")
>>> tensors.enter(cache)
>>> repeated = cache.expand(2, 4, 16)
>>> tensors.follow("expand", [cache], [repeated])
>>> tensors.distinct(repeated), tensors.before(repeated)
(32, 32)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from stripes_sim._operators import JOINS, MOVES

__all__ = ["Tensors"]


@dataclass
class _Value:
    """Elements, and the operators between which it must be kept; ``stored``: it was there before the run."""

    elements: int
    made: int
    used: int
    stored: bool


class _Held(NamedTuple):
    """What a tensor holds: its value (None for weights and constants), distinct elements, those stored before."""

    value: int | None
    distinct: int
    before: int


class Tensors:
    """The tensors of one run, followed from operator to operator."""

    def __init__(self) -> None:
        self.operators = 0
        self._held: Any = WeakIdKeyDictionary()
        self._values: list[_Value] = []

    def enter(self, tensor: Tensor) -> None:
        """An input of the model, which was stored before the run."""
        self._held[tensor] = _Held(self._new(tensor, stored=True), tensor.numel(), tensor.numel())

    def distinct(self, tensor: Tensor) -> int:
        """How many elements differ in origin."""
        return self._of(tensor).distinct

    def before(self, tensor: Tensor) -> int:
        """How many of them were stored before the run."""
        return self._of(tensor).before

    def values(self, tensors: Iterable[Tensor]) -> frozenset[int]:
        """The values that tensors hold."""
        return frozenset(held.value for held in map(self._of, tensors) if held.value is not None)

    def follow(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], *, layer: bool = False) -> None:
        """An operator has run; ``layer``: it multiplies matrices, so that its result is new in every way."""
        self.operators += 1
        sources = [self._of(tensor) for tensor in inputs]
        for held in sources:
            if held.value is not None:
                self._values[held.value].used = self.operators
        homes = {_home(tensor): held.value for tensor, held in zip(inputs, sources, strict=True)}
        running = [(tensor, held) for tensor, held in zip(inputs, sources, strict=True) if held.value is not None]
        for tensor in outputs:
            if any(tensor is each for each in inputs):
                continue  # written in place: the same value as before
            home = _home(tensor)
            distinct, before = (tensor.numel(), 0) if layer else _amounts(name, tensor, sources, running)
            if home not in homes:
                homes[home] = self._new(tensor, stored=before == distinct > 0) if running else None
            self._held[tensor] = _Held(homes[home], distinct, before)

    def waiting(self, at: int, own: frozenset[int]) -> int:
        """Elements of this run that are kept over operator ``at`` for a later one, but for its ``own`` values."""
        return sum(
            value.elements
            for number, value in enumerate(self._values)
            if not value.stored and value.made < at < value.used and number not in own
        )

    def _of(self, tensor: Tensor) -> _Held:
        known = self._held.get(tensor)
        # a tensor of the model: a weight or a constant
        return known if known is not None else _Held(None, tensor.numel(), tensor.numel())

    def _new(self, tensor: Tensor, *, stored: bool) -> int:
        elements = tensor.numel() if tensor.is_floating_point() else 0
        self._values.append(_Value(elements, self.operators, self.operators, stored))
        return len(self._values) - 1


def _amounts(
    name: str, tensor: Tensor, sources: Sequence[_Held], running: Sequence[tuple[Tensor, _Held]]
) -> tuple[int, int]:
    """Distinct elements of a result, and those stored before; ``running``: operands that hold values."""
    size = tensor.numel()
    if name in JOINS:
        return min(size, sum(held.distinct for held in sources)), min(size, sum(held.before for held in sources))
    if name in MOVES and sources:
        whole = max(sources[0].distinct, 1)
        part = min(size, whole)
        return part, round(part * sources[0].before / whole)
    if len(running) == 1 and running[0][0].numel() == size:
        return running[0][1].distinct, running[0][1].before
    stored = bool(running) and all(held.before == held.distinct for _, held in running)
    return size, size if stored else 0


def _home(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
