"""Figure 5: the bits that are learned layer by layer, and what one bit less in a single layer costs.

A learned policy is a good one if no layer has a bit to spare. So one layer at a time gets one bit less, all else equal:

- "rounded": the float network that the training started from is rounded to the changed policy, without training;
- "retrained": the float network is trained with the changed policy as preset bits, for the epochs of every other job;
  the control is the unchanged policy trained the same way, not the run that learned it.

The paper retrains and says that the accuracy falls by 0.44 % (AlexNet) and 0.24 % (ResNet-18) on average over the
layers. Changes are in points of test accuracy, negative where the bit was worth something; mean and standard error over
seeds, each of which has a policy of its own. All layers of a seed share one control, so that their mean has its noise.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.lab.data import images_of
from benchmarks.lab.job import Job, Where
from benchmarks.lab.pool import add_options, run_jobs, where_of
from benchmarks.lab.settings import Setting, setting
from benchmarks.lab.tables import mean_and_error, save_table, with_error
from benchmarks.lab.training import float_network
from benchmarks.paper._figure import COLOURS, save_picture
from pareto import sensitivity
from waveq import PolicyEvaluator

BASE = {"quantizer": "dorefa", "scale": "max"}
WAVE = {"rise": 0.6, "strength": 0.1}  # as late as the recommended preset lets it rise
NETWORKS = ("simplenet5", "resnet20")
AVERAGE = "mean over layers"


def learn(row: Setting, args: argparse.Namespace) -> list[dict[str, int]]:
    """The learned policy of every seed."""
    attach = BASE | {"bits": "learn", "target": {"mean_bits": args.mean_bits}}
    jobs = [Job(setting=row, seed=seed, attach=attach) for seed in args.seeds]
    return [result["bits"] for result in run_jobs(jobs, where_of(args), processes=args.processes)]


def rounded(row: Setting, seed: int, policy: dict[str, int], where: Where) -> dict[str, float]:
    """Change in accuracy by layer, on the float network of a seed."""
    network, test = float_network(row, seed, where), images_of(row, where.device, where.data_dir).test
    evaluator = PolicyEvaluator(network, test, **BASE)  # type: ignore[arg-type]
    table = sensitivity(policy, lambda policies: 100.0 * evaluator.accuracy(np.asarray(policies)))
    return dict(zip(table.layer, table.change.astype(float), strict=True))


def retrained(row: Setting, policies: list[dict[str, int]], args: argparse.Namespace) -> list[dict[str, float]]:
    """Change in accuracy by layer, for every seed: each changed policy trained as the control is."""
    jobs = {}
    for seed, policy in zip(args.seeds, policies, strict=True):
        control = Job(setting=row, seed=seed, attach=BASE | {"bits": policy, "wave": WAVE})
        jobs[seed, ""] = control
        for layer in _lowerable(policy):
            less = {**policy, layer: policy[layer] - 1}
            jobs[seed, layer] = replace(control, attach=BASE | {"bits": less, "wave": WAVE})
    results = run_jobs(list(jobs.values()), where_of(args), processes=args.processes)
    test = {key: result["test"] for key, result in zip(jobs, results, strict=True)}
    return [
        {layer: test[seed, layer] - test[seed, ""] for layer in _lowerable(policy)}
        for seed, policy in zip(args.seeds, policies, strict=True)
    ]


def _lowerable(policy: dict[str, int]) -> list[str]:
    return [layer for layer, bits in policy.items() if bits > 1]


def measure(network: str, args: argparse.Namespace) -> pd.DataFrame:
    """One row for each seed and layer: bits, change when rounded, change when retrained (NaN where it was not)."""
    row, where = setting(network, args.budget, dataset=args.dataset), where_of(args)
    policies = learn(row, args)
    trained = retrained(row, policies, args) if network in args.retrain else [{} for _ in policies]
    rows = []
    for seed, policy, again in zip(args.seeds, policies, trained, strict=True):
        once = rounded(row, seed, policy, where)
        rows += [
            {"network": network, "seed": seed, "layer": layer, "bits": bits}
            | {"rounded": once.get(layer, np.nan), "retrained": again.get(layer, np.nan)}
            for layer, bits in policy.items()
        ]
    return pd.DataFrame(rows)


def tabulate(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each layer, and for each network the mean over layers (its error is that of the seeds' means)."""
    lines = []
    for network, of_network in rows.groupby("network", sort=False):
        values = ["bits", "rounded", "retrained"]
        means = of_network.groupby("seed")[values].mean()
        for layer, group in [*of_network.groupby("layer", sort=False), (AVERAGE, means)]:
            line: dict[str, Any] = {"network": network, "layer": layer, "bits": with_error(group.bits, 1)}
            for value in values[1:]:
                line[f"one bit less, {value}"] = with_error(group[value]) if group[value].notna().any() else "-"
            lines.append(line)
    return pd.DataFrame(lines).set_index(["network", "layer"])


def draw(rows: pd.DataFrame) -> Figure:
    """A column for each network: bits by layer above, changes below."""
    networks = list(rows.groupby("network", sort=False))
    widths = [max(5, group.layer.nunique()) for _, group in networks]
    figure = Figure(figsize=(0.45 * sum(widths) + 1.5, 6), layout="constrained")
    axes = figure.subplots(2, len(networks), squeeze=False, sharex="col", width_ratios=widths)
    for i, (network, group) in enumerate(networks):
        _bits(axes[0][i], group)
        _changes(axes[1][i], group)
        axes[0][i].set_title(f"{network}, {group.bits.mean():.2f} bits on average", fontsize=10)
    axes[0][0].set_ylabel("bits of a weight, sign included\n(bar: mean, dots: seeds)")
    axes[1][0].set_ylabel("change of test accuracy with\none bit less, points")
    handles = {
        label: handle for axis in axes[1] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _bits(panel: Axes, group: pd.DataFrame) -> None:
    wide = group.pivot_table(index="layer", columns="seed", values="bits", sort=False)
    places = np.arange(len(wide))
    panel.bar(places, wide.mean(axis=1), color=COLOURS[5], width=0.7)
    for i, seed in enumerate(wide):
        panel.plot(places + 0.15 * (i - (wide.shape[1] - 1) / 2), wide[seed], ".", color="0.2", markersize=4)
    panel.set_xticks(places, wide.index, rotation=90, fontsize=8)


def _changes(panel: Axes, group: pd.DataFrame) -> None:
    layers = group.layer.unique()
    for i, (value, label) in enumerate((("rounded", "rounded, no training"), ("retrained", "retrained"))):
        stats = [mean_and_error(group[group.layer == layer][value]) for layer in layers]
        mean, error = np.array(stats).T
        if np.isnan(mean).all():
            continue
        panel.bar(np.arange(len(layers)) + 0.4 * i - 0.2, mean, 0.38, color=COLOURS[3 * (1 - i)], label=label)
        panel.errorbar(np.arange(len(layers)) + 0.4 * i - 0.2, mean, error, fmt="none", ecolor="0.2", linewidth=0.8)
    panel.axhline(0.0, color="0.2", linewidth=0.8)
    panel.tick_params(axis="x", rotation=90, labelsize=8)


def main(argv: list[str]) -> int:
    """Learn, take bits away, print, draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks figure5", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument(
        "--retrain",
        nargs="*",
        default=None,
        help="networks whose changed policies are trained, too: "
        "a training for each layer and seed; default: simplenet5 (quick), all (full)",
    )
    parser.add_argument("--mean-bits", type=float, default=3.85, help="the budget of the learned policies")
    add_options(parser)
    args = parser.parse_args(argv)
    if args.retrain is None:
        args.retrain = ["simplenet5"] if args.budget == "quick" else args.networks
    rows = pd.concat([measure(network, args) for network in args.networks], ignore_index=True)
    save_table("figure5", tabulate(rows), rows, args)
    save_picture("figure5", draw(rows), args.out)
    return 0
