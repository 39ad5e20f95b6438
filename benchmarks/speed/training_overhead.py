"""What Lightning costs on small networks: milliseconds a step beside the same training as a plain loop.

Both train the same batches from the same weights; their final weights are compared bit for bit before a time is
printed. CPU time of the process, one thread, rounds taken in turn, medians.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import waveq
from benchmarks._report import write_json
from benchmarks.speed._loop import steps_of
from waveq.train.config import TrainConfig, load_recipe
from waveq.train.materials import make_dataset, make_network
from waveq.train.run_folder import StageFolder
from waveq.train.stage import Stage, make_loader
from waveq.zoo.datasets.data import Dataset

State = dict[str, Tensor]


def plain_loop(config: TrainConfig, dataset: Dataset, *, wave: bool) -> tuple[float, int, State]:
    """CPU seconds, steps and final state of a loop without Lightning, logs and checkpoints."""
    network = make_network(config, dataset)
    total = config.epochs * len(make_loader(config, dataset, "wave"))
    wq = waveq.attach(network, total_steps=total) if wave else None
    begun = time.process_time()
    step = sum(1 for _ in steps_of(network, config, dataset, wq))
    return time.process_time() - begun, step, network.state_dict()


def through_lightning(config: TrainConfig, dataset: Dataset, *, wave: bool) -> tuple[float, int, State]:
    """The same through a stage of `waveq train`, with its rows of metrics and validation."""
    network = make_network(config, dataset)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(
            name="wave",
            folder=StageFolder(Path(folder)),
            config=config,
            dataset=dataset,
            loader=make_loader(config, dataset, "wave"),
            total_steps=config.epochs * len(make_loader(config, dataset, "wave")),
            rate=config.lr,
            stop=lambda: False,
        )
        wq = waveq.attach(network, total_steps=stage.total_steps) if wave else None
        begun = time.process_time()
        stage.run(network, wq)
        return time.process_time() - begun, stage.total_steps, network.state_dict()


def compare(config: TrainConfig, *, wave: bool, rounds: int) -> dict[str, float]:
    """Medians over rounds, in milliseconds a step."""
    dataset = make_dataset(config)
    kinds: tuple[Callable[..., tuple[float, int, State]], ...] = (plain_loop, through_lightning)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        states = []
        for kind, seconds in zip(kinds, times, strict=True):
            spent, steps, state = kind(config, dataset, wave=wave)
            seconds.append(1e3 * spent / steps)
            states.append(state)
        if not all(torch.equal(states[0][key], states[1][key]) for key in states[0]):
            raise AssertionError("the two loops trained different networks")
    plain, lightning = map(statistics.median, times)
    return {"plain_ms": plain, "lightning_ms": lightning, "overhead_ms": lightning - plain, "ratio": lightning / plain}


def main(argv: list[str]) -> int:
    """Print one line for each network, without and with WaveQ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks training_overhead", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--recipes", nargs="+", default=["digits"], help="recipes whose data are there")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = {}
    print(f"{'training':<24}{'plain ms':>10}{'lightning ms':>14}{'overhead ms':>13}{'ratio':>8}")
    for recipe in options.recipes:
        for wave in (False, True):
            config = load_recipe(recipe, epochs=options.epochs, progress=False, threads=1)
            row = compare(config, wave=wave, rounds=options.rounds)
            name = f"{recipe}, {'WaveQ' if wave else 'float'}"
            rows[name] = row
            print(
                f"{name:<24}{row['plain_ms']:>10.2f}{row['lightning_ms']:>14.2f}"
                f"{row['overhead_ms']:>13.2f}{row['ratio']:>8.2f}"
            )
    if options.json:
        write_json(options.json, {"milliseconds_a_step": rows, "rounds": options.rounds}, "lightning")
    return 0
