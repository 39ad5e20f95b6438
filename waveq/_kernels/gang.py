"""Many layers' weights rounded in one call, the wave riding along: what Python costs a layer is paid once a step.

The first layer that is read after the weights changed has those rounded too that were read the time before. Each read
still makes an autograd node of its own layer, so that a part of a model, a part of a graph, checkpointing and
gradients that are sent off layer by layer all work as without the gang. A node hands out two tensors: the quantised
weights, and R_k of the layer, whose gradient goes back in the same pass over the weights as the rounding's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from waveq._kernels.interface import JointEngine
from waveq._kernels.recipe import Plan, Wave
from waveq._kernels.rounding import Seen, WeightMemory, leaf_gradient
from waveq._kernels.storage import scalars

__all__ = ["Gang", "Member", "wave_total"]

_LN2 = math.log(2.0)


class Member(Protocol):
    """What a gang must know of a layer."""

    memory: WeightMemory

    def values_key(self) -> Hashable:
        """Names everything but the weight that the quantised values depend on."""

    def plan(self, weight: Tensor) -> Plan:
        """How the weight is rounded, but for what follows from max|w|, and its wave where it is wanted."""

    def joins(self, weight: Tensor) -> bool:
        """Whether the weight is quantised by the gang now."""


class Gang:
    """The layers of one ``attach``; a copy starts empty and finds its layers as they are read.

    Attributes:
        order: k of R_k where the wave rides along; None where it does not.
        sine_moves_beta: whether the wave's gradient goes on to beta.
        refresh: called before weights are rounded: a checkpoint may have been loaded, which changes the two above.
    """

    def __init__(self) -> None:
        self.order: int | None = None
        self.sine_moves_beta = False
        self.refresh: Callable[[], object] = _nothing
        self._crew: _Crew | None = None
        self._seats: dict[int, tuple[Member, Tensor]] = {}  # by id: the layer and its weight when it was read last

    def __deepcopy__(self, _memo: dict[int, Any]) -> Gang:
        twin = Gang()
        twin.order, twin.sine_moves_beta = self.order, self.sine_moves_beta
        return twin

    def __reduce__(self) -> tuple[type[Gang], tuple[()]]:
        return Gang, ()

    def read(self, member: Member, weight: Tensor, engine: JointEngine) -> Tensor:
        """The member's quantised weights, differentiable in the weights and in what learns beside them."""
        seen = self.remembered(member, weight)
        return self.hand_out(member, self._fill(member, weight, engine) if seen is None else seen)

    def remembered(self, member: Member, weight: Tensor) -> Seen | None:
        """What was made of the weight by the gang, if nothing that it follows from has changed since."""
        seen = member.memory.current(weight)
        if (
            seen is None
            or seen.plan is None
            or seen.weight is not weight
            or seen.rounded is None
            or seen.rounded._version != 0
            or seen.key != member.values_key()
        ):
            return None
        return seen

    def hand_out(self, member: Member, seen: Seen) -> Tensor:
        """The quantised weights behind a node of their own."""
        assert seen.weight is not None
        assert seen.plan is not None
        self._seats[id(member)] = (member, seen.weight)
        leaves = [leaf.tensor for leaf in seen.plan.rounding.leaves]
        quantized, seen.wave = _read(seen, member.memory, seen.weight, *leaves)
        return quantized

    def _fill(self, asked: Member, weight: Tensor, engine: JointEngine) -> Seen:
        """Round the asked layer's weights, and those of all that were read since the last time and changed since."""
        self.refresh()
        crowd = [(asked, weight)]
        for member, theirs in self._seats.values():
            if member is not asked and member.memory.current(theirs) is None and member.joins(theirs):
                crowd.append((member, theirs))
        crew = self._crew
        if crew is None or not crew.fits(crowd, engine, self):
            crew = self._crew = _Crew(crowd, engine, self)
        for member, _ in crowd:
            self._seats.pop(id(member), None)  # whoever is not read until the next time is not rounded again
        return crew.work()[0]

    def wave(self, member: Member, weight: Tensor) -> Tensor | None:
        """R_k of the member, 0-dim, from its last read; None where the weights were not read as they are now."""
        seen = self.remembered(member, weight)
        return None if seen is None else seen.wave


class _Crew:
    """The layers that were rounded together last, with the tables of the call; most steps find them unchanged."""

    def __init__(self, crowd: Sequence[tuple[Member, Tensor]], engine: JointEngine, gang: Gang) -> None:
        self.members = [member for member, _ in crowd]
        self.weights = [weight for _, weight in crowd]
        self.engine, self.way = engine, (gang.order, gang.sine_moves_beta)
        self.job = engine.job(self.weights)
        self.keys: list[Hashable] = [None] * len(crowd)
        self.plans: list[Plan | None] = [None] * len(crowd)

    def fits(self, crowd: Sequence[tuple[Member, Tensor]], engine: JointEngine, gang: Gang) -> bool:
        """Whether the same layers are to be rounded in the same way, and lie where they lay."""
        return (
            self.engine is engine
            and self.way == (gang.order, gang.sine_moves_beta)
            and len(crowd) == len(self.members)
            and all(ours is theirs for ours, (theirs, _) in zip(self.members, crowd, strict=True))
            and self.job.fits([weight for _, weight in crowd])
        )

    def work(self) -> list[Seen]:
        """Round all of them; what was made goes into their memories."""
        job = self.job
        for i, member in enumerate(self.members):
            key = member.values_key()
            if key != self.keys[i]:
                fresh = self.plans[i] = member.plan(self.weights[i])
                self.keys[i] = key
                job.set(i, fresh, follows=True)
        rounded, sines, largest = job.run()
        places, rows = job.places.copy(), job.rows.copy()  # the next call writes to the job's own
        made = []
        for i, member in enumerate(self.members):
            plan, weight = self.plans[i], self.weights[i]
            assert plan is not None
            seen = member.memory.renewed(weight)
            seen.weight, seen.engine, seen.key, seen.plan, seen.wave = weight, self.engine, self.keys[i], plan, None
            seen.rounded, seen.sine, seen.largest, seen.prepared = (
                rounded[i],
                sines[i],
                largest[i],
                (places[i], rows[i]),
            )
            made.append(seen)
        if self.way[0] is not None:
            damped = [
                sine * plan.wave.damping for sine, plan in zip(sines, self.plans, strict=True) if plan and plan.wave
            ]
            for seen, value in zip(made, scalars(damped), strict=True):
                seen.value = value
        return made


def _nothing() -> None:
    """No handle to ask: the model is a copy of its own."""


class _Read(torch.autograd.Function):
    """Keeps no tensor of its own: the weights are an input and stay; u is computed again on the way back.

    They are not saved in autograd's way, so that the task's and the wave's loss may go back one after the other.
    """

    @staticmethod
    def forward(
        ctx: Any, seen: Seen, memory: WeightMemory, weight: Tensor, *_leaves: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.work = seen, memory, weight, weight._version
        assert seen.rounded is not None
        return seen.rounded.detach(), None if seen.value is None else seen.value.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor | None, pull: Tensor | None) -> tuple[Tensor | None, ...]:
        seen, memory, weight, version = ctx.work
        if above is None and pull is None:
            return (None,) * len(ctx.needs_input_grad)
        if weight._version != version:
            raise RuntimeError(
                "the weights of a quantised layer were changed in place between the forward and the backward pass "
                f"(version {version} to {weight._version}): their gradient cannot be computed any more"
            )
        memory.mark_used()
        plan = seen.plan
        above = torch.zeros_like(weight) if above is None else above
        strength = 0.0 if pull is None else pull.item()
        grads = seen.engine.pull_back(weight, plan, seen.prepared, above, strength)
        shares: list[Tensor | None] = [None, None, grads.weight if ctx.needs_input_grad[2] else None]
        for leaf in plan.rounding.leaves:
            if not leaf.by_wave:
                shares.append(leaf_gradient(leaf, grads))
            elif pull is not None:
                shares.append(leaf_gradient(leaf, grads, strength * _slope_in_beta(plan.wave, seen.sine, grads.moment)))
            else:
                shares.append(leaf_gradient(leaf, grads) if leaf.pitch else None)
        return tuple(shares)


# Function.apply without its look-out for torch.func's transforms: whoever asks an engine has looked already
_read: Callable[..., tuple[Tensor, Tensor | None]] = super(torch.autograd.Function, _Read).apply


def _slope_in_beta(wave: Wave, sine: float, moment: float) -> float:
    """dR_k/dbeta, see ``functional.sine_penalty_gradients``."""
    growth: float = 2.0**wave.beta
    return _LN2 * wave.damping * (math.pi * growth * moment - wave.order * sine)


def wave_total(
    waves: Sequence[Tensor], strengths: Sequence[float], betas: Sequence[Tensor], prices: Sequence[float]
) -> Tensor:
    """sum_i strength_i R_i + sum_j price_j beta_j, 0-dim float32, in one node."""
    total: Tensor = _Total.apply((*strengths, *prices), *waves, *betas)  # type: ignore[no-untyped-call]
    return total


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, factors: Sequence[float], *terms: Tensor) -> Tensor:
        ctx.factors = factors
        return scalars([sum(factor * term.item() for factor, term in zip(factors, terms, strict=True))])[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
        size = above.item()
        return None, *scalars([factor * size for factor in ctx.factors])
