"""A whole training step as one CUDA graph: small networks are trained at the speed of their kernels, not of Python's.

    python -m benchmarks.lab.graphs        # on a GPU: does a graph train as the ordinary loop does, and how fast is it

A step that is recorded once and replayed cannot branch on values, so that only float training and preset bits without a
wave go this way. The weights are rounded by the plain formulas meanwhile: the compiled kernels are sent a table of
addresses in each step, which a recording does not repeat.
"""

from __future__ import annotations

import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from benchmarks.lab.data import Part, drawn_pass, taken
from benchmarks.lab.settings import Setting

__all__ = ["can_be_recorded", "cosine", "sgd_step", "train_by_graph"]

_ORDINARY_STEPS = 5  # taken before recording: lazy initialisations, ranges of inputs, buffers


def can_be_recorded(handle: waveq.WaveQ | None) -> bool:
    """Whether nothing but the optimizer changes from step to step."""
    if handle is None:
        return True
    still = not handle.learning and handle.strengths() == (0.0, 0.0)
    return still and handle.settings.forward == "quantized" and handle.settings.bounds_from is None


def cosine(lr: float, step: int, steps: int) -> float:
    """The rate of a step, counted from 0: half a cosine from ``lr`` to 0.

    Example:
        >>> cosine(1.0, 0, 10), cosine(1.0, 5, 10)
        (1.0, 0.5)
    """
    return lr * (1 + math.cos(math.pi * step / max(1, steps))) / 2


@torch.no_grad()
def sgd_step(
    weights: list[Tensor], velocities: list[Tensor], rate: Tensor, *, momentum: float, weight_decay: float
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
    with waveq.use_backend("plain"):
        _train(network, part, steps, lr, setting, seed)
    if handle is not None:
        handle.forget_weights()  # a replay changes weights behind the back of everything that counts versions


def _train(network: nn.Module, part: Part, steps: int, lr: float, setting: Setting, seed: int) -> None:
    x, y = part
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    rows, mirrored = (each.to(y.device) for each in drawn_pass(setting.batch, setting.batch, generator))
    rows, mirrored, rate = rows[0], mirrored[0], torch.zeros((), device=y.device)
    generator.manual_seed(seed)
    weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
    velocities = [torch.zeros_like(weight) for weight in weights]
    network.train()

    def step() -> None:
        loss = F.cross_entropy(network(taken(x, rows, mirrored) if setting.flip else x[rows]), y[rows])
        for weight in weights:
            weight.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        sgd_step(weights, velocities, rate, momentum=setting.momentum, weight_decay=setting.weight_decay)

    graph: torch.cuda.CUDAGraph | None = None
    side = torch.cuda.Stream() if y.is_cuda else None
    done = 0
    while done < steps:
        passed = drawn_pass(len(y), setting.batch, generator, flip=setting.flip)
        for some_rows, some_mirrored in zip(*(each.to(y.device) for each in passed), strict=True):
            if done == steps:
                return
            rows.copy_(some_rows)
            mirrored.copy_(some_mirrored)
            rate.fill_(cosine(lr, done, steps))
            if graph is not None:
                graph.replay()
            elif side is None:
                step()
            else:
                side.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(side):
                    step()
                torch.cuda.current_stream().wait_stream(side)
            done += 1
            if side is not None and graph is None and done == _ORDINARY_STEPS:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    step()


def main() -> int:
    """0 where graphs train as the ordinary loop does, to within a hundredth of the weights' length after 12 steps."""
    from benchmarks.lab import networks as networks  # registers them
    from benchmarks.lab.training import train_in_loop
    from waveq.zoo import build

    setting = Setting(
        network="depthwise",
        channels=3,
        size=32,
        width=1.0,
        images=0,
        test_images=0,
        pretrain_epochs=1,
        epochs=1,
        flip=True,
    )
    x = torch.randn(2048, 3, 32, 32, generator=torch.Generator().manual_seed(0)).cuda()
    part, worst = (x, x.mean((2, 3)).argmax(1)), 0.0
    for name, bits in (("depthwise", None), ("depthwise", 3), ("resnet20", 3)):
        ends, speeds = [], []
        for train in (train_in_loop, train_by_graph):
            torch.manual_seed(0)
            network, handle = build(name, num_classes=10, in_channels=3, input_size=32).cuda(), None
            if bits is not None:
                inputs = {"activation_bits": bits, "activation_quantizer": "lsq"}
                handle = waveq.attach(network, quantizer="lsq", bits=bits, lambda_w=0.0, **inputs)  # type: ignore[arg-type]
            train(network, handle, part, 12, 0.01, setting, 0)
            ends.append(torch.cat([weight.detach().flatten().double() for weight in network.parameters()]))
            torch.cuda.synchronize()
            began = time.perf_counter()
            train(network, handle, part, 100, 0.01, setting, 1)
            torch.cuda.synchronize()
            speeds.append(10 * (time.perf_counter() - began))
        apart = float((ends[0] - ends[1]).norm() / ends[0].norm())
        worst = max(worst, apart) if math.isfinite(apart) else math.inf
        print(f"{name}, {bits or 32} bits: loop {speeds[0]:.2f} ms a step, graph {speeds[1]:.2f}, apart by {apart:.1e}")
    return int(worst > 1e-2)


if __name__ == "__main__":
    sys.exit(main())
