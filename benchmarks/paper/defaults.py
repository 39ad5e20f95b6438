"""Defaults, unchanged, on every network of the zoo: learned bits beside float training of the same length.

`waveq.attach(model, total_steps=...)` and nothing else, which is the preset "recommended": all layers quantised, first
and last included. Both start from the float weights that every experiment starts from, with ``--scratch`` from the
weights of ``torch.manual_seed``. The large networks see small images and few steps: for them the table shows that bits
come to rest between their limits and training stays finite, not what accuracy could be had.
"""

from __future__ import annotations

import argparse

import pandas as pd

from benchmarks.lab.job import Job
from benchmarks.lab.pool import add_options, run_jobs, where_of
from benchmarks.lab.settings import setting
from benchmarks.lab.tables import save_table, with_error

NETWORKS = ("lenet", "simplenet5", "svhn8", "vgg11", "resnet20", "resnet18", "mobilenet_v2", "alexnet")


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """One row a training."""
    labels, jobs = [], []
    for network in args.networks:
        row = setting(network, args.budget, dataset=args.dataset)
        for seed in args.seeds:
            for method, attach in (("float", {}), ("learned", {"bits": "learn"})):
                labels.append({"network": network, "seed": seed, "method": method})
                jobs.append(Job(setting=row, seed=seed, attach=attach, scratch=args.scratch))
    results = run_jobs(jobs, where_of(args), processes=args.processes)
    return pd.DataFrame(
        [
            {
                **label,
                "test": r["test"],
                "mean_bits": r["mean_bits"],
                "least_bits": min(r["bits"].values()),
                "most_bits": max(r["bits"].values()),
                "layers": len(r["bits"]),
                "diverged": r["diverged"],
                "warnings": len(r["warnings"]),
            }
            for label, r in zip(labels, results, strict=True)
        ]
    )


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a network."""
    lines = []
    for network, group in rows.groupby("network", sort=False):
        plain, learned = (group[group.method == method] for method in ("float", "learned"))
        lines.append(
            {
                "network": network,
                "layers": int(learned.layers.iloc[0]),
                "float": with_error(plain.test),
                "learned": with_error(learned.test),
                "mean bits": with_error(learned.mean_bits),
                "bits": f"{learned.least_bits.min()} to {learned.most_bits.max()}",
                "diverged": int(learned.diverged.sum()),
                "warnings": int(learned.warnings.sum()),
            }
        )
    return pd.DataFrame(lines)


def main(argv: list[str]) -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks defaults", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--scratch", action="store_true", help="train from the first weights on, in as many steps more")
    add_options(parser)
    args = parser.parse_args(argv)
    rows = measure(args)
    save_table("defaults_scratch" if args.scratch else "defaults", compare(rows).set_index("network"), rows, args)
    return 0
