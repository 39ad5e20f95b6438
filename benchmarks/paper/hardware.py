"""Hardware-aware bits: every bit priced by its energy on Stripes, against one price for all bits.

Both learn their bits at the same prices lambda_beta, from the same float start, in the same epochs. Each gives a curve
of test accuracy over energy; the table reads both curves at the same accuracy, between their points, and gives the
energy that pricing by energy saves (negative where it costs more). An accuracy that one of them does not reach has no
entry.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.lab.job import Job
from benchmarks.lab.pool import add_options, run_jobs, where_of
from benchmarks.lab.settings import setting
from benchmarks.lab.tables import as_rows, mean_and_error, save_table, with_error

NETWORKS = ("simplenet5", "lenet")
WEIGHTINGS: dict[str, dict[str, Any]] = {"plain": {}, "by energy": {"layer_costs": "energy_pj"}}


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """One row a training."""
    labels, jobs = [], []
    for network in args.networks:
        row = setting(network, args.budget, dataset=args.dataset)
        for seed in args.seeds:
            for price in args.prices:
                for weighting, costs in WEIGHTINGS.items():
                    labels.append({"network": network, "seed": seed, "lambda_beta": price, "weighting": weighting})
                    attach = {"quantizer": args.quantizer, "bits": "learn", "lambda_beta": price, **costs}
                    jobs.append(Job(setting=row, seed=seed, attach=attach))
    return as_rows(labels, run_jobs(jobs, where_of(args), processes=args.processes))


def energy_at(curve: pd.DataFrame, accuracy: float) -> float:
    """Least energy that reaches an accuracy, straight between the curve's efficient points; NaN out of its range."""
    points = curve.sort_values("energy_pj")
    best = points.test.cummax()
    points = points[points.test >= best].drop_duplicates("test")
    if not points.test.min() <= accuracy <= points.test.max():
        return float("nan")
    return float(np.interp(accuracy, points.test, points.energy_pj))


def savings(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of energy saved at equal accuracy, for each network and seed, at every accuracy that both curves reach."""
    lines = []
    for (network, seed), group in rows.groupby(["network", "seed"], sort=False):
        curves = dict(iter(group.groupby("weighting")))
        for accuracy in sorted({round(value, 6) for value in group.test}):
            plain, aware = (energy_at(curves[name], accuracy) for name in WEIGHTINGS)
            if np.isfinite(plain) and np.isfinite(aware):
                lines.append({"network": network, "seed": seed, "accuracy": accuracy, "saved": 1 - aware / plain})
    return pd.DataFrame(lines, columns=["network", "seed", "accuracy", "saved"])


def main(argv: list[str]) -> int:
    """Train, print both curves and what lies between them, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks hardware", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--prices", type=float, nargs="+", default=[0.005, 0.01, 0.02, 0.05, 0.1], help="lambda_beta")
    parser.add_argument("--quantizer", default="dorefa")
    add_options(parser)
    args = parser.parse_args(argv)
    rows = measure(args)
    groups = rows.groupby(["network", "weighting", "lambda_beta"], sort=False)
    table = groups.agg(
        test=("test", with_error),
        mean_bits=("mean_bits", with_error),
        energy_uj=("energy_pj", lambda energy: with_error(energy / 1e6)),
    )
    saved = savings(rows)
    seeds = saved.groupby(["network", "seed"], sort=False).saved.mean()
    facts = {}
    for network, values in seeds.groupby("network", sort=False):
        mean, error = mean_and_error(100 * values)
        facts[str(network)] = {"energy_saved_percent": mean, "standard_error": error, "seeds": len(values)}
        print(
            f"{network}: {mean:.1f} % (standard error {error:.1f}) less energy at equal accuracy, {len(values)} seeds"
        )
    save_table("hardware", table, rows, args, energy_saved=facts)
    return 0
