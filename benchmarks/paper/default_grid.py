"""Which grid the defaults should have: DoReFa's levels, which have no zero, or levels that hardware likes better.

Preset ``recommended`` as users get it, with preset bits 2, 3 and 4 and with learned ones, each seed from the same float
network and with as many steps in all: learned bits are searched for in a tenth of them, within what 3.85 bits
everywhere cost in multiplications x bits, and the float network is then trained with them. Inputs are not quantised.

- dorefa: tanh, levels (m + 1/2) s, as in the paper; it was the default before.
- dorefa, with zero: the same tanh, levels m s; one level less at each number of bits.
- lsq: levels m s with s learned, and one more level below zero.
- lsq, powers of two: s rounded to the nearest power of two, which a machine multiplies with by shifting.

"less dorefa" is the difference to the first row, seed by seed. The test part is read once a training.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks._names import unknown
from benchmarks.lab.job import Job
from benchmarks.lab.options import number, stem
from benchmarks.lab.pool import add_options, run_within, where_of
from benchmarks.lab.settings import Setting, setting
from benchmarks.lab.tables import save_table, with_error
from benchmarks.paper.claim import setting_of

__all__ = ["GRIDS", "jobs_of", "main", "summary"]

GRIDS = {
    "dorefa": "dorefa",
    "dorefa, with zero": "dorefa-with-zero",
    "lsq": "lsq",
    "lsq, powers of two": "lsq-power-of-two",
}
_LEARNED = 3.85
_REFERENCE = 3  # bits everywhere, which limits are shares of
_SHARE = 0.1
_SCALE_RATE = 0.1
_NETWORKS = ("digitsnet", "simplenet5", "resnet20")


def jobs_of(
    row: Setting, seeds: list[int], bits: list[int], epochs: int | None = None
) -> Iterator[tuple[dict[str, Any], Job]]:
    """Every training with what names it: grid by grid within each number of bits, learned ones last."""
    limit = _LEARNED / _REFERENCE
    learned = {"method": "learned", "objective": "macs", "limit": limit, "share": _SHARE}
    for wanted in (*bits, None):
        for grid, quantizer in GRIDS.items():
            for seed in seeds:
                attach: dict[str, Any] = {"quantizer": quantizer}
                attach |= {} if wanted is None else {"bits": wanted}
                label = {"network": row.network, "dataset": row.dataset, "grid": grid, "seed": seed}
                found = learned if wanted is None else None
                job = Job(setting=row, seed=seed, attach=attach, allocation=found, epochs=epochs)
                yield {**label, "bits": "learned" if wanted is None else str(wanted)}, job


def setting_for(network: str, args: argparse.Namespace) -> Setting:
    """How a network is trained here.

    Raises:
        ValueError: a network without a setting, or no weights for the one that starts from a file.
    """
    if network not in _NETWORKS:
        raise ValueError(f"--networks {network!r}: no setting{unknown(network, _NETWORKS)}")
    if network == "digitsnet":
        row = setting(network, "tiny", dataset="digits")
        row = (
            row
            if args.budget == "tiny"
            else replace(row, width=1.0, images=0, test_images=0, pretrain_epochs=20, epochs=12)
        )
    elif network == "resnet20":
        row = setting_of(network, args.budget, "cifar10", _SCALE_RATE)  # the claim's, and its float networks
    else:
        if args.init is None or not args.init.is_file():
            raise ValueError(f"--init {args.init}: simplenet5 starts from a file of float weights for CIFAR10")
        full = {"channels": 3, "size": 32, "width": 1.0, "images": 0, "test_images": 0, "pretrain_epochs": 0}
        row = Setting(network=network, dataset="cifar10", epochs=4, lr=1e-2, init=str(args.init), **full)
    return replace(row, scale_rate=_SCALE_RATE)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each network and grid: accuracy by bits, with the difference to the first grid seed by seed."""
    lines = []
    first = next(iter(GRIDS))
    for (dataset, network), group in rows.groupby(["dataset", "network"], sort=False):
        test = group.pivot_table(index="seed", columns=["bits", "grid"], values="test", sort=False)
        for grid in [each for each in GRIDS if each in set(group.grid)]:
            line = {"network": f"{network}, {dataset}", "grid": grid}
            for bits in dict.fromkeys(group.bits):
                if (bits, grid) not in test:
                    continue
                own = test[bits, grid]
                line[bits] = with_error(own.dropna())
                if grid != first and (bits, first) in test and len(both := (own - test[bits, first]).dropna()):
                    line[bits] += f", {with_error(both)}"
            found = group[(group.grid == grid) & (group.bits == "learned")]
            if len(found):
                line["mean bits learned"] = f"{found.mean_bits.mean():.2f}"
            lines.append(line)
    return pd.DataFrame(lines).fillna("-")


def main(argv: list[str]) -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks default_grid", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--networks", nargs="+", default=["digitsnet"], help=f"any of {', '.join(_NETWORKS)}")
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4], help="preset ones, beside learned bits")
    parser.add_argument("--epochs", type=int, default=None, help="after the float network's, instead of the setting's")
    parser.add_argument("--init", type=Path, default=None, help="float weights of SimpleNet-5 for CIFAR10")
    parser.add_argument("--minutes", type=number(), default=None, help="begin no further training after so many")
    parser.add_argument("--name", type=stem, default="default_grid", help="of the files that are written")
    add_options(parser)
    args = parser.parse_args(argv)
    rows_of = [setting_for(network, args) for network in args.networks]
    listed = [each for row in rows_of for each in jobs_of(row, args.seeds, args.bits, args.epochs)]
    found = run_within([job for _, job in listed], where_of(args), processes=args.processes, minutes=args.minutes)
    kept = ("test", "validation", "mean_bits", "diverged", "seconds")
    done = [
        {**label, **{key: found[job.key()][key] for key in kept}, "policy": found[job.key()]["bits"]}
        for label, job in listed
        if job.key() in found
    ]
    if not done:
        raise ValueError("--minutes: no training was finished in time")
    rows = pd.DataFrame(done)
    args.init = args.init and args.init.name
    args.dataset = " and ".join(dict.fromkeys(rows.dataset))
    save_table(args.name, summary(rows).set_index(["network", "grid"]), rows, args, planned=len(listed))
    return 0
