"""Accuracy of all policies of a space: shared prefixes against the plain loop, predictions compared.

    python -m benchmarks enumerate [--json OUT] [--networks simplenet5 svhn8 resnet20] [--images N] [--quick]

Every network is trained for some hundred steps on Fashion-MNIST and then quantised to each policy of a space, on the
first images of the test part. The plain loop has the same quantised weights ready and runs the model once per policy.
It is timed on a few policies at several batch sizes, with one thread and with all, and its fastest setting counts.
Beside the wall clock stands the ratio of processor time (plain loop on one thread), which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._report import write_json
from waveq import PolicyEvaluator
from waveq.evaluate.weights import Policies
from waveq.zoo.datasets.data import Dataset, load_data
from waveq.zoo.networks.models import build

__all__ = ["main"]

_SEED = 0
_PLAIN_BATCHES = (128, 1000, 10_000)


@dataclass(frozen=True)
class Case:
    """A network, its space, and how much of the plain loop is timed."""

    network: str
    space: str
    choices: tuple[int, ...]
    images: int
    sample: int
    train_steps: int


CASES = (
    Case("simplenet5", "all layers", (2, 3, 4, 5, 8), 10_000, 12, 300),
    Case("svhn8", "all layers", (2, 4), 500, 8, 60),
    Case("resnet20", "bits tied by stage", (2, 4, 8), 500, 8, 60),
    Case("resnet20", "last 8 layers", (2, 4), 500, 8, 60),
)


def main(argv: list[str]) -> int:
    """Run the cases, print the table, write the JSON file."""
    options = _arguments().parse_args(argv)
    data = load_data("fashion-mnist", size=32)
    rows = []
    for case in CASES:
        if case.network in options.networks:
            rows.append(run_case(case, data, images=options.images, quick=options.quick))
            print(_line(rows[-1]), flush=True)
            if options.json:  # after each case: the next may take long
                write_json(options.json, {"seed": _SEED, "threads": torch.get_num_threads(), "cases": rows})
    return int(any(row["predictions_differ"] for row in rows))


def run_case(case: Case, data: Dataset, *, images: int | None, quick: bool) -> dict[str, Any]:
    """Time both ways and compare what they predict."""
    model = trained(case.network, data, steps=case.train_steps // (10 if quick else 1))
    x, y = _head(data, images or (case.images // (10 if quick else 1)))
    names = PolicyEvaluator(model, (x, y)).names
    policies = space_of(case, names)
    sample = policies[np.random.default_rng(_SEED).choice(len(policies), size=case.sample, replace=False)]
    plain = [
        _time_plain(model, _batches(x, y, batch), sample[:2], threads=threads)
        for batch in sorted({min(batch, len(x)) for batch in _PLAIN_BATCHES})
        for threads in sorted({1, torch.get_num_threads()})
    ]
    best = min(plain, key=lambda timing: timing["wall_s"])
    plain_cpu = min(timing["cpu_s"] for timing in plain if timing["threads"] == 1)
    batches = _batches(x, y, best["batch"])
    shared = PolicyEvaluator(model, batches)
    first, _ = _timed(lambda: shared.accuracy(policies[:8]))  # records the tape
    accuracy: list[Any] = []
    wall, cpu = _timed(lambda: accuracy.extend(shared.accuracy(policies)))
    reference = PolicyEvaluator(model, batches, share_prefixes=False).predictions(sample)
    return {
        "network": case.network,
        "space": case.space,
        "layers": len(names),
        "policies": len(policies),
        "images": len(y),
        "plain": plain,
        "plain_best": best,
        "shared": {"wall_s": wall, "cpu_s": cpu, "first_call_s": first, "reason_if_not": shared.plain_reason},
        "policies_per_second": len(policies) / wall,
        "speedup": best["wall_s"] * len(policies) / wall,
        "speedup_cpu": plain_cpu * len(policies) / cpu,
        "predictions_compared": int(reference.size),
        "predictions_differ": int((shared.predictions(sample) != reference).sum()),
        "accuracy": {"best": max(accuracy), "median": float(np.median(accuracy)), "worst": min(accuracy)},
    }


def space_of(case: Case, names: tuple[str, ...]) -> Policies:
    """(N, L) policies of the case."""
    if case.space == "all layers":
        groups = [[name] for name in names]
    elif case.space == "bits tied by stage":
        groups = [list(stage) for _, stage in itertools.groupby(names, key=lambda name: name.split(".")[0])]
    else:
        groups = [list(names[:-8]), *[[name] for name in names[-8:]]]
    choices = [case.choices] * len(groups)
    if case.space == "last 8 layers":
        choices[0] = (8,)
    sizes = [len(group) for group in groups]
    rows = [np.repeat(row, sizes) for row in itertools.product(*choices)]
    return np.array(rows, dtype=np.uint8)


def trained(network: str, data: Dataset, *, steps: int) -> nn.Module:
    """A network after some steps of SGD: enough for its predictions to mean something."""
    torch.manual_seed(_SEED)
    model = build(network, in_channels=data.channels, input_size=data.size).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    for x, y in _training_batches(data, steps):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def _training_batches(data: Dataset, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(_SEED)
    for _ in range(max(1, steps)):
        yield data.train.batch(torch.randint(len(data.train), (64,), generator=generator))


def _head(data: Dataset, count: int) -> tuple[Tensor, Tensor]:
    test = data.test()
    return test.batch(torch.arange(min(count, len(test))))


def _batches(x: Tensor, y: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), y.split(size), strict=True))


def _time_plain(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], sample: Policies, *, threads: int
) -> dict[str, float]:
    """Seconds per policy, the best of the sample."""
    evaluator, before = PolicyEvaluator(model, batches, share_prefixes=False), torch.get_num_threads()
    torch.set_num_threads(threads)
    times = []
    for policy in sample:
        evaluator.correct(policy)  # rounds the weights
        times.append(_timed(lambda row=policy: evaluator.accuracy(row)))
    torch.set_num_threads(before)
    wall, cpu = (min(column) for column in zip(*times, strict=True))
    return {"batch": len(batches[0][1]), "threads": threads, "wall_s": wall, "cpu_s": cpu}


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds and processor seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _line(row: dict[str, Any]) -> str:
    plain = row["plain_best"]
    return (
        f"{row['network']:<11} {row['space']:<18} {row['policies']:>5} policies x {row['images']:>5} images: "
        f"{row['shared']['wall_s']:6.2f} s, {row['policies_per_second']:8.1f}/s; "
        f"plain {1 / plain['wall_s']:6.2f}/s (batch {plain['batch']}, {plain['threads']} threads); "
        f"{row['speedup']:5.1f} x ({row['speedup_cpu']:5.1f} x of processor time); "
        f"{row['predictions_differ']} of {row['predictions_compared']} predictions differ"
    )


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks enumerate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    known = sorted({case.network for case in CASES})
    parser.add_argument("--networks", nargs="+", choices=known, default=known)
    parser.add_argument("--images", type=int, help="test images (default: 10000 for simplenet5, 500 for the others)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the images and training steps")
    parser.add_argument("--json", help="file to write")
    return parser
