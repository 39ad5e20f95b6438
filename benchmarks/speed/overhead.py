"""What an attached network costs: a training step and an evaluation pass beside plain float, side by side in one run.

ResNet-18, MobileNetV3-Small and a small Llama. Training: plain, rounded (4 bits), learning. Evaluation: plain,
attached, and attached with every weight rounded anew in every pass, as it was before rounded weights were kept. All
ways take turns within a round, and each round's times are divided by the plain one's; medians and quartiles of
processor time, one thread. Two to three minutes.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import waveq
from benchmarks._report import processor, source, write_json
from benchmarks.lab.tables import markdown
from benchmarks.reach._own import Llama

BITS = 4
Times = dict[str, list[float]]


def networks() -> dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor], int]]:
    """By name: how it is made, a batch of so many, and the batch that training takes."""
    from torchvision.models import mobilenet_v3_small, resnet18

    def pixels(batch: int) -> Tensor:
        return torch.randn(batch, 3, 128, 128)

    def llama() -> nn.Module:
        return Llama(vocabulary=512, width=256, blocks=4, heads=8, groups=4, inner=688)

    return {
        "ResNet-18, 128 px": (lambda: resnet18(num_classes=100), pixels, 8),
        "MobileNetV3-S, 128 px": (lambda: mobilenet_v3_small(num_classes=100), pixels, 8),
        "Llama, 3.4 M weights": (llama, lambda batch: torch.randint(512, (batch, 16)), 8),
    }


def training(make: Callable[[], nn.Module], batch: Tensor, rounds: int) -> Times:
    """Seconds of a step by way to train: forward, backward, SGD, and what the method adds."""
    plain = make().train()
    ways: dict[str, tuple[nn.Module, waveq.WaveQ | None]] = {"plain": (plain, None)}
    for name in ("rounded", "learning"):
        model = copy.deepcopy(plain)
        # the long constant schedule keeps every step in phase 2, where betas move too
        learn = {"total_steps": 10**6, "schedule": "constant"} if name == "learning" else {"bits": BITS}
        ways[name] = model, waveq.attach(model, **learn)  # type: ignore[arg-type]
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=1e-4) for name, (model, _) in ways.items()}
    found: Times = {name: [] for name in ways}
    for turn in range(rounds + 3):  # the first ones compile kernels and make buffers
        for name, (model, wq) in ways.items():
            begun = time.process_time()
            _train(model, wq, optimizers[name], batch)
            if turn >= 3:
                found[name].append(time.process_time() - begun)
    return found


def _train(model: nn.Module, wq: waveq.WaveQ | None, optimizer: torch.optim.Optimizer, batch: Tensor) -> None:
    loss = model(batch).square().mean()
    if wq is not None:
        loss = loss + wq.penalty()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if wq is not None:
        wq.step()


@torch.no_grad()
def evaluation(make: Callable[[], nn.Module], batch: Tensor, rounds: int) -> Times:
    """Seconds of a forward pass in evaluation; what is kept and what is rounded anew must be the same numbers."""
    plain = make().eval()
    model = copy.deepcopy(plain)
    wq = waveq.attach(model, bits=BITS)
    kept = model(batch)
    wq.forget_weights()
    if not torch.equal(model(batch), kept):
        raise AssertionError("kept weights are not those that are rounded anew")
    found: Times = {"plain": [], "attached": [], "rounded anew": []}
    for turn in range(rounds + 3):
        for name, seconds in found.items():
            net = plain if name == "plain" else model
            if name == "attached":
                model(batch)  # rounds; what follows finds the values
            begun = time.process_time()
            if name == "rounded anew":
                wq.forget_weights()
            net(batch)
            if turn >= 3:
                seconds.append(time.process_time() - begun)
    return found


def ratios(times: Times) -> dict[str, dict[str, float]]:
    """Median and quartiles of each way's ratio to the plain time of its round."""
    rows = {}
    for name, seconds in times.items():
        apart = [mine / plain for mine, plain in zip(seconds, times["plain"], strict=True)]
        low, middle, high = statistics.quantiles(apart, n=4)
        rows[name] = {"ms": 1e3 * statistics.median(seconds), "ratio": middle, "low": low, "high": high}
    return rows


def main(argv: list[str]) -> int:
    """Print the table; write it where --json says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for name, (make, batch, size) in networks().items():
        rows[name] = {
            "training": ratios(training(make, batch(size), options.rounds)),
            "evaluation": ratios(evaluation(make, batch(1), options.rounds)),
        }
    ways = [("training", way) for way in ("rounded", "learning")]
    ways += [("evaluation", way) for way in ("attached", "rounded anew")]
    columns = ["network", *(f"{what}: {way}" for what, way in ways)]
    lines = [[name, *(_cell(row[what][way]) for what, way in ways)] for name, row in rows.items()]
    print(markdown(columns, lines))
    if options.json:
        note = f"; {processor()}, one thread, {options.rounds} rounds, median (quartiles) of ratios to plain float"
        table = {"columns": columns, "lines": lines}
        write_json(
            options.json, {"table": table, "source": source("overhead", note=note), "bits": BITS, "ratios": rows}
        )
    return 0


def _cell(row: dict[str, float]) -> str:
    return f"{row['ratio']:.2f} ({row['low']:.2f}-{row['high']:.2f})"
