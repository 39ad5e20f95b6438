"""Training steps that are recorded as CUDA graphs: do they train as the ordinary loop does, and how fast are they.

Float and LSQ with 3 bits of weights and inputs, CIFAR10's shapes, on a GPU. After 12 steps from the same weights with
the same batches, the two ways may be apart by a third of the way that the weights have gone, at most: sums are taken in
another order, and rounding tells neighbours apart.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import waveq
from benchmarks._report import write_json
from benchmarks.lab import networks as networks  # registers them
from benchmarks.lab.data import Part
from benchmarks.lab.graphs import Recorded, train_by_graph, train_side_by_side
from benchmarks.lab.settings import Setting
from benchmarks.lab.training import train_in_loop
from waveq.zoo import build

_CASES = (("depthwise", None), ("depthwise", 3), ("resnet20", 3))
_FARTHEST = 1 / 3
_SETTING = Setting(
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


def main(argv: list[str]) -> int:
    """1 where graphs train otherwise than the loop."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks recorded", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        raise ValueError("graphs are recorded on a GPU alone, and there is none here")
    x = torch.randn(2048, 3, 32, 32, generator=torch.Generator().manual_seed(0)).cuda()
    part = (x, x.mean((2, 3)).argmax(1))
    rows = [_measured(name, bits, part) for name, bits in _CASES]
    for row in rows:
        print(
            "{network}, {bits} bits: loop {loop_ms:.2f} ms a step, graph {graph_ms:.2f}, apart by {apart:.1e}".format(
                **row
            )
        )
    several_ms = _several(part)
    print(f"six float depthwise at a time: {several_ms:.2f} ms a step of each")
    if options.json is not None:
        write_json(options.json, {"rows": rows, "six_at_a_time_ms": several_ms})
    return int(any(not row["apart"] <= _FARTHEST for row in rows))


def _measured(name: str, bits: int | None, part: Part) -> dict[str, Any]:
    ends, times_ms = [], []
    for train in (train_in_loop, train_by_graph):
        torch.manual_seed(0)
        network, handle = build(name, num_classes=10, in_channels=3, input_size=32).cuda(), None
        if bits is not None:
            inputs = {"activation_bits": bits, "activation_quantizer": "lsq"}
            handle = waveq.attach(network, quantizer="lsq", bits=bits, lambda_w=0.0, **inputs)  # type: ignore[arg-type]
        start = _all_weights(network)
        train(network, handle, part, 12, 0.01, _SETTING, 0)
        ends.append(_all_weights(network))
        torch.cuda.synchronize()
        began = time.perf_counter()
        train(network, handle, part, 100, 0.01, _SETTING, 1)
        torch.cuda.synchronize()
        times_ms.append(10 * (time.perf_counter() - began))
    apart = float((ends[0] - ends[1]).norm() / (ends[0] - start).norm())
    return {
        "network": name,
        "bits": 32 if bits is None else bits,
        "loop_ms": times_ms[0],
        "graph_ms": times_ms[1],
        "apart": apart if math.isfinite(apart) else math.inf,
    }


def _several(part: Part) -> float:
    """Milliseconds of one step of one of six trainings that are under way at a time."""
    trainings = [Recorded(build("depthwise").cuda(), None, part, 200, 0.01, _SETTING, seed) for seed in range(6)]
    began = time.perf_counter()
    train_side_by_side(trainings)
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began) / 200 / 6


def _all_weights(network: nn.Module) -> Tensor:
    """Without vectors and scalars: learned scales have no value before the first batch."""
    return torch.cat([weight.detach().flatten().double() for weight in network.parameters() if weight.ndim > 1])
