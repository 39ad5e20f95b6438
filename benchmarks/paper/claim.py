"""The central claim: bits that are learned and then trained from the start, against all that gives bits to layers.

Every training of a seed starts from the same float network and takes as many steps in all, a search included. Costs are
multiplications x weight bits ("macs"), or times input bits as well ("bitops"), where the images that the first layer
reads count 8 bits; or energy or cycles of one image on Stripes, which reads weights bit by bit (inputs have 16 bits
there). All are shares of 3 bits everywhere. LSQ quantises for everybody. Methods:

- uniform: the ladder that all others are compared with, at their own cost, by interpolation between its steps.
- random: five draws that use the budget up, the same ones for every seed.
- greedy, ilp: by the losses of one layer at a time, measured on training images; hawq: by curvature (weights alone).
- interpolation (FracBits), steps (Uhlich et al.): bits learned without a wave in ``--share`` of the steps, then preset.
- one run: WaveQ's bits and weights in one training; rewound: its bits from ``--share`` of the steps, then preset;
  rewound, short: from half as many.
- rewound, near: the betas begin at the even bits that cost the budget, and not at 8; refined, hawq and refined, ilp: at
  what those methods found. The gradient has the same steps to refine it as rewound.

Batch norm's statistics are averaged anew over 50 training batches once the weights are rounded, for all.

The test part is read once a training, after it, and chooses nothing. ``--minutes`` stops in time with what is done, the
first table first.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import pandas as pd

from benchmarks._names import unknown
from benchmarks.lab.choices import OBJECTIVES, REFERENCE_BITS
from benchmarks.lab.equal_cost import above_ladder, collapsed, saved_at_equal_accuracy, spread_and_noise, verdict
from benchmarks.lab.job import Job
from benchmarks.lab.options import number, stem, whole
from benchmarks.lab.pool import add_options, run_within, where_of
from benchmarks.lab.relaxed import WAYS as RELAXED
from benchmarks.lab.settings import Setting, setting
from benchmarks.lab.tables import save_table, with_error

__all__ = ["LADDER", "LIMITS", "METHODS", "NETWORKS", "jobs_of", "main", "setting_of", "summary"]

LADDER: dict[str, tuple[tuple[int, int], ...]] = {
    "macs": ((2, 0), (3, 0), (4, 0), (5, 0)),
    "bitops": ((2, 2), (2, 3), (3, 2), (3, 3), (3, 4), (4, 3), (4, 4)),
    "energy_pj": ((2, 0), (3, 0), (4, 0), (5, 0)),
    "cycles": ((2, 0), (3, 0), (4, 0), (5, 0)),
}
LIMITS: dict[str, tuple[float, ...]] = {
    "macs": (0.8, 0.95, 1.15),
    "bitops": (0.65, 0.85),
    "energy_pj": (0.85, 1.0, 1.15),
    "cycles": (0.85, 1.0, 1.15),
}
_WAYS: dict[str, dict[str, Any]] = {  # WaveQ's own searches: their share of --share, and where their betas begin
    "rewound": {"share": 1.0},
    "rewound, near": {"share": 1.0, "start": "even"},
    "rewound, short": {"share": 0.5},
    "refined, hawq": {"share": 1.0, "start": "hawq"},
    "refined, ilp": {"share": 1.0, "start": "ilp"},
}
METHODS = (*_WAYS, "ilp", "random", "one run", "hawq", "interpolation", "steps", "greedy")
NETWORKS = ("depthwise", "resnet20")
_DRAWS = 5
_BASE: dict[str, Any] = {"quantizer": "lsq", "lambda_w": 0.0, "reestimate_bn": 50}
_INPUTS: dict[str, Any] = {"activation_quantizer": "lsq"}
_UNIFORM = "uniform"


def jobs_of(row: Setting, objective: str, args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Job]]:
    """Every training of one network and objective: the ladder, then method by method, all budgets and seeds of each.

    Labels say what is "urgent": all but the ladder's steps beyond the one that tops every budget.
    """
    limits = args.limits or LIMITS[objective]
    topped = min((_nominal(bits) for bits in LADDER[objective] if _nominal(bits) >= max(limits)), default=float("inf"))
    attach = {**_BASE, **_INPUTS} if objective == "bitops" else _BASE

    def job(seed: int, label: dict[str, Any], allocation: dict[str, Any]) -> tuple[dict[str, Any], Job]:
        named = {"network": row.network, "dataset": row.dataset, "objective": objective, "seed": seed, **label}
        return named, Job(setting=row, seed=seed, attach=attach, allocation={**allocation, "objective": objective})

    for bits in LADDER[objective]:
        for seed in args.seeds:
            name = f"{_UNIFORM} {bits[0]}" + (f"/{bits[1]}" if bits[1] else "")
            label = {"method": _UNIFORM, "policy": name, "urgent": _nominal(bits) <= topped}
            yield job(seed, label, {"method": _UNIFORM, "bits": list(bits)})
    for method in args.methods:
        if method == "hawq" and objective == "bitops":
            continue
        for limit in limits:
            for seed in args.seeds:
                allocation = {"method": method, "limit": limit}
                label = {"method": method, "limit": limit, "urgent": True}
                if method == "random":
                    for draw in range(args.draws):
                        yield job(seed, {**label, "policy": f"draw {draw}"}, {**allocation, "draw": draw})
                elif method in _WAYS:
                    own = {**_WAYS[method], "share": _WAYS[method]["share"] * args.share}
                    yield job(seed, label, {**allocation, "method": "learned", **own})
                elif method in RELAXED:
                    yield job(seed, label, {**allocation, "share": args.share})
                else:
                    yield job(seed, label, allocation)


def _nominal(bits: tuple[int, int]) -> float:
    """A ladder step's share of 3 bits everywhere, the images aside."""
    return bits[0] * (bits[1] or REFERENCE_BITS) / REFERENCE_BITS**2


def planned(args: argparse.Namespace) -> list[tuple[dict[str, Any], Job]]:
    """Every training that is asked for with what names it, the urgent ones first."""
    listed = [
        each
        for objective in args.objectives
        for dataset in args.datasets
        for network in args.networks
        for each in jobs_of(setting_of(network, args.budget, dataset, args.scale_rate), objective, args)
    ]
    return sorted(listed, key=lambda each: not each[0].pop("urgent"))


def measure(listed: list[tuple[dict[str, Any], Job]], args: argparse.Namespace) -> pd.DataFrame:
    """One row a training that is done."""
    results = run_within([job for _, job in listed], where_of(args), processes=args.processes, minutes=args.minutes)
    return pd.DataFrame([_row(label, results[job.key()]) for label, job in listed if job.key() in results])


def setting_of(network: str, budget: str, dataset: str, scale_rate: float = 0.1) -> Setting:
    """How a network is trained here: longer than elsewhere, for what little differs must not drown.

    Raises:
        ValueError: a network without a setting.
    """
    if budget == "tiny":
        return setting(network, "tiny", dataset=dataset)
    if network not in NETWORKS:
        raise ValueError(f"--networks {network!r}: no setting{unknown(network, NETWORKS)}")
    width, quick = (1.0 if network == "depthwise" else 0.5), budget == "quick"
    return Setting(
        network=network,
        dataset=dataset,
        channels=1 if dataset == "fashion-mnist" else 3,
        size=16 if quick else 32,
        width=width if quick else 1.0,
        images=10_000 if quick else 0,
        test_images=5000 if quick else 0,
        batch=64 if quick else 128,
        pretrain_epochs=8 if quick else 10,
        epochs=3 if quick else 4,
        scale_rate=scale_rate,
        flip=True,
    )


def _row(label: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """Of a result what tables need; "cost" is the share of 3 bits everywhere."""
    bits, inputs = result["bits"], result["input_bits"]
    written = " ".join(f"{b}/{inputs[name]}" if name in inputs else str(b) for name, b in bits.items())
    kept = ("test", "validation", "cost", "mean_bits", "energy_pj", "cycles", "seconds", "diverged")
    return {"policy": written, "limit": float("nan"), **label, "bits": written, **{key: result[key] for key in kept}}


def summary(rows: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """A line for each network, objective, budget and method; a sentence on each table's power."""
    lines: list[dict[str, Any]] = []
    verdicts: dict[str, str] = {}
    for (dataset, network, objective), group in rows.groupby(["dataset", "network", "objective"], sort=False):
        kinds = ["method", "limit", "policy"]
        group = group.assign(policy=group.policy.where(group.method.isin([_UNIFORM, "random"]), group.method))
        group = group.assign(fallen=collapsed(group, kinds))
        ladder = group[group.method == _UNIFORM]
        saved = saved_at_equal_accuracy(group, ladder, "energy_pj")
        group = group.assign(above=above_ladder(group, ladder), saved=saved)
        group.loc[group.fallen, ["above", "saved"]] = float("nan")
        energy = ladder[ladder.policy.isin(["uniform 3", "uniform 3/3"])].energy_pj.mean()
        where = {"dataset": dataset, "network": network, "objective": objective}
        for policy, each in ladder.groupby("policy", sort=False):
            lines.append({**where, "budget": "-", "method": policy, **_cells(each, energy)})
        for limit, budget in group[group.method != _UNIFORM].groupby("limit"):
            draws = budget[budget.method == "random"]
            spread, noise = spread_and_noise(draws[~draws.fallen])
            says = verdict({"spread": spread, "noise": noise})
            verdicts[f"{dataset}, {network}, {objective}, {limit:g}"] = says
            by_draw = draws.groupby("policy").above.mean()
            for method, each in budget.groupby("method", sort=False):
                above = each.groupby("seed").above.mean().dropna()
                cells = {
                    **_cells(each, energy),
                    "above uniform": _over_seeds(each.above, each.seed),
                    "energy saved, %": _over_seeds(each.saved, each.seed, digits=1),
                }
                if method != "random" and len(by_draw):
                    cells["better than draws"] = f"{int((by_draw < above.mean()).sum())} of {len(by_draw)}"
                lines.append({**where, "budget": f"{limit:g}", "method": str(method), **cells})
    return pd.DataFrame(lines).fillna("-"), verdicts


def _over_seeds(values: pd.Series[float], seeds: pd.Series[int], digits: int = 2) -> str:
    """Mean and standard error over seeds that have a value."""
    means = values.groupby(seeds).mean().dropna()
    return with_error(means, digits) if len(means) else "-"


def _cells(each: pd.DataFrame, energy: float) -> dict[str, Any]:
    alive = each[~each.fallen]
    return {
        "cost": f"{each.cost.mean():.3f}",
        "test": _over_seeds(alive.test, alive.seed),
        "runs": len(each),
        "collapsed": int(each.fallen.sum()),
        "energy": f"{each.energy_pj.mean() / energy:.2f}",
        "mean bits": f"{each.mean_bits.mean():.2f}",
    }


def main(argv: list[str]) -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks claim", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=["macs"])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--limits", type=float, nargs="+", default=None, help="shares of the cost of 3 bits everywhere")
    parser.add_argument("--draws", type=whole(1), default=_DRAWS, help="random policies of each budget")
    parser.add_argument("--share", type=number(0, 1), default=0.1, help="of the steps, for searches by training")
    parser.add_argument("--scale-rate", type=number(), default=0.1, help="of LSQ's steps, as a share of the weights'")
    parser.add_argument("--minutes", type=number(), default=None, help="begin no further training after so many")
    parser.add_argument("--name", type=stem, default="claim", help="of the files that are written")
    add_options(parser)
    parser.set_defaults(dataset=None)
    parser.add_argument("--datasets", nargs="+", default=["cifar10", "fashion-mnist"], help="any of `waveq data`")
    args = parser.parse_args(argv)
    args.datasets = [args.dataset] if args.dataset else args.datasets
    listed = planned(args)
    rows = measure(listed, args)
    if rows.empty:
        raise ValueError("--minutes: no training was finished in time")
    table, verdicts = summary(rows)
    for where, says in verdicts.items():
        print(f"{where}: {says}")
    args.dataset = " and ".join(args.datasets)
    index = ["dataset", "network", "objective", "budget", "method"]
    save_table(args.name, table.set_index(index), rows, args, verdicts=verdicts, planned=len(listed))
    return 0
