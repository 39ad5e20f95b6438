"""How often a run is told that its bits were still on their way when they froze, and how often that is so.

What a run says is held against a run of twice the length from the same float network with the same order of images:
bits that come out alike had come to rest. Bits near a boundary fall to either side by chance, so that every run is made
with several orders of images, and what differs between these is shown beside it.

    python -m benchmarks settling --json benchmarks/results/settling.json
"""

from __future__ import annotations

import argparse
import copy
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from benchmarks._report import write_json
from waveq.zoo import build, load_data

NETWORKS = {"digitsnet": (8, 1.0), "simplenet5": (16, 1.0), "lenet": (28, 0.3)}  # side in pixels, width
LENGTHS = (12, 24, 48, 96, 192, 384)
BASE: dict[str, Any] = {"quantizer": "dorefa", "bits": "learn"}
KINDS: dict[str, dict[str, Any]] = {
    "usual": {},
    "budget": {"target": {"mean_bits": 4.0}},
    "slow": {},  # at all lengths beta's rate is a tenth of the usual one at SLOW_AT steps: short runs cannot get there
}
SLOW_AT = 96
BATCH, RATE, FLOAT_STEPS = 32, 0.02, 300


class Run(NamedTuple):
    """One layer of one run."""

    network: str
    seed: int
    order: int
    steps: int
    phase2_steps: int
    kind: str
    layer: str
    bits: int
    beta: float
    told: bool
    """Whether a sentence on settling names the layer."""


def runs_of(network: str, kind: str, seed: int, orders: int, lengths: Sequence[int]) -> Iterator[Run]:
    """Every length with every order of images, from one float network."""
    side, width = NETWORKS[network]
    data = load_data("digits", size=side)
    x, y = data.train.batch(torch.arange(len(data.train)))
    torch.manual_seed(seed)
    start = build(network, in_channels=1, num_classes=10, input_size=side, width=width)
    _train(start, None, x, y, FLOAT_STEPS, 0.05, seed)
    for order, steps in itertools.product(range(orders), lengths):
        model, options = copy.deepcopy(start), KINDS[kind]
        if kind == "slow":
            options = {
                "beta_lr": 0.1 * waveq.attach(copy.deepcopy(start), **BASE, total_steps=SLOW_AT).settings.beta_lr
            }
        wq = waveq.attach(model, **BASE, total_steps=steps, **options)
        _train(model, wq, x, y, steps, RATE, 1000 * seed + order)
        findings = [text for text in wq.diagnose() if "still moving" in text or "still went far" in text]
        schedule = wq.settings.schedule
        assert schedule.fall is not None
        for name in wq.names:
            told = any(re.search(rf"\b{re.escape(name)}\b", text) for text in findings)
            phase2 = schedule.fall - schedule.rise
            yield Run(network, seed, order, steps, phase2, kind, name, wq.bits()[name], wq.betas()[name], told)


def _train(model: nn.Module, wq: waveq.WaveQ | None, x: Tensor, y: Tensor, steps: int, rate: float, seed: int) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(y), (BATCH,), generator=generator)
        loss = F.cross_entropy(model(x[chosen]), y[chosen])
        if wq is not None:
            loss = loss + wq.penalty()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if wq is not None:
            wq.step()


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Layers by length of the run: told or not, with the same bits after twice the steps or with others."""
    keys = ["network", "kind", "seed", "order", "layer"]
    twice = frame.assign(steps=frame["steps"] // 2)[[*keys, "steps", "bits"]]
    pairs = frame.merge(twice, on=[*keys, "steps"], suffixes=("", "_twice"))
    others = frame.merge(frame, on=["network", "kind", "seed", "layer", "steps"], suffixes=("", "_other"))
    others = others[others["order"] < others["order_other"]]
    rows = []
    for (kind, steps, phase2), group in pairs.groupby(["kind", "steps", "phase2_steps"]):
        moved = group["bits"] != group["bits_twice"]
        same_length = others[(others["steps"] == steps) & (others["kind"] == kind)]
        rows.append(
            {
                "kind": kind,
                "steps": steps,
                "phase 2": phase2,
                "layers": len(group),
                "told": int(group["told"].sum()),
                "told, same bits": int((group["told"] & ~moved).sum()),
                "not told, other bits": int((~group["told"] & moved).sum()),
                "other bits %": round(100 * float(moved.mean()), 1),
                "by order alone %": round(100 * float((same_length["bits"] != same_length["bits_other"]).mean()), 1),
                "runs told": f"{group.groupby(keys[:4])['told'].any().sum()} of {group.groupby(keys[:4]).ngroups}",
            }
        )
    return pd.DataFrame(rows)


def main(argv: list[str]) -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks settling", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101])
    parser.add_argument("--orders", type=int, default=2, help="orders of the images for every float network")
    parser.add_argument("--lengths", type=int, nargs="+", default=list(LENGTHS), help="steps, each twice the last")
    parser.add_argument("--json", metavar="OUT")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    found = []
    for kind, seed, network in itertools.product(options.kinds, options.seeds, options.networks):
        found += runs_of(network, kind, seed, options.orders, options.lengths)
        print(f"{kind} {network} {seed}", flush=True)
    frame = pd.DataFrame(found)
    table = counts(frame)
    print(table.to_string(index=False))
    if options.json:
        chosen = {name: getattr(options, name) for name in ("networks", "kinds", "seeds", "orders")}
        write_json(options.json, {**chosen, "counts": table.to_dict("records")})
    return 0
