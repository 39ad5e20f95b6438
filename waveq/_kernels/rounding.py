"""Weights and activations on their levels behind autograd functions that keep nothing but their inputs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.optim.optimizer import register_optimizer_step_post_hook

from waveq._kernels.interface import Engine, RoundingGradients
from waveq._kernels.recipe import Leaf, Number, Rounding, held, number

if TYPE_CHECKING:
    from waveq._kernels.band import Band

__all__ = [
    "Seen",
    "Use",
    "WeightMemory",
    "forget_weights",
    "fused_clip_round",
    "fused_round",
    "largest_weights",
    "leaf_share",
]

_generation = 0


def forget_weights(*_unused: Any) -> None:
    """What is remembered of any weight no longer counts; called after every optimizer's step.

    An optimizer that writes through ``.data`` leaves a tensor's version as it was, so the version alone will not do.
    """
    global _generation
    _generation += 1


register_optimizer_step_post_hook(forget_weights)


@dataclass(slots=True)
class Use:
    """Whether a backward pass has gone through a rounding."""

    used: bool = False


@dataclass(slots=True)
class Seen:
    """A weight at one moment, and what was computed from it.

    Attributes:
        weight: the tensor; kept, so that no other one can take its place in memory unnoticed.
        address: where it lay.
        version: how often torch had changed it in place.
        generation: optimizer steps in the process.
        use: whether a backward pass has gone through.
        largest: max|w|.
        key: names all else that ``rounded`` depends on.
        rounded: the quantised values.
        band: the layers that share its node then.
        place: its own among them.
    """

    weight: Tensor
    address: int
    version: int
    generation: int
    use: Use = field(default_factory=Use)
    largest: Number | None = None
    key: Hashable = None
    rounded: Tensor | None = None
    band: Band | None = None
    place: int = 0


class WeightMemory:
    """What was computed of one layer's weight since it last changed: its largest value, its quantised values.

    A weight counts as unchanged while it is the same tensor with the same address and version, no optimizer in the
    process has taken a step and, once a backward pass has gone through, while its gradient is being accumulated: a
    training loop that updates ``.data`` by hand clears the gradient before its next forward pass. Without gradients
    (evaluation, where averaged weights may be swapped in) nothing is remembered.
    """

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: Seen | None = None

    def __deepcopy__(self, _memo: dict[int, Any]) -> WeightMemory:
        return WeightMemory()

    def __reduce__(self) -> tuple[type[WeightMemory], tuple[()]]:
        return WeightMemory, ()

    def clear(self) -> None:
        """Forget, and free the quantised values."""
        self._seen = None

    def mark_used(self) -> None:
        """A backward pass has gone through what is remembered."""
        if self._seen is not None:
            self._seen.use.used = True

    def current(self, weight: Tensor) -> Seen | None:
        """What is remembered, if the weight has not changed since."""
        seen = self._seen
        if (
            seen is None
            or seen.weight is not weight
            or seen.generation != _generation
            or seen.version != weight._version
            or seen.address != weight.data_ptr()
            or (seen.use.used and (not weight.is_leaf or weight.grad is None))
        ):
            return None
        return seen

    def renewed(self, weight: Tensor) -> Seen:
        """What is remembered, emptied if the weight has changed."""
        seen = self.current(weight)
        if seen is None:
            seen = self._seen = Seen(weight, weight.data_ptr(), weight._version, _generation)
        return seen

    def rounded(self, weight: Tensor, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The quantised values for a key that names all else that they depend on."""
        if not torch.is_grad_enabled():
            return make()
        seen = self.renewed(weight)
        if seen.rounded is None or seen.key != key or seen.rounded._version != 0:
            seen.key, seen.rounded = key, make()
        return seen.rounded


def largest_weights(engine: Engine, weights: Sequence[Tensor], memories: Sequence[WeightMemory]) -> list[Number]:
    """max|w| of each weight; those that are not remembered are looked for in one call."""
    if not torch.is_grad_enabled():
        return engine.largest(weights)
    seen = [memory.renewed(weight) for memory, weight in zip(memories, weights, strict=True)]
    missing = [i for i, known in enumerate(seen) if known.largest is None]
    if missing:
        for i, largest in zip(missing, engine.largest([weights[i] for i in missing]), strict=True):
            seen[i].largest = largest
    return [cast(Number, known.largest) for known in seen]


def fused_round(
    engine: Engine, weight: Tensor, rounding: Rounding, memory: WeightMemory | None = None, key: Hashable = None
) -> Tensor:
    """Quantised weights in the dtype and layout of the weights, differentiable in weight, divisor, pitch and gain.

    Args:
        engine: who computes.
        weight: the float weights.
        rounding: where the levels lie, and what learns behind them.
        memory: where to look whether this was computed before; None computes it. Each call still makes its own node in
            the graph, so that one call's backward pass frees nothing of another's.
        key: names everything but the weight that the values depend on.
    """
    memory = WeightMemory() if memory is None else memory
    values = memory.rounded(weight, key, lambda: engine.round(weight, rounding))
    if not torch.is_grad_enabled():
        return values
    inputs = (rounding.coordinate.divisor, rounding.pitch, rounding.gain)
    learned = [number if isinstance(number, Tensor) else None for number in inputs]
    behind = [leaf.tensor for leaf in rounding.leaves]
    result: Tensor = _FusedRound.apply(engine, rounding, memory, (values,), weight, *learned, *behind)
    return result


class _FusedRound(torch.autograd.Function):
    """Keeps the weights, which are there anyway, and a few numbers; u is computed again on the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        engine: Engine,
        rounding: Rounding,
        memory: WeightMemory,
        values: tuple[Tensor],
        weight: Tensor,
        *_numbers: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.work = engine, rounding, memory
        return values[0].detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        engine, rounding, memory = ctx.work
        memory.mark_used()
        grads = engine.round_backward(weight, rounding, above)
        shares: list[Tensor | None] = [grads.weight if ctx.needs_input_grad[4] else None]
        inputs = (rounding.coordinate.divisor, rounding.pitch, rounding.gain)
        for value, share, wanted in zip(
            inputs, (grads.divisor, grads.pitch, grads.gain), ctx.needs_input_grad[5:8], strict=True
        ):
            shares.append(held(share, value).to(value.dtype) if wanted else None)
        shares += [leaf.tensor.new_tensor(leaf_share(leaf, grads)) for leaf in rounding.leaves]
        return (None,) * 4 + tuple(shares)


def leaf_share(leaf: Leaf, grads: RoundingGradients) -> float:
    """What reaches a learned tensor through the plain numbers that follow from it."""
    return leaf.pitch * number(grads.pitch) + leaf.gain * number(grads.gain) + leaf.divisor * number(grads.divisor)


def fused_clip_round(engine: Engine, x: Tensor, *, low: float, steps: float, closed: bool = True) -> Tensor:
    """round(clip(x, low, 1) steps) / steps with the gradient inside the range; x alone is kept for it.

    Args:
        engine: who computes.
        x: activations.
        low: lower end of the range.
        steps: levels in a unit.
        closed: whether x = low still has a gradient; a ReLU has none at 0.
    """
    result: Tensor = _FusedClipRound.apply(engine, low, steps, closed, x)
    return result


class _FusedClipRound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, engine: Engine, low: float, steps: float, closed: bool, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.work = engine, low, closed
        return engine.clip_round(x, low, steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        engine, low, closed = ctx.work
        return (None,) * 4 + (engine.clip_round_backward(x, low, above, closed=closed),)
