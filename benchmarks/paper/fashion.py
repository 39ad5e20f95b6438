"""Fashion-MNIST, SimpleNet-5: float, uniform 2/3/4 bits and learned bits, with their energy on Stripes; several seeds.

Every row of one seed starts from the same float weights and trains for the same number of epochs with the same data,
rate and batch. "dorefa" is DoReFa as released (levels span [-1, 1]), "dorefa-max" the same scaled to each layer's own
range, "waveq" learns the bits (preset recommended) at a price per bit, "waveq-budget" under a budget of mean bits. Test
images are read once a run, after training; nothing is chosen by them. A run that is interrupted goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks._report import write_json

QUICK = {"pretrain_epochs": 3, "epochs": 3}
FULL = {"pretrain_epochs": 10, "epochs": 12}


def runs_of_a_seed(budget: float) -> dict[str, dict[str, Any]]:
    """What differs between the rows."""
    alone = {"lambda_w": 0.0}
    return {
        "dorefa 2": {"bits": 2, "scale": "none", **alone},
        "dorefa 3": {"bits": 3, "scale": "none", **alone},
        "dorefa 4": {"bits": 4, "scale": "none", **alone},
        "dorefa-max 2": {"bits": 2, **alone},
        "dorefa-max 3": {"bits": 3, **alone},
        "dorefa-max 4": {"bits": 4, **alone},
        "waveq": {"bits": "learn"},
        f"waveq-budget {budget:g}": {"bits": "learn", "target": {"mean_bits": budget}},
    }


def measure(seed: int, label: str, changes: Mapping[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Train one row (or read it, where it is finished) and score it."""
    from stripes_sim import Stripes
    from waveq.codesign.score import score_run
    from waveq.train.config import load_recipe
    from waveq.train.run import train
    from waveq.train.trained_run import TrainedRun

    folder = args.folder / f"seed{seed}"
    epochs = FULL if args.budget == "full" else QUICK
    shared = {
        "quantizer": "dorefa",
        "seed": seed,
        "threads": args.threads,
        "data_dir": args.data_dir,
        "progress": False,
    }
    first = label == "dorefa-max 4"
    start = epochs if first else {"init": folder / "dorefa-max-4", "epochs": epochs["epochs"], "pretrain_epochs": 0}
    where = {"run_dir": folder / label.replace(" ", "-"), "log_every": 100}
    config = load_recipe("fashion-mnist", **shared, **start, **changes, **where, rewind=False)  # bits in the same run
    result = train(config, say=lambda _text: None)
    score = score_run(TrainedRun(result.run_dir), Stripes())
    return {
        "seed": seed,
        "row": label,
        "float_test": 100 * result.float_test_accuracy,
        "test": 100 * result.test_accuracy,
        "validation": 100 * result.validation_accuracy,
        "mean_bits": result.mean_bits,
        "bits": " ".join(map(str, result.bits.values())),
        "cycles": score.cycles,
        "energy_pj": score.energy_pj,
        "saved_against_8_bits": score.saving(8).energy_saving,
        "saved_against_16_bits": score.saving(16).energy_saving,
        "warnings": list(result.warnings),
    }


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error over seeds, one line a row."""
    numbers = ["test", "mean_bits", "saved_against_8_bits", "saved_against_16_bits"]
    grouped = rows.groupby("row", sort=False)
    table = grouped[numbers].mean()
    table.insert(1, "test_se", grouped["test"].sem())
    table["bits"] = grouped["bits"].agg(" | ".join)
    return table


def main(argv: list[str]) -> int:
    """Train every row for every seed, print the table, write JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks fashion", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", choices=("quick", "full"), default="quick", help="epochs: 3 + 3, or 10 + 12")
    parser.add_argument("--mean-bits", type=float, default=2.6, help="the limit of waveq-budget")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-fashion"), help="run folders; resumed")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args(argv)
    kinds = runs_of_a_seed(args.mean_bits)
    order = ["dorefa-max 4", *(label for label in kinds if label != "dorefa-max 4")]  # the first trains the float net
    rows = []
    for seed in args.seeds:
        for label in order:
            rows.append(measure(seed, label, kinds[label], args))
            print(f"seed {seed}  {label:<18} test {rows[-1]['test']:.2f} %  bits {rows[-1]['bits']}", file=sys.stderr)
    frame = pd.DataFrame(rows)
    floats = frame.groupby("seed")["float_test"].first()
    print(f"float: {floats.mean():.2f} % (standard error {floats.sem():.2f}, {len(floats)} seeds)\n")
    print(summary(frame).to_string(float_format=lambda x: f"{x:.3f}"))
    if args.json is not None:
        arguments = {key: str(value) for key, value in vars(args).items()}
        write_json(args.json, {"arguments": arguments, "rows": rows})
    return 0
