"""One scale a layer against one for each output channel, in a depthwise network: rounded, folded, trained.

Every row of a seed starts from the same float network:

- "rounded": its weights are rounded once, nothing is trained;
- "trained": the same number of steps with quantised weights, at one rate for all, without the wave;
- "folded, ...": batch norm is folded into the convolutions first, which makes their channels unequal.

Fashion-MNIST, every 2x2 pixels averaged to one; the test images are read once a row, and nothing is chosen by them.
Defaults take a quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from benchmarks._report import write_json
from benchmarks.lab.tables import with_error
from waveq.zoo import load_data

__all__ = ["depthwise_network", "folded", "main"]

BITS = (2, 3, 4)
GRANULARITIES = ("layer", "channel")
Part = tuple[Tensor, Tensor]


def depthwise_network(seed: int) -> nn.Sequential:
    """A stem, four depthwise-separable blocks with batch norm of 32 to 64 channels, and a head; (N, 1, 14, 14)."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    for inputs, outputs, stride in ((16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)):
        depthwise = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
        layers += [depthwise, nn.BatchNorm2d(inputs), nn.ReLU6()]
        layers += [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def folded(network: nn.Sequential) -> nn.Sequential:
    """A copy in which each batch norm is part of the convolution before it."""
    twin = copy.deepcopy(network).eval()
    waveq.fold_batch_norm(twin)
    return twin


def train(network: nn.Module, handle: waveq.WaveQ | None, part: Part, steps: int, lr: float, seed: int) -> None:
    """SGD with momentum, the rate along a cosine."""
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(steps):
        rows = torch.randint(len(part[1]), (96,), generator=generator)
        loss = F.cross_entropy(network(part[0][rows]), part[1][rows])
        if handle is not None:
            loss = loss + handle.penalty()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        cosine.step()
        if handle is not None:
            handle.step()


@torch.no_grad()
def accuracy(network: nn.Module, part: Part) -> float:
    """Percent of images whose class is found."""
    network.eval()
    pairs = zip(part[0].split(1000), part[1].split(1000), strict=True)  # type: ignore[no-untyped-call]
    return 100.0 * sum(int((network(x).argmax(1) == y).sum()) for x, y in pairs) / len(part[1])


def rows_of(seed: int, data: tuple[Part, Part], args: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows of one seed."""
    network = depthwise_network(seed)
    train(network, None, data[0], args.float_steps, 0.1, seed)
    found: list[dict[str, Any]] = [{"how": "float", "test": accuracy(network, data[1])}]
    starts = {"rounded": (network, 0.0), "trained": (network, 0.02)}
    fused = folded(network)
    starts |= {"folded, rounded": (fused, 0.0), "folded, trained": (fused, 0.01)}
    for quantizer, how, bits, granularity in itertools.product(args.quantizers, starts, BITS, GRANULARITIES):
        start, lr = starts[how]
        twin: nn.Module = copy.deepcopy(start)
        options: dict[str, Any] = {"quantizer": quantizer, "granularity": granularity, "lambda_w": 0.0}
        handle = waveq.attach(twin, bits=bits, **options)
        if lr:
            train(twin, handle, data[0], args.steps, lr, seed + 1000)
        handle.finalize()
        chosen = {"quantizer": quantizer, "how": how, "bits": bits, "granularity": granularity}
        found.append({**chosen, "test": accuracy(twin, data[1])})
        print(f"seed {seed} {chosen} {found[-1]['test']:.2f} %", file=sys.stderr, flush=True)
    return [{"seed": seed, **each} for each in found]


def images(count: int, test_count: int, data_dir: Path | None) -> tuple[Part, Part]:
    """Training and test images, (N, 1, 14, 14)."""
    data = load_data("fashion-mnist", data_dir=data_dir)
    parts = []
    for split, many in ((data.train, count), (data.test(), test_count)):
        x, y = split.batch(torch.arange(min(many, len(split))))
        parts.append((F.avg_pool2d(x, 2), y))
    return parts[0], parts[1]


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean (standard error) over seeds, and what the channels' own scales gain seed by seed."""
    keys = ["quantizer", "how", "bits"]
    rounded = rows.dropna(subset="bits").astype({"bits": int})
    wide = rounded.pivot_table(index=[*keys, "seed"], columns="granularity", values="test", sort=False)
    wide["gain"] = wide["channel"] - wide["layer"]
    return wide.groupby(keys, sort=False)[["layer", "channel", "gain"]].agg(with_error)


def published(rows: pd.DataFrame, images: int) -> dict[str, Any]:
    """What ``benchmarks publish`` puts into a page: the table, and where it comes from."""
    table = summary(rows).reset_index()
    lines = [[str(cell) for cell in line] for line in table.to_numpy().tolist()]
    floats = with_error(rows[rows["how"] == "float"]["test"])
    seeds = " ".join(map(str, sorted(set(rows["seed"]))))
    source = f"*Percent of {images:,} test images; float {floats} %; seeds {seeds}; mean (standard error).*"
    return {"table": {"columns": list(table.columns), "lines": lines}, "source": source}


def main(argv: list[str]) -> int:
    """Round, train, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks granularity", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quantizers", nargs="+", default=["dorefa", "lsq"], choices=("dorefa", "wrpn", "lsq"))
    parser.add_argument("--float-steps", type=int, default=500)
    parser.add_argument("--steps", type=int, default=120, help="of every trained row")
    parser.add_argument("--images", type=int, default=12_000)
    parser.add_argument("--test-images", type=int, default=5_000)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args(argv)
    data = images(args.images, args.test_images, args.data_dir)
    rows = pd.DataFrame([row for seed in args.seeds for row in rows_of(seed, data, args)])
    print(f"float: {with_error(rows[rows['how'] == 'float']['test'])} %\n{summary(rows).to_string()}")
    if args.json is not None:
        arguments = {key: str(value) for key, value in vars(args).items() if key not in ("data_dir", "json")}
        told = published(rows, len(data[1][1]))
        write_json(args.json, {"arguments": arguments, **told, "rows": rows.to_dict("records")})
    return 0
