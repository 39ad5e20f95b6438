"""Oscillation dampening and freezing (Nagel et al. 2022, arXiv 2203.11086) beside LSQ alone and beside the wave.

A weight that lies near the boundary between two levels is rounded to either in turn while it is trained through the
quantizer. Two cures, both on LSQ with preset bits in every layer, from the same float network, in as many steps:

- dampening: lambda ||clip(w) - q(w)||^2 with q(w) held fixed (eq. 6), lambda rising along half a cosine. It is applied
  as weight decay is in AdamW, a step of its own after the optimizer's, at the rate that momentum gives.
- freezing: a weight that oscillates too often is put on the level that it was on most and stays there (algorithm 1);
  the threshold falls from 4 times the one that is named to it, along half a cosine.

A weight oscillates where it changes its level against the direction of its last change; how often is an exponential
average with weight 0.01, and "oscillating" are those above 0.005 at the end, as there. "as trained" is the accuracy on
held-out images with batch norm's statistics as training left them, "renewed" that after averaging them over 50 batches.
Test accuracy is with renewed ones.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

import waveq
from benchmarks.lab.job import Job
from benchmarks.lab.pool import add_options, run_jobs, where_of
from benchmarks.lab.tables import save_table, with_error
from benchmarks.paper.claim import setting_of
from waveq.method.parametrization import parametrization_of
from waveq.quantizers.lsq import LSQ

__all__ = ["WAYS", "Oscillations", "main"]

WAYS: dict[str, dict[str, Any]] = {
    "LSQ": {},
    "wave, late": {"wave": {"rise": 0.6, "strength": 0.3}},  # table 2's
    "wave, strong": {"wave": {"rise": 0.0, "strength": 1.0}},
    "dampening 0.001": {"dampening": 0.001},
    "dampening 0.01": {"dampening": 0.01},
    "dampening 0.1": {"dampening": 0.1},
    "dampening 1": {"dampening": 1.0},
    "freezing 0.01": {"freezing": 0.01},
}
_AVERAGE = 0.01  # weight of a step in the averages
_OSCILLATING = 0.005


@dataclass
class _Layer:
    """What is remembered of each weight of a layer: its level, whole steps, and how that has moved."""

    level: Tensor
    mean_level: Tensor
    direction: Tensor
    often: Tensor
    frozen: Tensor

    @classmethod
    def at(cls, level: Tensor) -> _Layer:
        zeros = torch.zeros_like(level)
        return cls(level, level.clone(), zeros, zeros.clone(), torch.zeros_like(level, dtype=torch.bool))

    def see(self, level: Tensor) -> None:
        """One step: whoever turns back oscillates."""
        change = (level - self.level).sign()
        turned = (change != 0) & (change == -self.direction)
        self.direction = torch.where(change != 0, change, self.direction)
        self.often.lerp_(turned.to(level.dtype), _AVERAGE)
        self.mean_level.lerp_(level, _AVERAGE)
        self.level = level


@dataclass
class Oscillations:
    """Counts oscillating weights, and cures them where it is told to: a ``Watch`` that may move weights.

    Attributes:
        rate: what a step of the optimizer moves a weight by, in gradients: the peak rate over 1 - momentum.
        dampening: lambda at the end.
        freezing: threshold at the end; 0 freezes nothing.
    """

    rate: float
    dampening: float = 0.0
    freezing: float = 0.0
    layers: dict[str, _Layer] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What is done."""
        return f"oscillations-{self.dampening:g}-{self.freezing:g}"

    @torch.no_grad()
    def __call__(self, step: int, model: nn.Module, handle: waveq.WaveQ | None) -> None:
        """Look at every weight, then pull and put."""
        assert handle is not None
        assert handle.total_steps is not None
        falling = (1.0 + math.cos(math.pi * step / handle.total_steps)) / 2  # also the course of the rate
        for name in handle.names:
            module = model.get_submodule(name)
            weight: Any = module.parametrizations.weight.original  # type: ignore[union-attr]
            quantizer = parametrization_of(module).quantizer
            assert isinstance(quantizer, LSQ)
            pitch, rounded = quantizer.step.detach(), module.weight.detach()  # type: ignore[union-attr, operator]
            layer = self.layers.setdefault(name, _Layer.at((rounded / pitch).round()))  # type: ignore[operator]
            layer.see((rounded / pitch).round())  # type: ignore[operator]
            if self.dampening:
                off = weight - rounded
                off = torch.where(off.abs() <= pitch / 2, off, torch.zeros_like(off))  # beyond the clip: no pull
                weight -= self.rate * falling * self.dampening * (1.0 - falling) * 2.0 * off
            if self.freezing:
                new = (layer.often > self.freezing * (1.0 + 3.0 * falling)) & ~layer.frozen
                layer.mean_level = torch.where(new, layer.mean_level.round(), layer.mean_level)
                layer.frozen |= new
                weight.copy_(torch.where(layer.frozen, layer.mean_level * pitch, weight))

    def seen(self) -> dict[str, float]:
        """Percent of all weights that oscillate at the end, and that are frozen."""
        often = torch.cat([layer.often.flatten() for layer in self.layers.values()])
        frozen = torch.cat([layer.frozen.flatten() for layer in self.layers.values()])
        return {
            "oscillating": 100.0 * float((often > _OSCILLATING).double().mean()),
            "frozen": 100.0 * float(frozen.double().mean()),
        }


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """One row a training."""
    rows = []
    for dataset in args.datasets:
        row = setting_of(args.network, args.budget, dataset)
        for way in args.ways:
            own = dict(WAYS[way])
            pull = {key: own.pop(key) for key in ("dampening", "freezing") if key in own}
            attach = {"quantizer": "lsq", "reestimate_bn": 50, **(own or {"lambda_w": 0.0})}
            jobs = {
                (bits, seed): Job(setting=row, seed=seed, attach={**attach, "bits": bits})
                for bits in args.bits
                for seed in args.seeds
            }
            watch = Oscillations(row.lr / (1.0 - row.momentum), **pull)
            results = run_jobs(list(jobs.values()), where_of(args), processes=args.processes, watch=watch)
            for (bits, seed), result in zip(jobs, results, strict=True):
                label = {"dataset": dataset, "bits": bits, "way": way, "seed": seed, "test": result["test"]}
                held_out = {"as trained": result["validation_before_rounding"], "renewed": result["validation"]}
                rows.append(label | held_out | result["seen"])
    return pd.DataFrame(rows).sort_values(["dataset", "bits"], kind="stable", ignore_index=True)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each dataset, number of bits and way; differences to LSQ alone are taken seed by seed."""
    keys = ["dataset", "bits", "seed"]
    alone = rows[rows.way == "LSQ"].set_index(keys).test
    own = rows.set_index(keys).test - alone.reindex(pd.MultiIndex.from_frame(rows[keys]))
    rows = rows.assign(difference=own.to_numpy())
    shown = ["as trained", "renewed", "test", "difference", "oscillating", "frozen"]
    table = rows.groupby(["dataset", "bits", "way"], sort=False)[shown].agg(with_error)
    return table.rename(columns={"oscillating": "oscillating, %", "frozen": "frozen, %"})


def main(argv: list[str]) -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks dampening", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--network", default="depthwise")
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    add_options(parser)
    parser.add_argument("--datasets", nargs="+", default=["fashion-mnist"], help="any of `waveq data`")
    args = parser.parse_args(argv)
    rows = measure(args)
    save_table("dampening", summary(rows), rows, args)
    return 0
