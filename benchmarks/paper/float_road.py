"""The float road: no quantiser in the forward pass; rounding once, wave and freezing, against training through one.

At 2, 3 and 4 bits and with learned bits, every row from the same float network, for the same steps, at the same rate:

- "rounded once": float training with weights clipped to the fitted range, then rounding.
- "wave": the same with the wave, which rises to 10 times the task's gradient; then rounding.
- "freezing": the float road as it comes: weights freeze on their levels; nothing is left to be rounded.
- "freezing, wave": with the wave beside it, rising to the task's gradient; "weak": to a tenth of it.
- "quantized": through the quantiser, on the same grid and with a fitted range; "lsq": LSQ's learned step.

"before" is the accuracy on the validation images of the weights in training (float on the float road), "validation"
that of the rounded network, batch norm's statistics averaged anew for all rows; "test" is read once a run. Nothing is
chosen by any of them. Finished runs are read from the folder, so that an interrupted experiment goes on; ``--minutes``
stops in time with what is done.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import replace
from typing import Any

import pandas as pd

from benchmarks.lab.job import Job
from benchmarks.lab.options import number
from benchmarks.lab.pool import add_options, run_within, where_of
from benchmarks.lab.settings import Budget, Setting, setting
from benchmarks.lab.tables import save_table, with_error
from benchmarks.paper import claim

__all__ = ["METHODS", "main"]

_ONCE: dict[str, Any] = {"forward": "float", "scale": "max", "freezing": "off"}
_FREEZING: dict[str, Any] = {"forward": "float", "scale": "max"}
METHODS: dict[str, dict[str, Any]] = {
    "rounded once": {**_ONCE, "lambda_w": 0.0},
    "wave": _ONCE,
    "freezing": {**_FREEZING, "lambda_w": 0.0},
    "freezing, wave": {**_FREEZING, "lambda_w": 1.0},
    "freezing, weak wave": {**_FREEZING, "lambda_w": 0.1},
    "quantized": {"scale": "max", "lambda_w": 0.0, "fit_range": True},
    "lsq": {"quantizer": "lsq", "lambda_w": 0.0},
}


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """One row a training that is done."""
    labels, jobs = [], []
    for network in args.networks:
        row = setting_of(network, args.budget, args.dataset)
        for seed in args.seeds:
            for bits, method in itertools.product(args.bits, args.methods):
                labels.append({"network": network, "bits": bits, "method": method, "seed": seed})
                attach = {"bits": bits, "quantizer": args.quantizer, "reestimate_bn": 50, **METHODS[method]}
                if method.startswith("freezing") and args.freezing is not None:
                    attach["freezing"] = args.freezing
                jobs.append(Job(setting=row, seed=seed, attach=attach))
    results = run_within(jobs, where_of(args), processes=args.processes, minutes=args.minutes)
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
            for label, job in zip(labels, jobs, strict=True)
            if (found := results.get(job.key())) is not None
        ]
    )


def setting_of(network: str, budget: Budget, dataset: str) -> Setting:
    """How a network is trained: as in ``claim`` where it is in there; colour pictures keep colours and size."""
    if network in claim.NETWORKS:
        return claim.setting_of(network, budget, dataset)
    row = setting(network, budget, dataset=dataset)
    return replace(row, channels=3, size=32) if dataset == "cifar10" else row


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean (standard error) over seeds, one line for each network, bits and method."""
    columns = ["before", "validation", "test", "mean_bits"]
    return rows.groupby(["network", "bits", "method"], sort=False)[columns].agg(with_error)


def _bits(text: str) -> int | str:
    return text if text == "learn" else int(text)


def main(argv: list[str]) -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks float_road", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["simplenet5"], help="depthwise and resnet20 as in claim")
    parser.add_argument("--bits", nargs="+", type=_bits, default=[2, 3, 4, "learn"], help='total bits, or "learn"')
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    parser.add_argument("--quantizer", choices=("midrise", "wrpn"), default="midrise", help="of all rows but lsq")
    parser.add_argument("--freezing", type=float, default=None, help="exponent of the course, instead of the default")
    parser.add_argument("--minutes", type=number(), default=None, help="begin no further training after so many")
    add_options(parser)
    args = parser.parse_args(argv)
    rows = measure(args)
    if rows.empty:
        raise ValueError("--minutes: no training was finished in time")
    save_table("float_road", summary(rows), rows, args)
    return 0
