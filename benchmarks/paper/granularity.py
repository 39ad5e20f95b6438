"""One scale a layer against one for each output channel: rounded as it is, with batch norm folded, and trained.

At 2, 3 and 4 bits, every row from the same float network:

- "rounded": the float network's weights are rounded once, nothing is trained.
- "folded, rounded": batch norm is folded into the weights first, which makes their channels unequal.
- "trained": the setting's epochs with quantised weights and no wave, then "wave" with it, as ``attach`` comes.

Test images are read once a row; nothing is chosen by them.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from typing import Any

import pandas as pd
import torch
from torch import nn

import waveq
from benchmarks.lab.data import images_of
from benchmarks.lab.job import Job, Where
from benchmarks.lab.pool import add_options, run_jobs, where_of
from benchmarks.lab.settings import Setting, setting
from benchmarks.lab.tables import save_table, with_error
from benchmarks.lab.training import accuracy, float_network

__all__ = ["GRANULARITIES", "folded", "main"]

GRANULARITIES = ("layer", "channel")
_TRAINED: dict[str, dict[str, Any]] = {"trained": {"lambda_w": 0.0}, "wave": {}}


def folded(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose batch norms are folded into the convolutions right before them.

    Raises:
        ValueError: there is none to fold.
    """
    twin = copy.deepcopy(network).eval()
    found = 0
    for parent in list(twin.modules()):
        children = list(parent.named_children())
        for (_, first), (name, second) in itertools.pairwise(children):
            if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                fused = torch.nn.utils.fuse_conv_bn_eval(first, second)
                first.weight, first.bias = fused.weight, fused.bias
                setattr(parent, name, nn.Identity())
                found += 1
    if not found:
        raise ValueError("the network has no batch norm right behind a convolution")
    return twin


def untrained(row: Setting, seed: int, where: Where, quantizer: str) -> list[dict[str, Any]]:
    """The float network's accuracy, and the same rounded once, as it is and folded."""
    network = float_network(row, seed, where).eval()
    test = images_of(row, where.device, where.data_dir).test
    found: list[dict[str, Any]] = [{"how": "float", "test": accuracy(network, test)}]
    for how, start in (("rounded", network), ("folded, rounded", folded(network))):
        for bits in (2, 3, 4):
            for granularity in GRANULARITIES:
                twin: nn.Module = copy.deepcopy(start)
                options: dict[str, Any] = {"quantizer": quantizer, "granularity": granularity}
                waveq.attach(twin, bits=bits, **options).finalize()
                found.append({"how": how, "bits": bits, "granularity": granularity, "test": accuracy(twin, test)})
    return [{"network": row.network, "quantizer": quantizer, "seed": seed, **each} for each in found]


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """One row a network that was tested."""
    labels, jobs, rows = [], [], []
    where = where_of(args)
    for network in args.networks:
        row = setting(network, args.budget, dataset=args.dataset)
        for seed in args.seeds:
            for quantizer in args.quantizers:
                for how, arguments in _TRAINED.items():
                    for bits in (2, 3, 4):
                        for granularity in GRANULARITIES:
                            chosen = {"bits": bits, "granularity": granularity}
                            names = {"network": network, "quantizer": quantizer, "seed": seed, "how": how}
                            labels.append({**names, **chosen})
                            attach = {"quantizer": quantizer, **chosen, **arguments}
                            jobs.append(Job(setting=row, seed=seed, attach=attach))
    results = run_jobs(jobs, where, processes=args.processes)
    for network in args.networks:
        for seed in args.seeds:
            for quantizer in args.quantizers:
                rows += untrained(setting(network, args.budget, dataset=args.dataset), seed, where, quantizer)
    rows += [{**label, "test": found["test"]} for label, found in zip(labels, results, strict=True)]
    return pd.DataFrame(rows)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean (standard error) over seeds, and what the channels' own scales gain seed by seed."""
    keys = ["network", "quantizer", "how", "bits"]
    wide = rows.dropna(subset="bits").pivot_table(
        index=[*keys, "seed"], columns="granularity", values="test", sort=False
    )
    wide["gain"] = wide["channel"] - wide["layer"]
    return wide.groupby(keys, sort=False)[["layer", "channel", "gain"]].agg(with_error)


def main(argv: list[str]) -> int:
    """Round, train, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks granularity", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["mobilenet_v2"])
    parser.add_argument("--quantizers", nargs="+", default=["dorefa", "lsq"], choices=("dorefa", "wrpn", "lsq"))
    add_options(parser)
    args = parser.parse_args(argv)
    rows = measure(args)
    floats = rows[rows["how"] == "float"].drop_duplicates(["network", "seed"])
    print(f"float: {floats['test'].mean():.2f} %")
    save_table("granularity", summary(rows), rows, args)
    return 0
