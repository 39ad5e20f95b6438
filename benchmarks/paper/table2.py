"""Table 2: uniform bits, every layer quantised, each base quantiser alone and with the wave.

Bases: DoReFa and WRPN as released (their levels span [-1, 1], nothing scales them back), DoReFa scaled to each layer's
largest weight, LSQ, whose step is learned, and the scaled DoReFa without any quantiser in training, rounded once at
the end. "+ wave" adds the regulariser alone: same start, same epochs, same rate, same images. The float row trains on
for the same epochs. Rates were chosen for the bases alone, the wave's strength and rise on held-out images of other
seeds (see docs/experiments.md).

"won back" is the share of what the base loses to float that the wave restores, over the seeds' means; it is given where
the base loses more than a point.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.lab.job import Job
from benchmarks.lab.options import stem
from benchmarks.lab.pool import add_options, run_jobs, where_of
from benchmarks.lab.settings import setting
from benchmarks.lab.tables import as_rows, pivot, save_table, with_error


@dataclass(frozen=True)
class Base:
    """A way to quantise, the rate that suits it alone, and the wave that is added to it.

    Attributes:
        arguments: for ``waveq.attach``.
        lr: peak rate of the training where float training has 0.02; other networks keep the proportion.
        wave: arguments for ``waveq.attach``, or for a ``Job`` of benchmarks.lab, that switch the wave on.
    """

    arguments: dict[str, Any]
    lr: float
    wave: dict[str, Any]


_CHOSEN_AT_LR = 0.02  # float training's, where the bases' rates were chosen
# rates and waves were chosen on held-out images of seeds 100 and 101 (SimpleNet-5, 2 bits)
BASES = {
    "DoReFa": Base({"quantizer": "dorefa", "scale": "none"}, 5e-4, {"wave": {"rise": 0.0, "strength": 0.3}}),
    "WRPN": Base({"quantizer": "wrpn", "scale": "none"}, 5e-4, {"wave": {"rise": 0.0, "strength": 0.3}}),
    "DoReFa, scaled": Base({"quantizer": "dorefa", "scale": "max"}, 1e-2, {"wave": {"rise": 0.6, "strength": 0.3}}),
    "LSQ": Base({"quantizer": "lsq"}, 1e-2, {"wave": {"rise": 0.6, "strength": 0.3}}),
    "rounded once": Base({"quantizer": "midrise", "scale": "max", "forward": "float", "freezing": "off"}, 1e-2, {}),
}
NETWORKS = ("simplenet5", "svhn8", "vgg11", "resnet20")


def jobs_of(network: str, bits: int, seed: int, args: argparse.Namespace) -> dict[tuple[str, bool], Job]:
    """(base, with the wave) -> its training."""
    row = setting(network, args.budget, dataset=args.dataset)
    jobs = {}
    for name in args.bases:
        base = BASES[name]
        for wave, more in ((False, {"lambda_w": 0.0}), (True, base.wave)):
            attach = {**base.arguments, "bits": bits, **more}
            jobs[name, wave] = Job(setting=row, seed=seed, attach=attach, lr=base.lr * row.lr / _CHOSEN_AT_LR)
    return jobs


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """One row a training; float ones have 32 bits."""
    labels, jobs = [], []
    for network in args.networks:
        for seed in args.seeds:
            labels.append({"network": network, "bits": 32, "seed": seed, "base": "float", "wave": False})
            jobs.append(Job(setting=setting(network, args.budget, dataset=args.dataset), seed=seed))
            for bits in args.bits:
                for (base, wave), job in jobs_of(network, bits, seed, args).items():
                    labels.append({"network": network, "bits": bits, "seed": seed, "base": base, "wave": wave})
                    jobs.append(job)
    return as_rows(labels, run_jobs(jobs, where_of(args), processes=args.processes))


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each network, bits and base: float, alone, with the wave, paired difference, share won back."""
    floats = rows[rows.base == "float"].set_index(["network", "seed"])["test"]
    lines = []
    for (network, bits, base), group in rows[rows.base != "float"].groupby(["network", "bits", "base"], sort=False):
        wide = group.pivot_table(index="seed", columns="wave", values="test")
        reference = floats.loc[str(network)].reindex(wide.index)
        lost = (reference - wide[False]).mean()
        lines.append(
            {
                "network": network,
                "bits": bits,
                "base": base,
                "float": with_error(reference),
                "alone": with_error(wide[False]),
                "+ wave": with_error(wide[True]),
                "difference": with_error(wide[True] - wide[False]),
                "won back": f"{100 * (wide[True] - wide[False]).mean() / lost:.0f} %" if lost > 1.0 else "-",
                "diverged": int(group.diverged.sum()),
            }
        )
    return pd.DataFrame(lines)


def main(argv: list[str]) -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks table2", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--bits", type=int, nargs="+", default=None, help="default: 2 3 (quick), 2 3 4 5 (full)")
    parser.add_argument("--bases", nargs="+", choices=list(BASES), default=list(BASES))
    parser.add_argument("--name", type=stem, default="table2", help="of the files that are written")
    add_options(parser)
    args = parser.parse_args(argv)
    args.bits = args.bits or ([2, 3] if args.budget == "quick" else [2, 3, 4, 5])
    rows = measure(args)
    save_table(args.name, compare(rows).set_index(["network", "bits", "base"]), rows, args)
    named = rows.assign(method=rows.base + rows.wave.map({True: " + wave", False: ""}))
    print("\n" + pivot(named, ["network", "bits"], "method").to_string())
    return 0
