"""What folding batch norm costs a quantised network: norms kept, folded afterwards, folded before the last training.

A small convolutional network with batch norm on digits. Every row of a seed starts from the same float
network and has the same number of quantised steps:

- "norms kept": all steps with batch norm, which stays beside the integers;
- "folded, rounded anew": that network, its norms folded into its weights, which are rounded once more;
- "folded, then trained": half of the steps with batch norm, then `fold_batch_norm`, then the other half.

The test images are read once a row, and nothing is chosen by them. Defaults take a minute and a half of one core.
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
from torch import nn

import waveq
from benchmarks._report import write_json
from benchmarks.lab.tables import with_error
from benchmarks.paper.granularity import Part, accuracy, train
from waveq.zoo import load_data

__all__ = ["main", "small_network"]

HOW = ("norms kept", "folded, rounded anew", "folded, then trained")


def small_network(seed: int) -> nn.Sequential:
    """Two convolutions with batch norm, two linear layers; (N, 1, 8, 8)."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


def quantised(
    network: nn.Sequential, how: str, data: Part, options: dict[str, Any], steps: int, seed: int
) -> nn.Sequential:
    """One row's network, from a float one, which stays as it is."""
    twin = copy.deepcopy(network)
    handle = waveq.attach(twin, lambda_w=0.0, **options)
    if how != "folded, then trained":
        train(twin, handle, data, steps, 0.02, seed)
        handle.finalize()
        if how == "folded, rounded anew":
            waveq.fold_batch_norm(twin.eval())
            waveq.attach(twin, lambda_w=0.0, **options).finalize()
        return twin
    train(twin, handle, data, steps // 2, 0.02, seed)
    handle.remove()
    waveq.fold_batch_norm(twin.eval())
    handle = waveq.attach(twin, lambda_w=0.0, **options)
    train(twin, handle, data, steps - steps // 2, 0.01, seed + 1)
    handle.finalize()
    return twin


def rows_of(seed: int, data: tuple[Part, Part], args: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows of one seed."""
    network = small_network(seed)
    train(network, None, data[0], args.float_steps, 0.05, seed)
    found: list[dict[str, Any]] = [{"seed": seed, "how": "float", "test": accuracy(network, data[1])}]
    for bits, granularity, how in itertools.product(args.bits, ("layer", "channel"), HOW):
        options = {"quantizer": args.quantizer, "bits": bits, "granularity": granularity}
        twin = quantised(network, how, data[0], options, args.steps, seed + 1000)
        chosen = {"seed": seed, "bits": bits, "scales": granularity, "how": how}
        found.append({**chosen, "test": accuracy(twin, data[1])})
        print(f"{chosen} {found[-1]['test']:.2f} %", file=sys.stderr, flush=True)
    return found


def images() -> tuple[Part, Part]:
    """Training and test images of the digits, (N, 1, 8, 8)."""
    data = load_data("digits")
    train_part, test_part = (split.batch(torch.arange(len(split))) for split in (data.train, data.test()))
    return train_part, test_part


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean (standard error) over seeds, one row for bits and scales."""
    quantised_rows = rows.dropna(subset="bits").astype({"bits": int})
    table = quantised_rows.pivot_table(
        index=["bits", "scales"], columns="how", values="test", aggfunc=with_error, sort=False
    )
    return table[list(HOW)]


def published(rows: pd.DataFrame, args: argparse.Namespace) -> dict[str, Any]:
    """What ``benchmarks publish`` puts into a page: the table, and where it comes from."""
    table = summary(rows).reset_index()
    lines = [[str(cell) for cell in line] for line in table.to_numpy().tolist()]
    floats = with_error(rows[rows["how"] == "float"]["test"])
    seeds = " ".join(map(str, args.seeds))
    source = (
        f"*Digits, `{args.quantizer}`, {args.steps} quantised steps a row; percent of the test images; float "
        f"{floats} %; seeds {seeds}; mean (standard error). `python -m benchmarks folding`*"
    )
    return {"table": {"columns": list(table.columns), "lines": lines}, "source": source}


def main(argv: list[str]) -> int:
    """Train, fold, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks folding", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quantizer", default="wrpn", choices=("wrpn", "lsq", "dorefa", "midrise"))
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3, 2])
    parser.add_argument("--float-steps", type=int, default=300)
    parser.add_argument("--steps", type=int, default=200, help="quantised steps of every row")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args(argv)
    data = images()
    rows = pd.DataFrame([row for seed in args.seeds for row in rows_of(seed, data, args)])
    print(f"float: {with_error(rows[rows['how'] == 'float']['test'])} %\n{summary(rows).to_string()}")
    if args.json is not None:
        arguments = {key: value for key, value in vars(args).items() if key != "json"}
        write_json(args.json, {"arguments": arguments, **published(rows, args), "rows": rows.to_dict("records")})
    return 0
