"""A few neighbouring layers behind one autograd node: what Python costs a node is paid once for all of them.

The node hands out each layer's quantised weights and, in one vector, R_k of every layer, whose gradient goes back in
the same pass over the weights as the rounding's. It waits for the last gradient of its layers, so that a band is kept
small: gradients wait for no more than ``BAND`` weights, and a layer that is larger stands alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from waveq._kernels.interface import JointEngine, RoundingGradients, Tables
from waveq._kernels.recipe import Plan, Wave
from waveq._kernels.rounding import Use, leaf_share
from waveq._kernels.storage import scalars

__all__ = ["BAND", "Band", "Work", "bands_of"]

BAND = 1 << 18  # weights, 1 MB: far below the 25 MB in which DistributedDataParallel sends gradients
_LN2 = math.log(2.0)


def bands_of(sizes: Sequence[int]) -> list[slice]:
    """Runs of neighbours that have no more than ``BAND`` weights together; a larger layer is a run of its own.

    Example:
        >>> bands_of([1000, 2000, 300_000, 5])
        [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    starts, total = [0], 0
    for i, size in enumerate(sizes):
        if i > starts[-1] and total + size > BAND:
            starts.append(i)
            total = 0
        total += size
    return [slice(first, last) for first, last in itertools.pairwise([*starts, len(sizes)])]


@dataclass(slots=True)
class Work:
    """What the way back needs to know; it holds nothing of what was handed out, so that no circle keeps that alive.

    Attributes:
        engine: who rounded.
        weights: the float weights.
        plans: how each was rounded.
        sines: each layer's mean sin^2.
        tables: the layers' rows in the tables of the call.
        uses: told when a backward pass goes through a layer.
        versions: of the weights when they were rounded.
        rounded: the quantised values, without a node; emptied by a backward pass unless ``keeps``.
        keeps: whether they will be read again after a backward pass, as in gradient accumulation.
    """

    engine: JointEngine
    weights: list[Tensor]
    plans: list[Plan]
    sines: list[float]
    tables: Tables
    uses: list[Use]
    versions: list[int]
    rounded: list[Tensor]
    keeps: bool


class Band:
    """Layers that were rounded together, and what their node has made of them so far.

    Attributes:
        wave: (layers,): each R_k behind the node that was made last; None before the first one, and without a wave.
    """

    __slots__ = ("_leaves", "_pending", "_values", "_work", "wave")

    def __init__(self, work: Work, values: Tensor | None) -> None:
        self._work, self._values = work, values
        self._leaves = [leaf.tensor for plan in work.plans for leaf in plan.rounding.leaves]
        self._pending: list[Tensor | None] = [None] * len(work.plans)
        self.wave: Tensor | None = None

    @property
    def uses(self) -> list[Use]:
        """Told when a backward pass goes through a layer."""
        return self._work.uses

    def holds(self, place: int) -> bool:
        """Whether a layer's quantised values are still there, as they were made."""
        quantized = self._pending[place]
        if quantized is None and self._work.rounded:
            quantized = self._work.rounded[place]
        return quantized is not None and quantized._version == 0

    def take(self, place: int) -> Tensor:
        """One layer's quantised weights; a layer that is read again gets them from a new node."""
        quantized = self._pending[place]
        if quantized is None:
            *made, self.wave = _read(self._work, self._values, *self._work.weights, *self._leaves)
            self._pending, quantized = made, made[place]
        self._pending[place] = None
        return quantized


class _Read(torch.autograd.Function):
    """Keeps no tensor of its own: the weights are an input and stay; u is computed again on the way back.

    The quantised values are dropped on the way back, layer by layer as the model goes: nobody reads them again, unless
    gradients are accumulated. Weights are not saved in autograd's way, so that the task's and the wave's loss may go
    back one after the other, and so may layers of one band.
    """

    @staticmethod
    def forward(ctx: Any, work: Work, values: Tensor | None, *_inputs: Tensor) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.work = work
        return *[quantized.detach() for quantized in work.rounded], None if values is None else values.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *above: Tensor | None) -> tuple[Tensor | None, ...]:
        work: Work = ctx.work
        *tasks, pull = above
        strengths = [0.0] * len(tasks) if pull is None else pull.tolist()
        wanted = [i for i, task in enumerate(tasks) if task is not None or strengths[i] != 0.0]
        if not wanted:
            return (None,) * len(ctx.needs_input_grad)
        grads: list[RoundingGradients | None] = [None] * len(tasks)
        for i, found in zip(wanted, _pull_back(work, wanted, tasks, strengths), strict=True):
            grads[i] = found
        if not work.keeps:
            work.rounded.clear()
        needs = ctx.needs_input_grad[2:]
        weights = [None if g is None or not need else g.weight for g, need in zip(grads, needs, strict=False)]
        return None, None, *weights, *_leaf_gradients(work, grads, strengths)


# Function.apply without its look-out for torch.func's transforms: whoever asks an engine has looked already
_read: Callable[..., tuple[Any, ...]] = super(torch.autograd.Function, _Read).apply


def _pull_back(
    work: Work, wanted: Sequence[int], tasks: Sequence[Tensor | None], strengths: Sequence[float]
) -> list[RoundingGradients]:
    weights, above = [], []
    for i in wanted:
        weight, task = work.weights[i], tasks[i]
        if weight._version != work.versions[i]:
            raise RuntimeError(
                "the weights of a quantised layer were changed in place between the forward and the backward pass "
                f"(version {work.versions[i]} to {weight._version}): their gradient cannot be computed any more"
            )
        work.uses[i].used = True
        weights.append(weight)
        above.append(torch.zeros_like(weight) if task is None else task)
    if len(wanted) == len(tasks):
        return work.engine.pull_back(weights, work.plans, work.tables, above, strengths)
    return work.engine.pull_back(
        weights, [work.plans[i] for i in wanted], work.tables.some(wanted), above, [strengths[i] for i in wanted]
    )


def _leaf_gradients(
    work: Work, grads: Sequence[RoundingGradients | None], strengths: Sequence[float]
) -> list[Tensor | None]:
    """What reaches the learned tensors, in the order in which the node took them."""
    shares: list[float | None] = []
    leaves = []
    for plan, sine, strength, found in zip(work.plans, work.sines, strengths, grads, strict=True):
        for leaf in plan.rounding.leaves:
            leaves.append(leaf.tensor)
            pulled = leaf.by_wave and strength != 0.0
            if found is None or (leaf.by_wave and not pulled and not leaf.pitch):
                shares.append(None)
            elif pulled and plan.wave is not None:
                shares.append(leaf_share(leaf, found) + strength * _slope_in_beta(plan.wave, sine, found.moment))
            else:
                shares.append(leaf_share(leaf, found))
    made = scalars([0.0 if share is None else share for share in shares])
    return [
        None if share is None else value if value.dtype == leaf.dtype else leaf.new_tensor(share)
        for share, value, leaf in zip(shares, made, leaves, strict=True)
    ]


def _slope_in_beta(wave: Wave, sine: float, moment: float) -> float:
    """dR_k/dbeta, see ``functional.sine_penalty_gradients``."""
    growth: float = 2.0**wave.beta
    return _LN2 * wave.damping * (math.pi * growth * moment - wave.order * sine)
