"""A whole training step as one CUDA graph: small networks are trained at the speed of their kernels, not of Python's.

A step that is recorded once and replayed cannot branch on values, so that only float training and preset bits without a
wave go this way. The weights are rounded by the plain formulas meanwhile: the compiled kernels are sent a table of
addresses in each step, which a recording does not repeat.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from benchmarks.lab.data import Part, drawn_pass, taken
from benchmarks.lab.job import Job
from benchmarks.lab.optimizer import weights_and_scales
from benchmarks.lab.search import ONE_RUN
from benchmarks.lab.settings import Setting

__all__ = [
    "Recorded",
    "can_be_recorded",
    "cosine",
    "may_be_recorded",
    "sgd_step",
    "train_by_graph",
    "train_side_by_side",
]

_ORDINARY_STEPS = 5  # taken before recording: lazy initialisations, ranges of inputs, buffers


def can_be_recorded(handle: waveq.WaveQ | None) -> bool:
    """Whether nothing but the optimizer changes from step to step."""
    if handle is None:
        return True
    still = not handle.learning and handle.strengths() == (0.0, 0.0)
    return still and handle.settings.forward == "quantized" and handle.settings.bounds_from is None


def may_be_recorded(job: Job) -> bool:
    """What can be said of that before the network is attached."""
    attach = job.attach
    if job.allocation is not None and job.allocation["method"] == ONE_RUN:
        return False
    return not attach or (attach.get("lambda_w") == 0.0 and attach.get("forward", "quantized") == "quantized")


def cosine(lr: float, step: int, steps: int) -> float:
    """The rate of a step, counted from 0: half a cosine from ``lr`` to 0.

    Example:
        >>> cosine(1.0, 0, 10), cosine(1.0, 5, 10)
        (1.0, 0.5)
    """
    return lr * (1 + math.cos(math.pi * step / max(1, steps))) / 2


@torch.no_grad()
def sgd_step(
    weights: Sequence[Tensor], velocities: Sequence[Tensor], rate: Tensor, *, momentum: float, weight_decay: float
) -> None:
    """torch.optim.SGD's step with the rate in a tensor (0-dim), which a recorded step reads anew."""
    gradients = torch._foreach_add([weight.grad for weight in weights], weights, alpha=weight_decay)  # type: ignore[arg-type]
    torch._foreach_mul_(velocities, momentum)
    torch._foreach_add_(velocities, gradients)
    torch._foreach_sub_(weights, torch._foreach_mul(velocities, rate))


def train_by_graph(
    network: nn.Module, handle: waveq.WaveQ | None, part: Part, steps: int, lr: float, setting: Setting, seed: int
) -> None:
    """What ``training`` does in a loop: the same batches, rates and updates; on the CPU without the recording.

    Raises:
        RuntimeError: the step could not be recorded.
    """
    train_side_by_side([Recorded(network, handle, part, steps, lr, setting, seed)])


def train_side_by_side(trainings: Sequence[Recorded]) -> None:
    """Several trainings in one process, each with a graph on a stream of its own, which the GPU runs at the same time.

    Raises:
        RuntimeError: a step could not be recorded.
    """
    with waveq.use_backend("plain"):
        while under_way := [each for each in trainings if each.done < each.steps]:
            for each in under_way:
                each.advance()
        for each in trainings:
            each.finish()


class Recorded:
    """One training, step by step: taken as usual at first, then recorded, then replayed.

    Args:
        network: trained in place.
        handle: of preset bits, or None for float; see ``can_be_recorded``.
        part: images and labels on one device.
        steps: how many there are.
        lr: peak rate of the cosine.
        setting: batch, momentum, weight decay, flips.
        seed: of the order of the images.
    """

    def __init__(
        self,
        network: nn.Module,
        handle: waveq.WaveQ | None,
        part: Part,
        steps: int,
        lr: float,
        setting: Setting,
        seed: int,
    ) -> None:
        self.steps, self.done = steps, 0
        self._network, self._handle, self._part, self._lr, self._setting = network, handle, part, lr, setting
        device = part[1].device
        self._rows = torch.zeros(setting.batch, dtype=torch.int64, device=device)
        self._mirrored = torch.zeros(setting.batch, dtype=torch.bool, device=device)
        self._rate = torch.zeros((), device=device)
        self._weights, self._scales = weights_and_scales(network)
        self._velocities = [[torch.zeros_like(each) for each in group] for group in (self._weights, self._scales)]
        self._batches = self._drawn(torch.Generator().manual_seed(seed))
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream() if part[1].is_cuda else None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream())
        network.train()

    def advance(self) -> None:
        """One step; on a GPU nothing waits for its end."""
        if self._stream is None:
            return self._advance()
        with torch.cuda.stream(self._stream):
            return self._advance()

    def finish(self) -> None:
        """Wait for the last step, and forget what was kept of weights: a replay changes them without counting."""
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
        self._graph = None
        if self._handle is not None:
            self._handle.forget_weights()

    def _drawn(self, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        count, device = len(self._part[1]), self._part[1].device
        while True:
            passed = drawn_pass(count, self._setting.batch, generator, flip=self._setting.flip)
            yield from zip(*(each.to(device) for each in passed), strict=True)

    def _advance(self) -> None:
        rows, mirrored = next(self._batches)
        self._rows.copy_(rows)
        self._mirrored.copy_(mirrored)
        self._rate.fill_(cosine(self._lr, self.done, self.steps))
        if self._graph is None and self._stream is not None and self.done >= _ORDINARY_STEPS:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._step()
        if self._graph is not None:
            self._graph.replay()
        else:
            self._step()
        self.done += 1

    def _step(self) -> None:
        x, y = self._part
        images = taken(x, self._rows, self._mirrored) if self._setting.flip else x[self._rows]
        loss = F.cross_entropy(self._network(images), y[self._rows])
        for parameter in (*self._weights, *self._scales):
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        rates = (self._rate, self._rate * self._setting.scale_rate)
        for group, velocities, rate in zip((self._weights, self._scales), self._velocities, rates, strict=True):
            if group:
                momentum, decay = self._setting.momentum, self._setting.weight_decay
                sgd_step(group, velocities, rate, momentum=momentum, weight_decay=decay)
