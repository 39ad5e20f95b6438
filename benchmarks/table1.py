"""Table 1's form: learned bits against 4 bits everywhere, inputs of 4 bits in both.

All layers are quantised, the inputs of all but the first too, by the same two quantisers. "learned" has the preset's
price of a bit, "learned, budget" the budget named in its row; both may use fewer bits than the uniform network, never
more. Same float start, epochs, rate and images for all. The paper's claim: fewer than 4 bits on average and still 0.2
to 0.4 points better than 4 bits everywhere.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd

from benchmarks.lab.job import Job
from benchmarks.lab.pool import add_options, run_jobs, where_of
from benchmarks.lab.settings import setting
from benchmarks.lab.tables import as_rows, save_table, with_error

NETWORKS = ("simplenet5", "svhn8", "vgg11", "resnet20")
BASES: dict[str, dict[str, Any]] = {
    "DoReFa, scaled; PACT": {"quantizer": "dorefa", "scale": "max", "activation_quantizer": "pact"},
    "LSQ; LSQ": {"quantizer": "lsq", "activation_quantizer": "lsq"},
}
UNIFORM = "uniform 4"


def rows_of(budget: float) -> dict[str, dict[str, Any]]:
    """What differs between the methods."""
    return {
        UNIFORM: {"bits": 4, "lambda_w": 0.0},
        "uniform 3": {"bits": 3, "lambda_w": 0.0},
        "learned": {"bits": "learn"},
        f"learned, <= {budget:g} bits": {"bits": "learn", "target": {"mean_bits": budget}},
    }


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """One row a training."""
    labels, jobs = [], []
    for network in args.networks:
        row = setting(network, args.budget, dataset=args.dataset)
        for seed in args.seeds:
            for base, quantizers in BASES.items():
                for method, bits in rows_of(args.mean_bits).items():
                    labels.append({"network": network, "base": base, "seed": seed, "method": method})
                    attach = {**quantizers, **bits, "activation_bits": args.activation_bits}
                    jobs.append(Job(setting=row, seed=seed, attach=attach))
    return as_rows(labels, run_jobs(jobs, where_of(args), processes=args.processes))


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each network, base and method; differences to the uniform network seed by seed."""
    lines = []
    for (network, base), group in rows.groupby(["network", "base"], sort=False):
        uniform = group[group.method == UNIFORM].set_index("seed")
        for method, runs in group.groupby("method", sort=False):
            each = runs.set_index("seed")
            lines.append(
                {
                    "network": network,
                    "base": base,
                    "method": method,
                    "mean bits": with_error(each.mean_bits),
                    "test": with_error(each.test),
                    "less uniform 4": "-" if method == UNIFORM else with_error(each.test - uniform.test),
                    "energy ratio": f"{(each.energy_pj / uniform.energy_pj).mean():.2f}",
                    "diverged": int(each.diverged.sum()),
                }
            )
    return pd.DataFrame(lines)


def main(argv: list[str]) -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks table1", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--mean-bits", type=float, default=3.85, help="the budget of the last row")
    parser.add_argument("--activation-bits", type=int, default=4)
    add_options(parser)
    args = parser.parse_args(argv)
    rows = measure(args)
    save_table("table1", compare(rows).set_index(["network", "base", "method"]), rows, args)
    return 0
