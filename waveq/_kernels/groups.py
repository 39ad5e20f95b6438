"""Which layers are rounded together, and what is remembered of their weights until they change.

The first layer that is read after the weights changed has those rounded too that were read the time before. What was
made is handed out behind autograd nodes of a few neighbours (``rounding``), so that a part of a model, a part of a
graph, checkpointing and gradients that are sent off before the last one is there all work as layer by layer.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from waveq._kernels.backends import forced
from waveq._kernels.engine import Engine
from waveq._kernels.rounding import Formulas, Layer, Record, Sines, hand_out, records_of

__all__ = ["Groups", "Memory", "Reader", "alike", "forget_weights", "generation", "round_alone"]

_generation = 0


def forget_weights(*_unused: Any) -> None:
    """What is remembered of any weight no longer counts; called after every optimizer's step.

    An optimizer that writes through ``.data`` leaves a tensor's version as it was, so the version alone will not do.
    """
    global _generation
    _generation += 1


register_optimizer_step_post_hook(forget_weights)


def generation() -> int:
    """Another number after every optimizer's step in the process, and after ``forget_weights``."""
    return _generation


class Group:
    """Layers that were rounded together, and what their node has made of them so far.

    Attributes:
        record: what was made.
        sines: their waves behind the node that was made last; None before the first one, and without a wave.
    """

    __slots__ = ("_pending", "record", "sines")

    def __init__(self, record: Record) -> None:
        self.record = record
        self._pending: list[Tensor | None] = [None] * len(record.weights)
        self.sines: Sines | None = None

    def holds(self, place: int) -> bool:
        """Whether a layer's quantised values are still there, as they were made."""
        values = self._pending[place]
        if values is None and self.record.rounded:
            values = self.record.rounded[place]
        return values is not None and values._version == 0

    def take(self, place: int) -> Tensor:
        """One layer's quantised weights; a layer that is read again gets them from a new node."""
        values = self._pending[place]
        if values is None:
            made, self.sines = hand_out(self.record)
            self._pending, values = list(made), made[place]
        self._pending[place] = None
        return values


class Memory:
    """What was made of one layer's weight since it last changed.

    A weight counts as unchanged while it is the same tensor with the same address and version, no optimizer in the
    process has taken a step and, once a backward pass has gone through, while its gradient is being accumulated: a
    training loop that updates ``.data`` by hand clears the gradient before its next forward pass. Without gradients
    nothing is remembered here: see ``method.kept_weights``.
    """

    __slots__ = ("_generation", "_marks", "_version", "_weight", "group", "place")

    def __init__(self) -> None:
        self.clear()

    def __deepcopy__(self, _memo: dict[int, Any]) -> Memory:
        return Memory()

    def __reduce__(self) -> tuple[type[Memory], tuple[()]]:
        return Memory, ()

    def clear(self) -> None:
        """Forget, and free the quantised values."""
        self.group: Group | None = None
        self.place = self._generation = 0
        self._weight: Tensor | None = None  # kept, so that no other one can take its place in memory unnoticed
        self._version: tuple[int, int] | None = None
        self._marks: Hashable = None

    def remember(self, reader: Reader, weight: Tensor, group: Group, place: int) -> None:
        """What has just been made."""
        self.group, self.place, self._weight, self._generation = group, place, weight, _generation
        self._version, self._marks = (weight._version, weight.data_ptr()), (forced(), reader.marks())

    def current(self, reader: Reader, weight: Tensor) -> Group | None:
        """The group, if nothing that its values follow from has changed since."""
        group = self.group
        if group is None or self._generation != _generation or self._weight is not weight:
            return None
        if group.record.used[self.place] and (not weight.is_leaf or weight.grad is None):
            return None
        unchanged = self._version == (weight._version, weight.data_ptr())
        return group if unchanged and self._marks == (forced(), reader.marks()) else None


class Reader(Layer, Protocol):
    """What is asked of a layer that is read."""

    memory: Memory

    def marks(self) -> Hashable:
        """Names everything but the weight that the quantised values depend on."""

    def joins(self) -> bool:
        """Whether the weight is quantised with others' now."""


class Groups:
    """The layers of one ``attach``; a copy starts empty and finds its layers as they are read.

    Attributes:
        wave: whether the wave is computed along with the rounding.
        alone: whether each layer is rounded by itself and nothing is remembered: weights of which a process holds
            parts are whole only while their own layer runs.
    """

    def __init__(self) -> None:
        self.wave = self.alone = False
        # whether quantised weights are read again after a backward pass: in the last step, in this one
        self._accumulates = self._read_again = False
        self._readers: dict[int, tuple[Reader, Tensor]] = {}  # by id: the layer and its weight when it was read last

    def __deepcopy__(self, _memo: dict[int, Any]) -> Groups:
        twin = Groups()
        twin.wave = self.wave
        return twin

    def __reduce__(self) -> tuple[type[Groups], tuple[()]]:
        return Groups, ()

    def read(self, reader: Reader, weight: Tensor, engine: Engine) -> Tensor:
        """The layer's quantised weights, differentiable in the weights and in what learns beside them."""
        if (values := self.remembered(reader, weight)) is not None:
            return values
        if reader.memory.current(reader, weight) is not None:
            self._accumulates = self._read_again = True
        return self._hand_out(reader, weight, self._round(reader, weight, engine))

    def remembered(self, reader: Reader, weight: Tensor) -> Tensor | None:
        """The same, if the weights have been rounded since they last changed."""
        group = reader.memory.current(reader, weight)
        if group is None or not group.holds(reader.memory.place):
            return None
        return self._hand_out(reader, weight, group)

    def _hand_out(self, reader: Reader, weight: Tensor, group: Group) -> Tensor:
        place = reader.memory.place
        self._read_again = self._read_again or group.record.used[place]
        self._readers[id(reader)] = (reader, weight)
        return group.take(place)

    def end_step(self) -> None:
        """The weights change now: what this step did is what the next one is taken to do."""
        self._accumulates, self._read_again = self._read_again, False

    def _round(self, asked: Reader, weight: Tensor, engine: Engine) -> Group:
        """Round the asked layer's weights, and those of all that were read since the last time and changed since."""
        crowd = [(asked, weight)]
        if engine.joins(weight.dtype):
            kind = kind_of(asked, weight)
            for reader, theirs in self._readers.values():
                gone = reader is not asked and reader.joins() and _is_gone(reader, theirs)
                if gone and kind_of(reader, theirs) == kind:
                    crowd.append((reader, theirs))
        for reader, _ in crowd:
            self._readers.pop(id(reader), None)  # whoever is not read until the next time is not rounded again
        readers, weights = [reader for reader, _ in crowd], [each for _, each in crowd]
        formulas = Formulas(readers, weights, engine, rounds=True, wave=self.wave)
        place = 0
        for record in records_of(formulas, weights, engine, keeps=self._accumulates):
            group = Group(record)
            for seat in range(len(record.weights)):
                readers[place].memory.remember(readers[place], weights[place], group, seat)
                place += 1
        assert asked.memory.group is not None
        return asked.memory.group


def round_alone(layer: Layer, weight: Tensor, engine: Engine) -> Tensor:
    """A layer's quantised weights where nothing is to be remembered."""
    formulas = Formulas([layer], [weight], engine, rounds=True, wave=False)
    (record,) = records_of(formulas, [weight], engine, keeps=False)
    return hand_out(record)[0][0] if torch.is_grad_enabled() else record.rounded[0]


def alike(layers: Sequence[Layer], weights: Sequence[Tensor]) -> list[list[int]]:
    """The places of layers that one call can take, kind by kind."""
    kinds: dict[Hashable, list[int]] = {}
    for place, (layer, weight) in enumerate(zip(layers, weights, strict=True)):
        kinds.setdefault(kind_of(layer, weight), []).append(place)
    return list(kinds.values())


def kind_of(layer: Layer, weight: Tensor) -> Hashable:
    """Equal for layers that one engine can take and whose quantisers differ in nothing but what is stacked."""
    quantizer = layer._modules["quantizer"]
    kept = vars(quantizer)
    traits = tuple(map(kept.__getitem__, _names(tuple(kept))))
    if not _PLAIN.issuperset(map(type, traits)):
        return id(quantizer)  # nobody can say whether two of them are the same
    by_channel = kept["_channels"] is not None
    return traits, type(quantizer), by_channel, layer.grid, weight.dtype, weight.device, type(weight)


@functools.lru_cache(maxsize=64)
def _names(kept: tuple[str, ...]) -> tuple[str, ...]:
    """The attributes that a quantiser's class has given it."""
    return tuple(name for name in kept if name[0] != "_" and name != "training")


_PLAIN = {str, int, float, bool, type(None)}


def _is_gone(reader: Reader, weight: Tensor) -> bool:
    """Whether a layer has to be rounded: its weights have changed, or a backward pass has dropped what was made."""
    group = reader.memory.current(reader, weight)
    return group is None or not group.holds(reader.memory.place)
