"""Figure 4: learned policies among all policies of the space, every one of them trained alike.

Each policy of 2 to 4 bits (quick, where the last layer has the bits of the one before it; 2 to 5 bits and all layers
apart in full) is trained from the seed's float network for the same epochs, rate and images as the learned ones and the
baselines; learned step bits spend a third of them on learning, as long as WaveQ does. Each method gets the same three
budgets, shares of the energy at 8 bits on Stripes. The frontier is picked by held-out images, its accuracy and
everybody's distance to it are read on test images: the best of hundreds of noisy numbers is too good on the images that
picked it. "distance" is the accuracy of the frontier's policy at no more energy less the policy's own, in points, seed
by seed.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.lab.allocation import METHODS
from benchmarks.lab.job import Job
from benchmarks.lab.pool import add_options, run_jobs, where_of
from benchmarks.lab.settings import Setting, setting
from benchmarks.lab.tables import as_rows, save_table, with_error
from benchmarks.paper._figure import COLOURS
from pareto import is_efficient

# groups of layers that have their bits in common
LAYERS: dict[str, dict[str, tuple[tuple[str, ...], ...]]] = {
    "tiny": {"digitsnet": (("conv1",), ("conv2",), ("fc1", "fc2"))},
    "quick": {
        "simplenet5": (("conv1",), ("conv2",), ("fc1",), ("fc2", "fc3")),
        "lenet": (("conv1",), ("conv2",), ("fc1", "fc2")),
    },
    "full": {
        "simplenet5": (("conv1",), ("conv2",), ("fc1",), ("fc2",), ("fc3",)),
        "lenet": (("conv1",), ("conv2",), ("fc1",), ("fc2",)),
    },
}
BASES: dict[str, dict[str, Any]] = {
    "dorefa": {"quantizer": "dorefa", "scale": "max"},
    "lsq": {"quantizer": "lsq"},
}
_ORDER = (COLOURS[3], COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[5], COLOURS[4])  # WaveQ, then METHODS
ENUMERATED, LEARNED = "enumerated", "WaveQ"


def jobs_of(row: Setting, seed: int, args: argparse.Namespace) -> list[tuple[dict[str, Any], Job]]:
    """Every training of one network and seed, with what names it."""
    base, alone = BASES[args.base], {"lambda_w": 0.0}
    groups = LAYERS[args.budget][row.network]
    found: list[tuple[dict[str, Any], Job]] = []
    for bits in itertools.product(args.bits, repeat=len(groups)):
        policy = {name: b for group, b in zip(groups, bits, strict=True) for name in group}
        found.append(({"method": ENUMERATED}, Job(setting=row, seed=seed, attach={**base, **alone, "bits": policy})))
    for share in args.shares:
        target = {"target": {"energy_pj": share}, "layer_costs": "energy_pj", "bits": "learn"}
        found.append(({"method": LEARNED, "share": share}, Job(setting=row, seed=seed, attach={**base, **target})))
        for method in METHODS:
            budget = {"method": method, "objective": "energy_pj", "limit": share, "share_of": 8}
            job = Job(setting=row, seed=seed, attach={**base, **alone}, allocation=budget)
            found.append(({"method": method, "share": share}, job))
    return found


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """One row a training."""
    labels, jobs = [], []
    for network in args.networks:
        row = setting(network, args.budget, dataset=args.dataset)
        for seed in args.seeds:
            for label, job in jobs_of(row, seed, args):
                labels.append({"network": network, "seed": seed, **label})
                jobs.append(job)
    return as_rows(labels, run_jobs(jobs, where_of(args), processes=args.processes))


def frontier(rows: pd.DataFrame) -> pd.DataFrame:
    """The enumerated policies of one network, means over seeds: those that held-out images call efficient."""
    space = rows[rows.method == ENUMERATED].groupby("policy", sort=False)
    means = space[["test", "validation", "energy_pj", "mean_bits"]].mean()
    efficient = is_efficient(means[["validation", "energy_pj"]], sense=("max", "min"))
    return means[efficient].sort_values("energy_pj")


def distances(rows: pd.DataFrame, front: pd.DataFrame) -> pd.Series[float]:
    """What the frontier's policy of no more energy has over each learned or allocated one, in test accuracy.

    Seed by seed: both started from the same float network. NaN where a policy costs less than all of the frontier.
    """
    found = rows[rows.method != ENUMERATED]
    space = rows[rows.method == ENUMERATED].set_index(["policy", "seed"]).test
    index = np.searchsorted(front.energy_pj.to_numpy(), found.energy_pj.to_numpy() * (1 + 1e-9), side="right") - 1
    nearest = front.index[np.maximum(index, 0)]
    reached = space.loc[list(zip(nearest, found.seed, strict=True))].to_numpy()
    return pd.Series(np.where(index >= 0, reached, np.nan) - found.test.to_numpy(), index=found.index)


def summary(rows: pd.DataFrame, front: pd.DataFrame) -> pd.DataFrame:
    """One line for each budget and method."""
    found = rows[rows.method != ENUMERATED]
    found = found.assign(distance=distances(rows, front))
    lines = []
    for (share, method), group in found.groupby(["share", "method"], sort=False):
        lines.append(
            {
                "energy share": share,
                "method": method,
                "test": with_error(group.test),
                "mean bits": f"{group.mean_bits.mean():.2f}",
                "energy_uj": f"{group.energy_pj.mean() / 1e6:.2f}",
                "distance": with_error(group.distance.dropna()),
            }
        )
    return pd.DataFrame(lines)


def draw(rows: pd.DataFrame, front: pd.DataFrame, path: Path, title: str) -> None:
    """All policies, the frontier, and each method's mean over seeds."""
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.add_subplot()
    cloud = rows[rows.method == ENUMERATED].groupby("policy")[["energy_pj", "test"]].mean()
    axes.scatter(cloud.energy_pj / 1e6, cloud.test, s=6, color="0.75", label=f"all {len(cloud)} policies")
    axes.plot(front.energy_pj / 1e6, front.test, "o-", color="0.3", markersize=3, label="frontier (by held-out images)")
    for (method, group), marker, colour in zip(
        rows[rows.method != ENUMERATED].groupby("method", sort=False), "*os^vD", _ORDER, strict=True
    ):
        means = group.groupby("share")[["energy_pj", "test"]].mean()
        size = 16 if method == LEARNED else 7
        axes.plot(means.energy_pj / 1e6, means.test, marker, color=colour, markersize=size, label=method)
    axes.set_xlabel("energy of one image on Stripes, uJ")
    axes.set_ylabel("test accuracy, %")
    axes.set_title(title, fontsize=10)
    lowest = rows[rows.method != ENUMERATED].groupby(["method", "share"]).test.mean().min()
    axes.set_ylim(bottom=min(float(cloud.test.quantile(0.05)), float(lowest)) - 0.1)
    figure.legend(fontsize=8, loc="outside right upper")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    print(f"written: {path}")


def main(argv: list[str]) -> int:
    """Train every policy, then draw and tabulate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks figure4", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=None, help="default: all that the budget has")
    parser.add_argument("--base", choices=list(BASES), default="lsq", help="quantiser of all policies")
    parser.add_argument("--bits", type=int, nargs="+", default=None, help="of the space; default 2 3 4, full: 2 3 4 5")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.3, 0.36, 0.42], help="of the 8-bit energy")
    add_options(parser)
    args = parser.parse_args(argv)
    known = list(LAYERS[args.budget])
    args.networks = args.networks or known
    if unknown := [network for network in args.networks if network not in known]:
        parser.error(f"--networks {unknown[0]!r}: budget {args.budget} enumerates {' and '.join(known)}")
    args.bits = args.bits or ([2, 3, 4, 5] if args.budget == "full" else [2, 3, 4])
    rows = measure(args)
    for network, group in rows.groupby("network", sort=False):
        front = frontier(group)
        name = f"figure4_{network}_{args.base}"
        title = f"{network}, {args.base}, {args.dataset}, {len(args.seeds)} seeds"
        draw(group, front, args.out / f"{name}.png", title)
        table = summary(group, front).set_index(["energy share", "method"])
        save_table(name, table, group, args, frontier=front.reset_index().to_dict("records"))
    return 0
