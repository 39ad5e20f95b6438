"""The frontier of all policies of deep networks under the additive model, checked against integer programs.

    python -m benchmarks additive [--json OUT] [--budgets N] [--tables FOLDER]

Costs are energies on Stripes from `stripes_sim.cost_table`, losses are squared rounding errors of the networks' weights
(as torchvision initialises them: no trained weights are downloaded), 7 widths a layer. At N budgets the exact frontier
is compared with HiGHS (scipy.optimize.milp, gap 0), both timed. With --tables, the additive model is fitted to measured
design spaces (CSV, one column a layer, last column "accuracy") and judged on policies that it has not seen: five folds,
against the rank correlation of mean bits alone.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

import pareto
from benchmarks._report import write_json

__all__ = ["main"]

_SEED = 0
_BITS = range(2, 9)
_NETWORKS = ("resnet18", "mobilenet_v2")
_FOLDS = 5
# Relative to the range of losses of a network: what the bounded-error mode may lose.
_EPSILONS = (1e-3, 1e-2)


def main(argv: list[str]) -> int:
    """Run networks and tables, print, write the JSON file; 1 where HiGHS and the frontier disagree."""
    options = _arguments().parse_args(argv)
    networks = [_network(name, options.budgets) for name in options.networks]
    tables = [] if options.tables is None else [_table(path) for path in sorted(options.tables.glob("*.csv"))]
    if options.json:
        write_json(options.json, {"seed": _SEED, "networks": networks, "tables": tables}, "scipy")
    return int(any(check["differs"] for network in networks for check in network["checks"]))


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks additive", description=__doc__.splitlines()[0])
    parser.add_argument("--json", help="write the results to this file")
    parser.add_argument("--budgets", type=int, default=12, help="budgets at which an integer program is solved")
    parser.add_argument("--networks", nargs="+", default=list(_NETWORKS), choices=_NETWORKS)
    parser.add_argument("--tables", type=Path, help="folder of measured design spaces as CSV")
    return parser


def _network(name: str, budgets: int) -> dict[str, Any]:
    cost, loss = _tables(name)
    pareto.additive_frontier(cost.iloc[:3], loss.iloc[:3])  # compiles
    start = time.perf_counter()
    front = pareto.additive_frontier(cost, loss)
    seconds = time.perf_counter() - start
    policies = len(_BITS) ** len(cost)
    print(f"\n{name}: {len(cost)} layers, {policies:.2g} policies, {len(front):,} efficient, {seconds:.2f} s")
    spread = float(front["loss"].iloc[0] - front["loss"].iloc[-1])
    bounded = [_bounded(cost, loss, front, epsilon * spread) for epsilon in _EPSILONS]
    checks = [_check(cost, loss, front, budget) for budget in _budgets(front, budgets)]
    programs = sum(check["highs_seconds"] for check in checks)
    worst = max(check["relative_difference"] for check in checks)
    print(f"HiGHS at {budgets} budgets: {programs:.1f} s in all, largest relative difference {worst:.1e}")
    return {
        "network": name,
        "layers": len(cost),
        "efficient": len(front),
        "seconds": seconds,
        "bounded": bounded,
        "checks": checks,
    }


def _tables(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Energy and rounding error of each layer at each width, as frames of layers by widths."""
    import torch
    from torchvision import models

    import stripes_sim

    torch.manual_seed(_SEED)
    model = models.get_model(name, weights=None)
    layers = stripes_sim.trace(model, input_shape=(3, 224, 224))
    table = stripes_sim.cost_table(layers, stripes_sim.Stripes(), bits=_BITS)
    cost = pd.DataFrame(table.energy_pj, index=list(table.names), columns=list(table.bits))
    weights = {layer: model.get_submodule(layer).weight.detach().numpy() for layer in table.names}
    space = pareto.DesignSpace({layer: tuple(_BITS) for layer in table.names})
    return cost, pareto.weight_errors(weights, space, relative=True)


def _bounded(cost: pd.DataFrame, loss: pd.DataFrame, exact: pd.DataFrame, epsilon: float) -> dict[str, float]:
    start = time.perf_counter()
    rough = pareto.additive_frontier(cost, loss, epsilon)
    seconds = time.perf_counter() - start
    places = np.searchsorted(rough["cost"], exact["cost"], side="right") - 1
    excess = float((rough["loss"].to_numpy()[places] - exact["loss"].to_numpy()).max())
    print(f"epsilon {epsilon:.3g}: {len(rough):,} points, {seconds:.2f} s, worst excess {excess:.3g}")
    return {"epsilon": epsilon, "points": len(rough), "seconds": seconds, "worst_excess": excess}


def _budgets(front: pd.DataFrame, count: int) -> npt.NDArray[np.float64]:
    low, high = float(front["cost"].iloc[0]), float(front["cost"].iloc[-1])
    return low + np.linspace(0.02, 0.98, count) * (high - low)


def _check(cost: pd.DataFrame, loss: pd.DataFrame, front: pd.DataFrame, budget: float) -> dict[str, Any]:
    from scipy.optimize import Bounds, LinearConstraint, milp

    layers, widths = cost.shape
    one_each = np.kron(np.eye(layers), np.ones(widths))
    start = time.perf_counter()
    solution = milp(
        loss.to_numpy().ravel(),
        integrality=np.ones(layers * widths),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(cost.to_numpy().ravel()[None] / budget, -np.inf, 1),
        ],
        options={"mip_rel_gap": 0.0},
    )
    seconds = time.perf_counter() - start
    ours = float(pareto.within_budget(front, budget)["loss"])
    difference = abs(ours - solution.fun) / abs(solution.fun)
    # HiGHS accepts integers and constraints within 1e-6.
    return {
        "budget": budget,
        "loss": ours,
        "highs_loss": float(solution.fun),
        "highs_seconds": seconds,
        "relative_difference": difference,
        "differs": bool(difference > 1e-5),
    }


def _table(path: Path) -> dict[str, Any]:
    """How well an additive model predicts measured accuracies that it was not fitted to."""
    frame = pd.read_csv(path).sample(frac=1, random_state=_SEED, ignore_index=True)
    layers = [column for column in frame.columns if column != "accuracy"]
    fold = np.arange(len(frame)) % _FOLDS
    predicted = np.empty(len(frame))
    for number in range(_FOLDS):
        base, losses = pareto.fit_additive(frame[fold != number], layers, "accuracy")
        predicted[fold == number] = pareto.predict(frame[fold == number], base, losses)
    quality = pareto.prediction_quality(frame["accuracy"], predicted)
    bits = pareto.prediction_quality(frame["accuracy"], frame[layers].mean(axis=1))["spearman"]
    usable = frame["accuracy"] >= frame["accuracy"].max() - 5.0
    near = pareto.prediction_quality(frame.loc[usable, "accuracy"], predicted[usable])
    print(
        f"{path.stem}: {len(frame)} policies, rmse {quality['rmse']:.2f} points, R2 {quality['r2']:.2f}, rank "
        f"correlation {quality['spearman']:.2f} (mean bits alone {bits:.2f}; within 5 points of the best: "
        f"{near['spearman']:.2f} of {int(near['count'])})"
    )
    return {"table": path.stem, **quality, "spearman_mean_bits": bits, "within_5_points": near}
