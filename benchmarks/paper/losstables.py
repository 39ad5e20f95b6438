"""How well losses that add up over layers predict what enumeration measures, for four kinds of loss table.

    python -m benchmarks losstables [--json OUT] [--quick]

SimpleNet-5 on Fashion-MNIST and the digits network: every policy of the space is really evaluated (no fine-tuning),
then predicted as reference minus the sum of one-layer losses. Tables: measured accuracy and measured cross-entropy
with one layer changed at a time, HAWQ-v2's curvature times rounding error (Hutchinson, training samples), rounding
error alone, and, as the best that any additive table could do, the least-squares fit to all measurements.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks._report import write_json
from benchmarks.speed.enumerate import trained
from pareto import DesignSpace, fit_additive, measured_losses, predict, prediction_quality
from waveq import PolicyEvaluator
from waveq.allocate.losstables import curvature_table, hessian_traces, measured_table, weight_error_table
from waveq.zoo.datasets.data import load_data

__all__ = ["main"]

_BITS = (2, 3, 4, 5, 8)
_METHOD: dict[str, Any] = {"quantizer": "dorefa", "scale": "max"}
_CASES = (("digitsnet", "digits", None, 600), ("simplenet5", "fashion-mnist", 2000, 600))
_CURVATURE_SAMPLES = 512


def main(argv: list[str]) -> int:
    """Enumerate, predict, compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks losstables", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="the digits only")
    parser.add_argument("--json", help="file to write")
    options = parser.parse_args(argv)
    results = [run_case(*case) for case in (_CASES[:1] if options.quick else _CASES)]
    for result in results:
        print(f"{result['network']} on {result['data']}: {result['policies']} policies, {result['images']} images")
        print(pd.DataFrame(result["tables"]).T.round(3).to_string())
    if options.json:
        write_json(options.json, {"bits": _BITS, "cases": results})
    return 0


def run_case(network: str, dataset: str, images: int | None, steps: int) -> dict[str, Any]:
    """One network: measured accuracy of the whole space against what each table predicts."""
    data = load_data(dataset, size=32) if network == "simplenet5" else load_data(dataset)
    model, test = trained(network, data, steps=steps), data.test()
    evaluator = PolicyEvaluator(model, test.batch(torch.arange(min(images or len(test), len(test)))), **_METHOD)
    space = DesignSpace(dict.fromkeys(evaluator.names, _BITS))
    frame = space.frame(accuracy=evaluator.accuracy(space.policies()))
    reference = dict.fromkeys(space.names, max(_BITS))
    sample = data.train.batch(torch.arange(min(_CURVATURE_SAMPLES, len(data.train))))
    traces = {name: trace.value for name, trace in hessian_traces(model, sample, probes=16).items()}
    base, fitted = fit_additive(frame, list(space.names), "accuracy")
    measured = frame["accuracy"].to_numpy()
    start = float(evaluator.accuracy(reference)[0])
    tables = {
        "one layer at a time, accuracy": (measured_losses(reference, evaluator.accuracy, space), start),
        "one layer at a time, cross-entropy": (measured_table(evaluator, _BITS), None),
        "HAWQ-v2 curvature": (curvature_table(model, traces, _BITS, **_METHOD), None),
        "rounding error": (weight_error_table(model, _BITS, **_METHOD), None),
        "least-squares fit": (fitted, base),
    }
    return {
        "network": network,
        "data": dataset,
        "policies": len(frame),
        "images": len(evaluator.labels),
        "traces": traces,
        "tables": {
            name: _quality(measured, predict(frame, at or 0.0, table), at) for name, (table, at) in tables.items()
        },
    }


def _quality(measured: Any, predicted: Any, base: float | None) -> dict[str, float]:
    """Rank correlation for all; errors only where the table is in units of accuracy."""
    quality = prediction_quality(measured, predicted)
    found = {"spearman": quality["spearman"], "spearman_better_half": _upper_half(measured, predicted)}
    return found | ({"rmse": quality["rmse"], "r2": quality["r2"]} if base is not None else {})


def _upper_half(measured: Any, predicted: Any) -> float:
    """Rank correlation among the better half of the policies, where choices are made."""
    best = measured >= np.median(measured)
    return prediction_quality(measured[best], predicted[best])["spearman"]
