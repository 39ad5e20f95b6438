"""Whether the fused and the plain form learn the same bits: whole runs with the defaults, beside a control.

Training through a rounding is chaotic: a weight beside a threshold falls to one side or the other by the last bit of a
sum. So a run of the fused form is compared with one of the plain form (same weights, data and rates), and beside it
the plain form with itself, all weights (or the first one alone) moved to the next number above at the start. The
float64 rows compare the closed forms, which the kernels compute in float32, with the plain form where nothing is
rounded to speak of: once with noise of 0.01 on the pixels, once without. Pixels are whole numbers and levels equally
far apart, so that a pooling window often holds its maximum twice, and rounding decides which gets the gradient.

Every run is kept; an interrupted benchmark goes on. The test images are read once a run, at its end.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

import waveq
from benchmarks._report import write_json
from benchmarks.speed._loop import steps_of
from waveq import use_backend
from waveq.method.parametrization import parametrization_of
from waveq.train.classifier import measure
from waveq.train.config import TrainConfig, load_recipe
from waveq.train.materials import make_dataset, make_network
from waveq.train.stage import make_loader
from waveq.zoo import Dataset

# `python -m benchmarks fashion` trains as long when it is quick
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {},
    "fashion-mnist": {"pretrain_epochs": 3, "epochs": 3},
}
BASE = "plain"
RUNS: dict[str, dict[str, Any]] = {
    BASE: {"form": "plain"},
    "fused": {"form": "auto"},
    "all weights": {"form": "plain", "nudged": "all"},
    "one weight": {"form": "plain", "nudged": "one"},
}
WIDE: dict[str, dict[str, Any]] = {
    BASE: {"form": "plain", "dtype": torch.float64},
    "closed forms": {"form": "torch", "dtype": torch.float64},
    "all weights": {"form": "plain", "dtype": torch.float64, "nudged": "all"},
}
NOISE = 0.01


def nudge(network: nn.Module, which: str) -> None:
    """Move all weights, or the first one, to the next number above."""
    with torch.no_grad():
        for parameter in network.parameters():
            flat = parameter.view(-1)[: 1 if which == "one" else None]
            flat.copy_(torch.nextafter(flat, torch.full_like(flat, math.inf)))
            if which == "one":
                return


def widen(network: nn.Module, names: Sequence[str]) -> None:
    """Keep what is learned beside the weights in float64 too; it is float32 in every model."""
    for name in names:
        state = parametrization_of(network.get_submodule(name))
        for buffer in ("strength", "velocity", "trend", "bound"):
            setattr(state, buffer, getattr(state, buffer).double())
        state.beta = state.beta.detach().double().requires_grad_(state.learns)


def train(
    start: nn.Module,
    config: TrainConfig,
    dataset: Dataset,
    *,
    form: str,
    nudged: str | None = None,
    dtype: torch.dtype = torch.float32,
    noise: float = 0.0,
) -> dict[str, Any]:
    """One whole run with learned bits; plain data."""
    network = copy.deepcopy(start).to(dtype)
    if nudged is not None:
        nudge(network, nudged)
    steps = config.epochs * len(make_loader(config, dataset, "wave"))
    with use_backend(form):
        wq = waveq.attach(network, total_steps=steps)
        if dtype == torch.float64:
            widen(network, wq.names)
        losses, betas = [], []
        for loss in steps_of(network, config, dataset, wq, noise=noise):
            losses.append(loss.item())
            betas.append(list(wq.betas().values()))
        bits = wq.bits()
        wq.finalize()
    found = {part: measure(network, dataset.loader(part)) for part in ("validation", "test")}
    return {
        "bits": bits,
        "betas": betas,
        "losses": losses,
        "validation": 100 * found["validation"]["accuracy"],
        "test": 100 * found["test"]["accuracy"],
        "test_loss": found["test"]["loss"],
    }


class Seed:
    """The runs of one network and seed, each trained once and kept in the folder."""

    def __init__(self, name: str, seed: int, args: argparse.Namespace) -> None:
        self.name, self.seed, self.folder = name, seed, args.folder / f"{name}-seed{seed}"
        self.config = load_recipe(name, seed=seed, threads=1, progress=False, data_dir=args.data_dir, **SETTINGS[name])
        self.folder.mkdir(parents=True, exist_ok=True)
        self._dataset: Dataset | None = None

    @property
    def dataset(self) -> Dataset:
        """Read when it is first needed."""
        if self._dataset is None:
            self._dataset = make_dataset(self.config)
        return self._dataset

    def start(self) -> nn.Module:
        """The float network that all runs start from."""
        network, path = make_network(self.config, self.dataset), self.folder / "float.pt"
        if path.exists():
            network.load_state_dict(torch.load(path, weights_only=True))
        else:
            for _ in steps_of(network, self.config, self.dataset, None, stage="float"):
                pass
            torch.save(network.state_dict(), path)
        return network

    def run(self, label: str, **how: Any) -> dict[str, Any]:
        """One run, trained or read."""
        path = self.folder / f"{label.replace(', ', ' ').replace(' ', '-')}.json"
        if not path.exists():
            fresh = train(self.start(), self.config, self.dataset, **how)
            path.write_text(json.dumps(fresh))
        found: dict[str, Any] = json.loads(path.read_text())
        return found


def compared(ours: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """How far two runs came out apart; ``beta_ever`` and ``loss_ever`` are the largest differences at any step."""
    apart = [
        max(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in zip(ours["betas"], base["betas"], strict=True)
    ]
    losses = [abs(a - b) for a, b in zip(ours["losses"], base["losses"], strict=True)]
    differing = [abs(ours["bits"][name] - bits) for name, bits in base["bits"].items()]
    return {
        "layers": len(differing),
        "differing_layers": sum(map(bool, differing)),
        "bits_apart": max(differing),
        "beta_apart": apart[-1],
        "beta_ever": max(apart),
        "loss_ever": max(losses),
        "steps": len(losses),
        "first_step_apart": next((i for i, gap in enumerate(apart) if gap > 1e-3), None),
        "test_apart": abs(ours["test"] - base["test"]),
        "test_loss_apart": abs(ours["test_loss"] - base["test_loss"]),
        "bits": " ".join(map(str, ours["bits"].values())),
        "bits_of_plain": " ".join(map(str, base["bits"].values())),
        "test": ours["test"],
        "test_of_plain": base["test"],
    }


def plan_of(args: argparse.Namespace) -> list[tuple[Seed, str, str, dict[str, Any]]]:
    """(seed, group, label, how) of every run; within a group each is compared with the first."""
    jobs = []
    for name in args.networks:
        for seed in args.seeds if name == "digits" else args.fashion_seeds:
            runs = Seed(name, seed, args)
            jobs += [(runs, "float32", label, how) for label, how in RUNS.items()]
            if name == "digits" and seed in args.seeds[: args.float64]:
                for group, noise in (("float64, noisy pixels", NOISE), ("float64, pixels as they are", 0.0)):
                    jobs += [(runs, group, label, {**how, "noise": noise}) for label, how in WIDE.items()]
    return jobs


def measure_all(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for every run that is compared with a plain one."""
    rows, base = [], {}
    with Progress(console=Console(stderr=True)) as progress:
        for runs, group, label, how in progress.track(plan_of(args), description="runs"):
            found = runs.run(f"{group} {label}", **how)
            if label == BASE:
                base = found
            else:
                which = {"network": runs.name, "numbers": group, "compared": label, "seed": runs.seed}
                rows.append({**which, **compared(found, base)})
    return rows


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each network and comparison, over seeds."""
    groups = rows.groupby(["network", "numbers", "compared"], sort=False)
    return groups.agg(
        seeds=("seed", "count"),
        same_bits=("bits_apart", lambda gaps: int((gaps == 0).sum())),
        differing_layers=("differing_layers", "mean"),
        most_bits_apart=("bits_apart", "max"),
        beta_apart=("beta_apart", "mean"),
        most_beta_apart=("beta_apart", "max"),
        beta_ever=("beta_ever", "max"),
        loss_ever=("loss_ever", "max"),
        test_apart=("test_apart", "mean"),
        test_loss_apart=("test_loss_apart", "mean"),
    )


def main(argv: list[str]) -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks forms", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=tuple(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4, 5], help="for digits")
    parser.add_argument("--fashion-seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--float64", type=int, default=2, help="how many of the digits' seeds in float64 too")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-forms"), help="finished runs are kept here")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = measure_all(args)
    frame = pd.DataFrame(rows)
    with pd.option_context("display.width", 200, "display.max_columns", None):
        print(summary(frame).to_string(float_format=lambda x: f"{x:.2g}"))
    if args.json is not None:
        write_json(args.json, {"settings": SETTINGS, "noise": NOISE, "rows": rows})
    return 0
