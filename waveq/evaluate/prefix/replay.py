"""When and in what chunks a tape stands in for the model: only where it gives the same scores to the last bit.

A matrix product may sum in another order when its shape changes. So before a tape is used for a stretch of data, two
policies' scores from the chunks are compared bit by bit with those of the model itself on the loader's own batches.
Chunks that fail are doubled, up to the whole stretch; then the loader's batches are tried, at last one after the other
with torch's own threads, which may sum in another order too; if nothing passes, no tape is used.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from waveq.evaluate.prefix.tape import Tape, UntraceableError, record_tape
from waveq.evaluate.prefix.walk import PolicyTree, PreparedWeights, grow_tree, walk
from waveq.evaluate.samples import Stretch
from waveq.evaluate.side_by_side import cores, one_thread_per_operation, run_side_by_side
from waveq.evaluate.weights import Policies, WeightBank

__all__ = ["Replay", "UntraceableError"]

_CACHE_BYTES = 1 << 20  # half of a usual second-level cache: what one segment reads and writes should fit
_CHUNK_RANGE = (32, 512)
_TYPICAL_CHOICES = 4.0
_PROBE_SAMPLES = 4  # to learn sizes; a single sample might be treated specially

Consume = Callable[[slice, Iterator[tuple[int, Tensor]]], None]


@dataclass(frozen=True)
class _Plan:
    """How a stretch of data is cut, a tape for each size of chunk, and how many chunks are in work at once.

    None at once: one after the other, and each operation on all of torch's threads, as in the model itself.
    """

    parts: tuple[slice, ...]
    tapes: dict[int, Tape]
    at_once: int | None

    @property
    def order(self) -> tuple[int, ...]:
        return next(iter(self.tapes.values())).order


class Replay:
    """Predicts stretches of data with many policies at once.

    Args:
        model: in evaluation mode, without gradients.
        names: the quantised layers.
        bank: their weights.
        device: where the model is.
        memory_bytes: bound on the activations that are alive at once, over all threads.
    """

    def __init__(
        self, model: nn.Module, names: tuple[str, ...], bank: WeightBank, device: torch.device, memory_bytes: int
    ) -> None:
        self._model, self._names, self._bank, self._device = model, names, bank, device
        self._memory_bytes = memory_bytes
        self._plans: dict[tuple[object, ...], _Plan] = {}

    def without_tapes(self) -> Replay:
        """The same, with everything still to be recorded."""
        return Replay(self._model, self._names, self._bank, self._device, self._memory_bytes)

    def knows(self, stretch: Stretch) -> bool:
        """Whether a tape for such data is already there."""
        return _key(stretch) in self._plans

    def visit(self, policies: Policies, stretch: Stretch, consume: Consume) -> None:
        """Run every sample under every policy (N, L).

        Args:
            policies: (N, L).
            stretch: the samples.
            consume: called with (samples of the stretch, iterator of (policy, scores)), from several threads, each
                with its own samples. Scores are valid until the next ones are asked for.

        Raises:
            UntraceableError: no tape gives the model's own scores; the message says why. Nothing was consumed.
        """
        plan = self._plan(policies, stretch)
        tree = grow_tree(policies, plan.order)
        prepared = {size: self._prepare(tape, tree) for size, tape in plan.tapes.items()}

        def work(part: slice) -> None:
            with torch.inference_mode():
                x = stretch.x[part].to(self._device)
                consume(part, walk(plan.tapes[len(x)], tree, prepared[len(x)], x))

        if plan.at_once is None:
            for part in plan.parts:
                work(part)
        else:
            run_side_by_side(work, plan.parts, threads=plan.at_once, device=self._device)

    def _prepare(self, tape: Tape, tree: PolicyTree) -> PreparedWeights:
        return PreparedWeights(tape, lambda layer, bits: self._bank.weight(self._names[layer], bits), tree.rows)

    def _plan(self, policies: Policies, stretch: Stretch) -> _Plan:
        key = _key(stretch)
        if key not in self._plans:
            self._plans[key] = self._find_plan(policies, stretch)
        return self._plans[key]

    def _find_plan(self, policies: Policies, stretch: Stretch) -> _Plan:
        probe = self._record(stretch.x[:_PROBE_SAMPLES])
        fits = False
        for parts in self._cuts(stretch, probe):
            sizes = {part.stop - part.start for part in parts}
            at_once = self._memory_bytes // (max(sizes) * max(1, probe.sample_bytes))
            if at_once < 1:
                continue
            fits = True
            tapes = {size: self._record(stretch.x[:size]) for size in sizes}
            plan = _Plan(parts, tapes, min(at_once, cores(self._device)))
            if self._agrees(plan, policies[[0, -1]], stretch):
                return plan
        if fits and self._agrees(plan := replace(plan, at_once=None), policies[[0, -1]], stretch):
            return plan
        if not fits:
            raise UntraceableError(f"memory_bytes={self._memory_bytes} is less than one sample needs")
        raise UntraceableError(
            "in chunks that fit memory_bytes, replayed scores differ from the model's own in their last bits"
        )

    def _cuts(self, stretch: Stretch, probe: Tape) -> Iterator[tuple[slice, ...]]:
        """Ways to cut the stretch, the fastest first."""
        total = len(stretch.x)
        chunk = self._first_chunk(probe, total)
        while chunk < total:
            yield tuple(slice(start, min(start + chunk, total)) for start in range(0, total, chunk))
            chunk *= 2
        yield (slice(0, total),)
        stops = list(itertools.accumulate(stretch.lengths))
        yield tuple(slice(stop - length, stop) for stop, length in zip(stops, stretch.lengths, strict=True))

    def _record(self, x: Tensor) -> Tape:
        weights = {name: self._bank.float_weight(name) for name in self._names}
        return record_tape(self._model, weights, self._bank.in_place, x.to(self._device))

    def _first_chunk(self, probe: Tape, total: int) -> int:
        """As many samples as fit the cache where most of the work is, within the memory and a share for each thread."""
        threads = cores(self._device)
        runs = _TYPICAL_CHOICES ** np.arange(len(probe.order), dtype=np.float64)  # of each segment in a whole space
        hot = (runs * probe.segment_bytes).sum() / runs.sum() if len(runs) else probe.start_bytes
        fitting = int(np.clip(_CACHE_BYTES / max(hot, 1), *_CHUNK_RANGE))
        allowed = self._memory_bytes // (threads * max(1, probe.sample_bytes))
        return max(1, min(fitting, allowed, -(-total // threads)))

    def _agrees(self, plan: _Plan, policies: Policies, stretch: Stretch) -> bool:
        """Whether chunks give the scores of the loader's batches, for the first batch of each length and the last.

        Two policies and more in one walk: what they share must come out of it as it was.
        """
        for batch in stretch.telling_batches():
            touched = [part for part in plan.parts if part.start < batch.stop and part.stop > batch.start]
            found = torch.cat([self._replayed(plan, policies, stretch.x[part]) for part in touched], dim=1)
            first = batch.start - touched[0].start
            for row, scores in zip(policies.tolist(), found, strict=True):
                with torch.inference_mode():
                    bits = dict(zip(self._names, row, strict=True))
                    expected = self._bank.scores(self._model, bits, stretch.x[batch].to(self._device))
                if not torch.equal(scores[first : first + len(expected)], expected):
                    return False
        return True

    def _replayed(self, plan: _Plan, policies: Policies, x: Tensor) -> Tensor:
        """(policies, samples, classes)."""
        tape = plan.tapes[len(x)]
        tree = grow_tree(policies, tape.order)
        own_threads = nullcontext() if plan.at_once is None else one_thread_per_operation(self._device)
        with own_threads, torch.inference_mode():
            walked = walk(tape, tree, self._prepare(tape, tree), x.to(self._device))
            scores = {index: each.clone() for index, each in walked}
        return torch.stack([scores[index] for index in range(len(policies))])


def _key(stretch: Stretch) -> tuple[object, ...]:
    return stretch.x.shape, stretch.x.dtype, stretch.lengths
