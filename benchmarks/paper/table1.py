"""Table 1's form: learned bits against 4 bits everywhere, inputs of 4 bits in both.

All layers are quantised, the inputs of all but the first too, by the same two quantisers. "learned" has the preset's
price of a bit and is compared with uniform 4; a learned row with a budget with the uniform network of the whole bits
above it (3.85 with 4, 2.85 with 3). Same float start, epochs, rate and images for all. The paper's claim: fewer than 4
bits on average and still 0.2 to 0.4 points better than 4 bits everywhere.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
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
COMPARED = 4  # bits of the uniform network that a learned one without a budget is compared with


def uniform(bits: int) -> str:
    """How a row with the same bits everywhere is called."""
    return f"uniform {bits}"


def rows_of(budgets: Sequence[float]) -> dict[str, tuple[dict[str, Any], int]]:
    """What differs between the methods, and the bits of the uniform network that each is compared with."""
    above = {budget: math.ceil(budget) for budget in budgets}
    found: dict[str, tuple[dict[str, Any], int]] = {
        uniform(bits): ({"bits": bits, "lambda_w": 0.0}, bits)
        for bits in sorted({COMPARED, *above.values()}, reverse=True)
    }
    found["learned"] = ({"bits": "learn"}, COMPARED)
    for budget in budgets:
        found[f"learned, <= {budget:g} bits"] = ({"bits": "learn", "target": {"mean_bits": budget}}, above[budget])
    return found


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """One row a training."""
    labels, jobs = [], []
    for network in args.networks:
        row = setting(network, args.budget, dataset=args.dataset)
        for seed in args.seeds:
            for base, quantizers in BASES.items():
                for method, (bits, compared) in rows_of(args.mean_bits).items():
                    label = {"network": network, "base": base, "seed": seed, "method": method}
                    labels.append({**label, "compared": uniform(compared)})
                    attach = {**quantizers, **bits, "activation_bits": args.activation_bits}
                    jobs.append(Job(setting=row, seed=seed, attach=attach))
    return as_rows(labels, run_jobs(jobs, where_of(args), processes=args.processes))


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each network, base and method; differences to the uniform network seed by seed."""
    lines = []
    for (network, base), group in rows.groupby(["network", "base"], sort=False):
        by_method = {method: runs.set_index("seed") for method, runs in group.groupby("method", sort=False)}
        for method, each in by_method.items():
            compared = each.compared.iloc[0]
            difference = each.test - by_method[compared].test
            lines.append(
                {
                    "network": network,
                    "base": base,
                    "method": method,
                    "mean bits": with_error(each.mean_bits),
                    "test": with_error(each.test),
                    "difference": "-" if method == compared else f"{with_error(difference)} to {compared}",
                    "energy ratio": f"{(each.energy_pj / by_method[uniform(COMPARED)].energy_pj).mean():.2f}",
                    "diverged": int(each.diverged.sum()),
                }
            )
    return pd.DataFrame(lines)


def main(argv: list[str]) -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks table1", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--mean-bits", type=float, nargs="+", default=[3.85, 2.85], help="budgets, a row for each")
    parser.add_argument("--activation-bits", type=int, default=4)
    add_options(parser)
    args = parser.parse_args(argv)
    rows = measure(args)
    save_table("table1", compare(rows).set_index(["network", "base", "method"]), rows, args)
    return 0
