"""Figure 7: the paths of some weights over the training: without the wave, with a constant one, and with a rising one.

Trained from scratch, as in the paper's figure: with a constant wave weights should be caught by the levels that they
start at; with lambda_w rising exponentially they should first travel from level to level and settle late. Three numbers
stand behind the picture, over all weights of the network:

- the share that ends on another level than it began on (how far the wave lets weights travel);
- level crossings of a weight in 100 steps, over the whole run and over its last quarter (there it is oscillation, which
  is known to hurt quantised training, and which the wave might calm);
- the share that ends within a tenth of a step of a level, 20 % for evenly spread weights.

A level is counted on the axis of what is rounded. Where that is divided by the layer's largest weight (DoReFa always),
a weight can also cross because the largest one moved.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import waveq
from benchmarks.lab.job import Job
from benchmarks.lab.pool import add_options, run_jobs, where_of
from benchmarks.lab.settings import setting
from benchmarks.lab.tables import save_table, with_error
from benchmarks.lab.watch import all_on_grid, on_grid, share_near
from benchmarks.paper._figure import COLOURS, save_picture
from waveq.functional import grid_levels
from waveq.quantizers import make_quantizer

MEASURES = {
    "moved": "ends on another level, %",
    "crossings": "crossings in 100 steps",
    "crossings_late": "the same, last quarter",
    "near": "on a level at the end, %",
    "test": "test accuracy",
}
_POINTS = 300  # of a path, as many as a picture can show


@dataclass
class Paths:
    """The paths of some weights of one layer, and how often all weights of the network cross from level to level.

    Attributes:
        layer: its name; "" takes the second layer.
        count: weights that are followed, drawn by a fixed seed.
    """

    layer: str
    count: int
    steps: list[int] = field(default_factory=list)
    paths: list[list[float]] = field(default_factory=list)
    crossed: list[float] = field(default_factory=list)
    first: Tensor | None = None
    last: Tensor | None = None
    near: float = 0.0

    @property
    def name(self) -> str:
        """Layer and count."""
        return f"paths-{self.layer or 'second'}-{self.count}"

    def __call__(self, step: int, model: nn.Module, handle: waveq.WaveQ | None) -> None:
        """Compare every weight's level with the one a step before; note the paths where a point is due."""
        assert handle is not None
        assert handle.total_steps is not None
        position = all_on_grid(model, handle)
        level = position.round().to(torch.int16)
        if self.last is None:
            self.first = level
        else:
            self.crossed.append(float((level != self.last).float().mean()))
        self.last = level
        self.near = share_near(position)
        if step % max(1, handle.total_steps // _POINTS) == 0 or step == handle.total_steps:
            u = on_grid(model.get_submodule(self.layer or handle.names[1])).u
            chosen = torch.randperm(len(u), generator=torch.Generator().manual_seed(0))[: self.count]
            self.steps.append(step)
            self.paths.append([round(value, 4) for value in u[chosen].tolist()])

    def seen(self) -> dict[str, Any]:
        """Paths and numbers."""
        assert self.first is not None
        assert self.last is not None
        late = self.crossed[3 * len(self.crossed) // 4 :]
        return {
            "steps": self.steps,
            "paths": self.paths,
            "moved": 100.0 * float((self.first != self.last).float().mean()),
            "crossings": 100.0 * sum(self.crossed) / len(self.crossed),
            "crossings_late": 100.0 * sum(late) / len(late),
            "near": self.near,
        }


def waves(strength: float) -> dict[str, dict[str, Any]]:
    """The three trainings: the two waves end equally strong."""
    return {
        "no wave": {"lambda_w": 0.0},
        "constant wave": {"schedule": "constant", "lambda_w": strength},
        "rising wave": {"schedule": "exponential", "lambda_w": strength},
    }


def draw(found: dict[str, dict[str, Any]], levels: list[float]) -> Figure:
    """One panel for each training, the same weights in each."""
    figure = Figure(figsize=(4 * len(found), 4), layout="constrained")
    for panel, (name, seen) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
        for level in levels:
            panel.axhline(level, color="0.7", linewidth=0.8, zorder=0)
        for index, path in enumerate(zip(*seen["paths"], strict=True)):
            panel.plot(seen["steps"], path, color=COLOURS[index % len(COLOURS)], linewidth=0.7)
        panel.set_title(
            f"{name}\n{seen['moved']:.0f} % of all weights end on another level,\n"
            f"{seen['crossings_late']:.2f} crossings in 100 steps in the last quarter",
            fontsize=9,
        )
        panel.set_xlabel("optimiser step")
    figure.axes[0].set_ylabel("u (what is rounded); grey lines: levels")
    return figure


def main(argv: list[str]) -> int:
    """Train, print the numbers, draw the first seed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks figure7", description=__doc__)
    parser.add_argument("--network", default="simplenet5")
    parser.add_argument("--layer", default="", help="whose weights are drawn; default: the network's second")
    parser.add_argument("--weights", type=int, default=30, help="that are drawn")
    parser.add_argument("--quantizer", choices=("dorefa", "wrpn"), default="dorefa")
    parser.add_argument("--scale", choices=("none", "max", "learned"), default="max", help="of the levels")
    parser.add_argument("--bits", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.02, help="peak rate; at 0.05 one of three rising waves diverges")
    parser.add_argument("--strength", type=float, default=1.0, help="of both waves at the end")
    add_options(parser)
    args = parser.parse_args(argv)
    row = setting(args.network, args.budget, dataset=args.dataset)
    base = {"quantizer": args.quantizer, "scale": args.scale, "bits": args.bits}
    # no epochs beside those of the float network
    jobs = {
        (name, seed): Job(setting=row, seed=seed, attach=base | wave, scratch=True, epochs=0, lr=args.lr)
        for name, wave in waves(args.strength).items()
        for seed in args.seeds
    }
    watch = Paths(args.layer, args.weights)
    results = run_jobs(list(jobs.values()), where_of(args), processes=args.processes, watch=watch)
    rows, paths = [], []
    first: dict[str, dict[str, Any]] = {}
    for (name, seed), result in zip(jobs, results, strict=True):
        seen = result["seen"]
        scores = seen | {"test": result["test"]}
        rows.append({"training": name, "seed": seed} | {key: scores[key] for key in MEASURES})
        for step, values in zip(seen["steps"], seen["paths"], strict=True):
            point = {"training": name, "seed": seed, "step": step}
            paths.append(point | {f"weight {i}": value for i, value in enumerate(values)})
        first.setdefault(name, seen)
    frame = pd.DataFrame(rows)
    table = frame.groupby("training", sort=False)[list(MEASURES)].agg(with_error).rename(columns=MEASURES)
    save_table("figure7", table, frame, args)
    pd.DataFrame(paths).to_csv(args.out / "figure7_paths.csv", index=False)
    grid = make_quantizer(args.quantizer, torch.ones(1)).grid(args.bits)
    save_picture("figure7", draw(first, grid_levels(args.bits, grid).tolist()), args.out)
    return 0
