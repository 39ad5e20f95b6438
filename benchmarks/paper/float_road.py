"""The float road: train without a quantiser in the forward pass, round once; against training with one.

At 2, 3 and 4 bits and with learned bits, every row from the same float network, for the same epochs, at the same rate:

- "rounded once": float training, then rounding; the levels follow the largest weight.
- "rounded once, range": the same, and the range of the levels is fitted early, the weights clipped to it.
- "wave, range": the float road as it comes: the range fitted, the wave rising over the run, then rounding.
- "quantized": the weights of the forward pass are quantised all along, no wave; "quantized, range": range fitted too.

With learned bits there is no rounding without learning them in phase 2, so that "rounded once" has no wave in phase 3.
"before" is the accuracy on the validation images of the weights in training (float on the float road), "validation"
that of the rounded network; "test" is read once a run. Nothing is chosen by any of them.
"""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd

from benchmarks.lab.job import Job
from benchmarks.lab.pool import add_options, run_jobs, where_of
from benchmarks.lab.settings import setting
from benchmarks.lab.tables import save_table, with_error

__all__ = ["METHODS", "main"]

_FLOAT: dict[str, Any] = {"forward": "float"}
METHODS: dict[str, dict[str, Any]] = {
    "rounded once": {**_FLOAT, "lambda_w": 0.0, "fit_range": False},
    "rounded once, range": {**_FLOAT, "lambda_w": 0.0},
    "wave, range": _FLOAT,
    "quantized": {"lambda_w": 0.0},
    "quantized, range": {"lambda_w": 0.0, "fit_range": True},
}


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """One row a training."""
    labels, jobs = [], []
    for network in args.networks:
        row = setting(network, args.budget, dataset=args.dataset)
        for seed in args.seeds:
            for bits in (2, 3, 4, "learn"):
                for method, arguments in METHODS.items():
                    labels.append({"network": network, "bits": bits, "method": method, "seed": seed})
                    attach = {"bits": bits, "quantizer": args.quantizer, "scale": "max", **arguments}
                    jobs.append(Job(setting=row, seed=seed, attach=attach))
    results = run_jobs(jobs, where_of(args), processes=args.processes)
    return pd.DataFrame(
        [
            {
                **label,
                "before": found["validation_before_rounding"],
                "validation": found["validation"],
                "test": found["test"],
                "mean_bits": found["mean_bits"],
                "policy": " ".join(map(str, found["bits"].values())),
            }
            for label, found in zip(labels, results, strict=True)
        ]
    )


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean (standard error) over seeds, one line for each network, bits and method."""
    columns = ["before", "validation", "test", "mean_bits"]
    return rows.groupby(["network", "bits", "method"], sort=False)[columns].agg(with_error)


def main(argv: list[str]) -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks float_road", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["simplenet5"])
    parser.add_argument("--quantizer", choices=("dorefa", "wrpn"), default="dorefa")
    add_options(parser)
    args = parser.parse_args(argv)
    rows = measure(args)
    save_table("float_road", summary(rows), rows, args)
    return 0
