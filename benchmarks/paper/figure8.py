"""Figure 8: convergence with the wave and without, fine-tuning a float network and training from scratch.

Top: accuracy of the quantised network on validation images over the steps; bottom: its task loss (no penalty in it) on
training images. Thin lines are seeds, the thick one their mean. The paper's figure shows both curves converging to a
better accuracy with the wave, and a training loss that jumps when the wave sets in and then falls below the other.
Both methods share start, images, epochs and rate. Bases, rates and waves are those of tables 2 and 6.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

import waveq
from benchmarks.lab.data import Part, images_of
from benchmarks.lab.job import Job, Where
from benchmarks.lab.pool import add_options, run_jobs, where_of
from benchmarks.lab.settings import Setting, setting
from benchmarks.lab.tables import save_table, with_error
from benchmarks.lab.training import accuracy
from benchmarks.paper import table2, table6
from benchmarks.paper._figure import COLOURS, save_picture

_IMAGES = 1000
KEY = ["network", "base", "start"]
_METHODS = {False: "alone", True: "with the wave"}
FLOAT, SCRATCH = "from the float network", "from scratch"
# from scratch DoReFa as released does not leave chance in a network without batch norm (table 6): nothing to draw
CASES = (("DoReFa", FLOAT), ("DoReFa, scaled", FLOAT), ("DoReFa, scaled", SCRATCH))


@dataclass
class Convergence:
    """Validation accuracy and training loss at the start and at the end of each stretch of the run.

    Both are of the first thousand images of their part; the whole parts would cost more than the training.

    Attributes:
        setting: of the jobs; says which images.
        where: of the jobs.
        stretches: of equal length.
    """

    setting: Setting
    where: Where
    stretches: int = 20
    curve: list[dict[str, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """How many points."""
        return f"convergence-{self.stretches}"

    def __call__(self, step: int, model: nn.Module, handle: waveq.WaveQ | None) -> None:
        """Look where a point is due."""
        assert handle is not None
        assert handle.total_steps is not None
        if step not in {round(i * handle.total_steps / self.stretches) for i in range(self.stretches + 1)}:
            return
        data = images_of(self.setting, self.where.device, self.where.data_dir)
        train, validation = _some(data.train), _some(data.validation)
        self.curve.append({"step": step, "validation": accuracy(model, validation), "loss": task_loss(model, train)})

    def seen(self) -> list[dict[str, float]]:
        """The curve."""
        return self.curve


def _some(part: Part) -> Part:
    return part[0][:_IMAGES], part[1][:_IMAGES]


@torch.no_grad()
def task_loss(model: nn.Module, part: Part) -> float:
    """Mean cross-entropy in nats, in evaluation mode."""
    was_training = model.training
    model.eval()
    loss = float(F.cross_entropy(model(part[0]), part[1]))
    model.train(was_training)
    return loss


def jobs_of(row: Setting, args: argparse.Namespace) -> dict[tuple[str, str, bool, int], Job]:
    """(base, start, with the wave, seed) -> its training."""
    jobs = {}
    for base, start in CASES:
        chosen = table2.BASES[base] if start == FLOAT else table6.BASES[base]
        for wave in (False, True):
            attach = {**chosen.arguments, "bits": args.bits, **(chosen.wave if wave else {"lambda_w": 0.0})}
            for seed in args.seeds:
                job = Job(setting=row, seed=seed, attach=attach, lr=chosen.lr)
                if start == SCRATCH:
                    job = table6.from_scratch(row, seed, chosen, args.bits, wave=wave)
                jobs[base, start, wave, seed] = job
    return jobs


def compare(rows: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy at the end and validation accuracy over the run: alone, with the wave, paired difference."""
    lines = []
    for key, group in rows.groupby(KEY, sort=False):
        line = dict(zip(KEY, key, strict=True))
        for value, title in (("test", "test accuracy"), ("validation", "mean over the run")):
            each = group.pivot_table(index="seed", columns="wave", values=value)  # test is the same at every step
            for wave, method in _METHODS.items():
                line[f"{title}, {method}"] = with_error(each[wave])
            line[f"{title}, difference"] = with_error(each[True] - each[False])
        lines.append(line)
    return pd.DataFrame(lines).set_index(KEY)


def draw(rows: pd.DataFrame) -> Figure:
    """A column for each network, base and start, accuracy above loss."""
    columns = list(rows.groupby(KEY, sort=False))
    figure = Figure(figsize=(4.5 * len(columns), 6), layout="constrained")
    axes = figure.subplots(2, len(columns), squeeze=False, sharex="col")
    for i, ((network, base, start), group) in enumerate(columns):
        axes[0][i].set_title(f"{network}, {base}\n{start}", fontsize=10)
        _curves(axes[0][i], group, "validation")
        _curves(axes[1][i], group, "loss")
        axes[1][i].set_yscale("log")
        axes[1][i].set_xlabel("optimiser step")
    axes[0][0].set_ylabel("validation accuracy, %")
    axes[1][0].set_ylabel("training loss (task alone), nats")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
    return figure


def _curves(panel: Axes, group: pd.DataFrame, value: str) -> None:
    for wave, method in _METHODS.items():
        wide = group[group.wave == wave].pivot_table(index="step", columns="seed", values=value)
        panel.plot(wide.index, wide, color=COLOURS[int(wave)], linewidth=0.6, alpha=0.7)
        mean, style = wide.mean(axis=1), "--" if wave else "-"
        panel.plot(mean.index, mean, color=COLOURS[int(wave)], label=method, linewidth=2.2, linestyle=style)
    panel.grid(alpha=0.3)


def main(argv: list[str]) -> int:
    """Train, print, draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks figure8", description=__doc__)
    parser.add_argument("--networks", nargs="+", default=["simplenet5"])
    parser.add_argument("--bits", type=int, default=3)
    add_options(parser)
    args = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for network in args.networks:
        row = setting(network, args.budget, dataset=args.dataset)
        jobs, where = jobs_of(row, args), where_of(args)
        results = run_jobs(list(jobs.values()), where, processes=args.processes, watch=Convergence(row, where))
        for (base, start, wave, seed), result in zip(jobs, results, strict=True):
            label = {"network": network, "base": base, "start": start, "wave": wave, "seed": seed}
            rows += [label | {"test": result["test"]} | point for point in result["seen"]]
    frame = pd.DataFrame(rows)
    save_table("figure8", compare(frame), frame, args)
    save_picture("figure8", draw(frame), args.out)
    return 0
