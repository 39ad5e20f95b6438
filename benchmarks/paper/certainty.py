"""Whether a membership of 0.9 happens nine times in ten: frontiers from few images beside that of all of them.

    python -m benchmarks certainty [--json OUT] [--images 434] [--splits 8] [--quick]

Every policy of a small network is evaluated on the 10,000 test images of Fashion-MNIST, which stand for all images
that there are. Frontier, membership, band and paired errors are then found from a few of them, and compared with the
frontier of the 10,000 and with that of as many other images. digitsnet, 800 steps; 1,296 policies, energy on Stripes.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks._report import write_json
from benchmarks.speed.enumerate import trained
from pareto import DesignSpace, frontier_certainty, is_efficient, paired_difference
from stripes_sim import Stripes, cost_table, trace
from waveq import PolicyEvaluator
from waveq.zoo.datasets.data import load_data

__all__ = ["main"]

_BITS = (2, 3, 4, 5, 6, 8)
_EDGES = (0.02, 0.1, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0)
_SENSE = ("max", "min")


def main(argv: list[str]) -> int:
    """Measure, split, compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks certainty", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--images", type=int, default=434, help="on which frontiers are found")
    parser.add_argument("--splits", type=int, default=8, help="orders of all images, from each of which five are found")
    parser.add_argument("--quick", action="store_true", help="the digits, one split")
    parser.add_argument("--json", help="file to write")
    options = parser.parse_args(argv)
    images, splits = (80, 1) if options.quick else (options.images, options.splits)
    correct, energy = measured(quick=options.quick)
    found = [
        row
        for split in range(splits)
        for row in _split(correct, energy, images, np.random.default_rng(split), 2 if options.quick else 5)
    ]
    members = pd.concat([row["members"] for row in found])
    members["bin"] = pd.cut(members["membership"], _EDGES, right=False, include_lowest=True).astype(str)
    last = members["membership"] >= _EDGES[-2]
    members.loc[last, "bin"] = f"[{_EDGES[-2]}, 1.0]"
    table = members[members["membership"] >= _EDGES[0]].groupby("bin").mean()
    table["policies"] = members.groupby("bin").size()
    shares = {
        name: float(np.concatenate([row[name] for row in found]).mean()) for name in ("band", "band_others", "gap")
    }
    print(f"{len(correct):,} policies, frontiers of {images} of {correct.shape[1]:,} images, {len(found)} times")
    print(table.round(2).to_string())
    print(f"the frontier of all images lies in the band of 90 % in {shares['band']:.2f} of its steps,")
    print(
        f"that of as many other images in {shares['band_others']:.2f}; the gap of a policy to the best of at most its"
    )
    print(f"energy lies within 1.96 standard errors of the one on all images in {shares['gap']:.2f}")
    if options.json:
        rows = table.round(4).reset_index().to_dict("records")
        write_json(options.json, {"images": images, "times": len(found), "membership": rows, **shares})
    return 0


def measured(*, quick: bool) -> tuple[Any, Any]:
    """Which images each policy gets right, (N, S), and what it costs, (N,)."""
    data = load_data("digits" if quick else "fashion-mnist")
    model, test = trained("digitsnet", data, steps=200 if quick else 800), data.test()
    images, labels = test.batch(torch.arange(len(test)))
    evaluator = PolicyEvaluator(model, (images, labels), quantizer="dorefa", scale="max")
    bits = _BITS[:3] if quick else _BITS
    policies = DesignSpace(dict.fromkeys(evaluator.names, bits)).policies()
    table = cost_table(trace(model, tuple(images.shape[1:])), Stripes(), bits=bits)
    return evaluator.correct(policies, each=True), np.asarray(table.score(policies)["energy_pj"])


def _split(correct: Any, energy: Any, images: int, rng: np.random.Generator, times: int) -> list[dict[str, Any]]:
    """Frontiers of some images, each beside that of as many others and that of all."""
    whole, order = _accuracy(correct), rng.permutation(correct.shape[1])
    found = []
    for pair in order[: 2 * times * images].reshape(times, 2, images):
        some, others = correct[:, pair[0]], _accuracy(correct[:, pair[1]])
        sure = frontier_certainty(some, energy)
        columns = {
            "membership": sure.membership,
            "on all images": _efficient(whole, energy),
            "on as many others": _efficient(others, energy),
        }
        inside = [
            (sure.low <= reached) & (reached <= sure.high)
            for reached in (_best_at(whole, energy, sure.costs), _best_at(others, energy, sure.costs))
        ]
        own = rng.choice(len(correct), min(60, len(correct)), replace=False)
        gap = np.array([_gap_is_right(some, whole, energy, row) for row in own])
        found.append({"members": pd.DataFrame(columns), "band": inside[0], "band_others": inside[1], "gap": gap})
    return found


def _gap_is_right(some: Any, whole: Any, energy: Any, own: int) -> bool:
    rivals = np.flatnonzero(energy <= energy[own])
    difference, error = paired_difference(some[rivals], some[own])
    best = difference.argmax()
    return bool(abs(difference[best] - (whole[rivals].max() - whole[own])) <= 1.96 * error[best])


def _accuracy(correct: Any) -> Any:
    return 100.0 * correct.mean(axis=1)


def _efficient(accuracy: Any, energy: Any) -> Any:
    return is_efficient(np.column_stack([accuracy, energy]), sense=_SENSE)


def _best_at(accuracy: Any, energy: Any, costs: Any) -> Any:
    return np.array([accuracy[energy <= cost].max() for cost in costs])
