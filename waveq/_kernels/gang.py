"""Many layers' weights rounded in one call, the wave riding along: what Python costs a layer is paid once a step.

The first layer that is read after the weights changed has those rounded too that were read the time before. Behind
autograd's nodes they stand in bands of a few neighbours (``band``), so that a part of a model, a part of a graph,
checkpointing and gradients that are sent off before the last one is there all work as without the gang.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, cast

from torch import Tensor

from waveq._kernels.band import Band, Work, bands_of
from waveq._kernels.interface import JointEngine
from waveq._kernels.recipe import Plan
from waveq._kernels.rounding import Seen, Use, WeightMemory
from waveq._kernels.storage import vector

__all__ = ["Gang", "Member"]


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
        accumulates: whether quantised weights are read again after a backward pass, in this step or the one before.
        refresh: called before weights are rounded: a checkpoint may have been loaded, which changes the two above.
    """

    def __init__(self) -> None:
        self.order: int | None = None
        self.sine_moves_beta = False
        self.accumulates = False
        self._read_again = False
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
        return self.hand_out(member, self.fill(member, weight, engine) if seen is None else seen)

    def remembered(self, member: Member, weight: Tensor) -> Seen | None:
        """What was made of the weight by the gang, if it is still there and what it follows from has not changed."""
        seen = self._followed(member, weight)
        return seen if seen is not None and cast(Band, seen.band).holds(seen.place) else None

    def _followed(self, member: Member, weight: Tensor) -> Seen | None:
        seen = member.memory.current(weight)
        return None if seen is None or seen.band is None or seen.key != member.values_key() else seen

    def hand_out(self, member: Member, seen: Seen) -> Tensor:
        """The quantised weights behind a node that no other read has been given."""
        assert seen.band is not None
        self._read_again = self._read_again or seen.use.used
        self._seats[id(member)] = (member, seen.weight)
        return seen.band.take(seen.place)

    def fill(self, asked: Member, weight: Tensor, engine: JointEngine) -> Seen:
        """Round the asked layer's weights, and those of all that were read since the last time and changed since."""
        self.refresh()
        if self._followed(asked, weight) is not None:
            self.accumulates = self._read_again = True
        crowd = [(asked, weight)]
        for member, theirs in self._seats.values():
            if member is not asked and _is_gone(member.memory.current(theirs)) and member.joins(theirs):
                crowd.append((member, theirs))
        crew = self._crew
        if crew is None or not crew.fits(crowd, engine, self):
            crew = self._crew = _Crew(crowd, engine, self)
        for member, _ in crowd:
            self._seats.pop(id(member), None)  # whoever is not read until the next time is not rounded again
        return crew.work(keeps=self.accumulates)[0]

    def end_step(self) -> None:
        """The weights change now: what this step did is what the next one is taken to do."""
        self.accumulates, self._read_again = self._read_again, False

    def wave(self, member: Member, weight: Tensor) -> tuple[Tensor, int] | None:
        """R_k of the member's band, and its place there; None where the weights were not read as they are now."""
        seen = self._followed(member, weight)
        if seen is None or seen.band is None or seen.band.wave is None:
            return None
        return seen.band.wave, seen.place


class _Crew:
    """The layers that were rounded together last, with the tables of the call; most steps find them unchanged."""

    def __init__(self, crowd: Sequence[tuple[Member, Tensor]], engine: JointEngine, gang: Gang) -> None:
        self.members = [member for member, _ in crowd]
        self.weights = [weight for _, weight in crowd]
        self.engine, self.way = engine, (gang.order, gang.sine_moves_beta)
        self.job = engine.job(self.weights)
        self.keys: list[Hashable] = [None] * len(crowd)
        self.plans: list[Plan | None] = [None] * len(crowd)
        self.bands = bands_of([weight.numel() for weight in self.weights])

    def fits(self, crowd: Sequence[tuple[Member, Tensor]], engine: JointEngine, gang: Gang) -> bool:
        """Whether the same layers are to be rounded in the same way, and lie where they lay."""
        return (
            self.engine is engine
            and self.way == (gang.order, gang.sine_moves_beta)
            and len(crowd) == len(self.members)
            and all(ours is theirs for ours, (theirs, _) in zip(self.members, crowd, strict=True))
            and self.job.fits([weight for _, weight in crowd])
        )

    def work(self, *, keeps: bool) -> list[Seen]:
        """Round all of them; what was made goes into their memories."""
        job = self.job
        changed, fresh = [], []
        for i, member in enumerate(self.members):
            key = member.values_key()
            if key != self.keys[i]:
                self.keys[i], self.plans[i] = key, member.plan(self.weights[i])
                changed.append(i)
                fresh.append(self.plans[i])
        if changed:
            job.set(changed, cast(list[Plan], fresh), follows=True)
        rounded, sines, largest = job.run()
        made: list[Seen] = []
        for part in self.bands:
            band = self._band(part, rounded[part], sines[part], keeps)
            made += self._tell(part, band, largest[part])
        return made

    def _band(self, part: slice, rounded: list[Tensor], sines: list[float], keeps: bool) -> Band:
        """Some neighbours as they have been rounded, behind one node."""
        weights, plans = self.weights[part], cast(list[Plan], self.plans[part])
        uses, versions = [Use() for _ in weights], [weight._version for weight in weights]
        values = None
        if self.way[0] is not None:
            values = vector([s * plan.wave.damping for s, plan in zip(sines, plans, strict=True) if plan.wave])
        tables = self.job.tables(part)
        return Band(Work(self.engine, weights, plans, sines, tables, uses, versions, rounded, keeps), values)

    def _tell(self, part: slice, band: Band, largest: list[float]) -> list[Seen]:
        """The band's members remember it."""
        made = []
        for place, member in enumerate(self.members[part]):
            seen = member.memory.renewed(self.weights[part][place])
            seen.key, seen.largest, seen.use = self.keys[part][place], largest[place], band.uses[place]
            seen.band, seen.place = band, place
            made.append(seen)
        return made


def _is_gone(seen: Seen | None) -> bool:
    """Whether a layer has to be rounded: its weights have changed, or a backward pass has dropped what was made."""
    return seen is None or (seen.band is not None and not seen.band.holds(seen.place))


def _nothing() -> None:
    """No handle to ask: the model is a copy of its own."""
