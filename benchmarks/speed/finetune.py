"""Fine-tuning many policies from one float network: policies per hour, together against one at a time.

    python -m benchmarks finetune [--json OUT] [--quick] [--device cuda]

For each network and batch size some steps are timed with one policy and with growing groups of policies trained as one
(all settings in turn, best of several rounds), and policies per hour and core (or GPU) follow from the steps that an
epoch has; on a CPU that is processor time. Accuracies of a few policies are compared between the two ways.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch

from benchmarks._report import write_json
from waveq.evaluate.finetune import PolicyFinetuner
from waveq.evaluate.finetune_group import Group, Recipe, seconds_per_policy
from waveq.zoo.datasets.data import load_data
from waveq.zoo.networks.models import build

__all__ = ["main"]

_CASES = (
    ("digitsnet", "digits", 32),
    ("digitsnet", "digits", 128),
    ("simplenet5", "fashion-mnist", 32),
    ("simplenet5", "fashion-mnist", 128),
)
_ROUNDS = 3


def main(argv: list[str]) -> int:
    """Time every case, print the table, write the JSON file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks finetune", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="the digits only")
    parser.add_argument("--json", help="file to write")
    options = parser.parse_args(argv)
    sizes = (1, 4, 16, 64) if options.device == "cpu" else (1, 16, 64, 256)
    rows = []
    for case in _CASES[:2] if options.quick else _CASES:
        rows.append(run_case(*case, device=options.device, sizes=sizes))
        print(_line(rows[-1]), flush=True)
    agreement = compare(options.device)
    print(f"accuracies alone and together, largest difference: {agreement['largest_difference']:.4f}")
    if options.json:
        write_json(options.json, {"threads": torch.get_num_threads(), "cases": rows, "agreement": agreement})
    return 0


def run_case(network: str, dataset: str, batch: int, *, device: str, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Seconds per policy and step for every group size, and the policies per hour that follow."""
    data = load_data(dataset)
    torch.manual_seed(0)
    model = build(network, in_channels=data.channels, input_size=data.size).to(device)
    x, y = (part.to(device) for part in data.train.batch(torch.arange(batch)))
    names = PolicyFinetuner(model, (x, y), (x, y)).names
    recipe = Recipe(
        quantizer="dorefa", scale="max", epochs=1, batch_size=batch, lr=0.01, momentum=0.9, weight_decay=0.0, seed=0
    )
    policies = np.random.default_rng(0).integers(2, 9, size=(max(sizes), len(names))).astype(np.uint8)
    groups = {size: Group(model, names, policies[:size], recipe) for size in sizes}
    best = dict.fromkeys(sizes, float("inf"))
    for _ in range(_ROUNDS):
        for size, group in groups.items():
            best[size] = min(best[size], seconds_per_policy(group, x, y))
    steps = -(-len(data.train) // batch)
    return {
        "network": network,
        "data": dataset,
        "batch_size": batch,
        "steps_per_epoch": steps,
        "seconds_per_policy_and_step": best,
        "policies_per_hour_one_epoch": {size: 3600 / (steps * seconds) for size, seconds in best.items()},
        "fastest": min(best, key=lambda size: best[size]),
        "gain": best[1] / min(best.values()),
    }


def compare(device: str) -> dict[str, Any]:
    """Train the same digits policies alone and together."""
    data = load_data("digits")
    train, test = (part.batch(torch.arange(len(part))) for part in (data.train, data.validation))
    torch.manual_seed(0)
    model = build("digitsnet").to(device)
    policies = np.random.default_rng(0).integers(2, 9, size=(4, 4)).astype(np.uint8)
    found, seconds = {}, {}
    for together in (1, 4):
        tuner = PolicyFinetuner(model, train, test, epochs=1, batch_size=64, lr=0.05, together=together)
        start = time.perf_counter()
        found[together] = tuner.accuracy(policies)
        seconds[together] = time.perf_counter() - start
    return {
        "accuracy_alone": found[1].tolist(),
        "accuracy_together": found[4].tolist(),
        "largest_difference": float(np.abs(found[1] - found[4]).max()),
        "seconds": seconds,
    }


def _line(row: dict[str, Any]) -> str:
    rates = ", ".join(f"{size}: {rate:,.0f}" for size, rate in row["policies_per_hour_one_epoch"].items())
    return (
        f"{row['network']:<10} {row['data']:<13} batch {row['batch_size']:>3}: policies per hour, core, epoch by group "
        f"{rates}; fastest {row['fastest']} ({row['gain']:.2f} x one at a time)"
    )
