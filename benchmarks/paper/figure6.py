"""Figure 6: histograms of one layer's weights over the epochs, with the wave and without, on both grids.

The reader should see the weights gather in peaks on the levels (vertical lines) as the wave rises, on DoReFa's mid-rise
grid as on WRPN's mid-tread one; without the wave they should stay spread out. The paper shows this for 3 bits and gives
no number; here it is the share of weights within a tenth of a step of a level, which is 20 % for evenly spread ones.
That weights gather says nothing about accuracy, which stands beside it.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

import waveq
from benchmarks.lab.job import Job
from benchmarks.lab.pool import add_options, run_jobs, where_of
from benchmarks.lab.settings import setting
from benchmarks.lab.tables import save_table, with_error
from benchmarks.lab.watch import all_on_grid, on_grid, share_near
from benchmarks.paper._figure import COLOURS, save_picture
from waveq.functional import Grid, grid_levels

GRIDS = {"mid-rise (DoReFa)": ("dorefa", Grid.MID_RISE), "mid-tread (WRPN)": ("wrpn", Grid.MID_TREAD)}
MOMENTS = (0.0, 1 / 3, 2 / 3, 1.0)
BINS = 105  # 15 a step of DoReFa's 3-bit grid, whose levels then lie on edges: two bins share such a peak


@dataclass
class Histograms:
    """Counts of one layer's u on [-1, 1] at the given shares of the run; the layer's share on levels, and all layers'.

    Attributes:
        layer: its name; "" takes the second layer.
        moments: shares of the run.
    """

    layer: str
    moments: tuple[float, ...] = MOMENTS
    taken: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Layer and moments."""
        return f"histograms-{self.layer or 'second'}-{len(self.moments)}"

    def __call__(self, step: int, model: nn.Module, handle: waveq.WaveQ | None) -> None:
        """Take a histogram where one is due."""
        assert handle is not None
        assert handle.total_steps is not None
        due = [share for share in self.moments if round(share * handle.total_steps) == step]
        if not due:
            return
        layer = self.layer or handle.names[1]
        one = on_grid(model.get_submodule(layer))
        counts = torch.histc(one.u, BINS, -1.0, 1.0).to(torch.int64).tolist()
        near = {"near": share_near(one.position), "near_all": share_near(all_on_grid(model, handle))}
        self.taken.append({"layer": layer, "share": due[0], "step": step, "counts": counts, **near})

    def seen(self) -> list[dict[str, Any]]:
        """All of them."""
        return self.taken


def jobs_of(args: argparse.Namespace) -> dict[tuple[str, bool, int], Job]:
    """(grid, with the wave, seed) -> its training: same start, epochs, rate and images."""
    row = setting(args.network, args.budget, dataset=args.dataset)
    jobs: dict[tuple[str, bool, int], Job] = {}
    for title, (quantizer, _) in GRIDS.items():
        for wave in (False, True):
            attach = {"quantizer": quantizer, "scale": args.scale, "bits": args.bits}
            attach |= {"wave": {"rise": 0.0, "strength": args.strength}} if wave else {"lambda_w": 0.0}
            jobs |= {(title, wave, seed): Job(setting=row, seed=seed, attach=attach) for seed in args.seeds}
    return jobs


def tabulate(rows: pd.DataFrame) -> pd.DataFrame:
    """Share of all weights on levels by epoch, and the accuracies at the end; one row for each grid and method."""
    lines = []
    for (grid, wave), group in rows.groupby(["grid", "wave"], sort=False):
        line = {"grid": grid, "wave": "with" if wave else "without"}
        for epoch, at in group.groupby("epoch"):
            line[f"on levels, epoch {epoch:g}"] = with_error(at.near_all, 1)
        last = group[group.epoch == group.epoch.max()]
        lines.append(line | {"test accuracy": with_error(last.test)})
    return pd.DataFrame(lines).set_index(["grid", "wave"])


def draw(found: dict[tuple[str, bool], list[dict[str, Any]]], bits: int, epochs: int) -> Figure:
    """One row for each grid and method, one column for each moment."""
    moments = len(next(iter(found.values())))
    figure = Figure(figsize=(2.7 * moments, 1.9 * len(found) + 0.5), layout="constrained")
    axes = figure.subplots(len(found), moments, sharex=True, squeeze=False)
    for line, ((title, wave), taken) in zip(axes, found.items(), strict=True):
        for panel, one in zip(line, taken, strict=True):
            levels = grid_levels(bits, GRIDS[title][1]).tolist()
            _histogram(panel, one, levels, COLOURS[1] if wave else COLOURS[0])
            panel.set_title(f"{one['near']:.0f} % within a tenth of a step", fontsize=8)
        line[0].set_ylabel(f"{title}\n{'with' if wave else 'without'} the wave\nnumber of weights", fontsize=8)
    for panel, one in zip(axes[0], next(iter(found.values())), strict=True):
        panel.set_title(f"epoch {epochs * one['share']:g}\n" + panel.get_title(), fontsize=8)
    for panel in axes[-1]:
        panel.set_xlabel("u (what is rounded)", fontsize=8)
    return figure


def _histogram(panel: Axes, one: dict[str, Any], levels: list[float], colour: str) -> None:
    edges = np.linspace(-1.0, 1.0, BINS + 1)
    for level in levels:
        panel.axvline(level, color="0.75", linewidth=0.7, zorder=0)
    panel.stairs(one["counts"], edges, fill=True, color=colour)
    panel.tick_params(labelsize=7)


def main(argv: list[str]) -> int:
    """Train, print the shares, draw the first seed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks figure6", description=__doc__)
    parser.add_argument("--network", default="simplenet5")
    parser.add_argument("--layer", default="", help="whose histograms are drawn; default: the network's second")
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--scale", choices=("none", "max", "learned"), default="max", help="of the levels")
    parser.add_argument("--strength", type=float, default=1.0, help="of the wave at the end; it rises in a line from 0")
    add_options(parser)
    args = parser.parse_args(argv)
    jobs = jobs_of(args)
    epochs = next(iter(jobs.values())).setting.epochs
    results = run_jobs(list(jobs.values()), where_of(args), processes=args.processes, watch=Histograms(args.layer))
    rows, counts = [], []
    first: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for (grid, wave, seed), result in zip(jobs, results, strict=True):
        label = {"grid": grid, "wave": wave, "seed": seed}
        for one in result["seen"]:
            at = label | {"epoch": round(epochs * one["share"], 2), "layer": one["layer"]}
            rows.append(at | {"near": one["near"], "near_all": one["near_all"], "test": result["test"]})
            counts.append(at | {f"bin {i}": count for i, count in enumerate(one["counts"])})
        first.setdefault((grid, wave), result["seen"])
    save_table("figure6", tabulate(pd.DataFrame(rows)), pd.DataFrame(rows), args)
    pd.DataFrame(counts).to_csv(args.out / "figure6_histograms.csv", index=False)
    save_picture("figure6", draw(first, args.bits, epochs), args.out)
    return 0
