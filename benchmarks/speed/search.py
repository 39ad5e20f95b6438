"""How much of the true frontier a few hundred evaluations find: pareto.search beside random, NSGA-II and Optuna.

    python -m benchmarks search [--json OUT] [--evaluations 300] [--seeds 0 1 2] [--cases mlp8] [--quick]

Every policy of each network is really evaluated first, so that the true frontier of accuracy and energy is known; a
method then sees only what it asks for. Counted is the hypervolume after so many evaluations as a share of the true
frontier's (reference: the worst accuracy and the highest energy of the space). "never behind" is the smallest lead over
random at any count. All methods measure the policies with equal bits first; pymoo's and Optuna's rows are left out, by
name, where the packages are missing. (Optuna's TPE sampler took minutes for one search, and is left out.)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from benchmarks._report import write_json
from benchmarks.speed.enumerate import trained
from pareto import DesignSpace, hypervolume, search
from stripes_sim import Stripes, cost_table, trace
from waveq import PolicyEvaluator
from waveq.zoo.datasets.data import Dataset, load_data

__all__ = ["main"]

CASES = ("digitsnet", "simplenet5", "mlp8")
_COUNTS = (30, 50, 100, 150, 200, 300)
_IMAGES = 400


@dataclass(frozen=True)
class Known:
    """A space of which every accuracy is known."""

    space: DesignSpace
    policies: Any
    """(N, L) uint8, in the order of the space."""
    accuracy: Any
    energy_pj: Any
    table: Any

    def at(self, rows: Any) -> Any:
        """Places of (n, L) policies."""
        places = np.zeros(len(rows), dtype=np.int64)
        for column, widths in enumerate(self.space.choices.values()):
            places = places * len(widths) + np.searchsorted(widths, rows[:, column])
        return places

    def volume(self, places: Any = slice(None)) -> float:
        """Hypervolume of some policies, by default of all."""
        points = np.column_stack([self.accuracy[places], self.energy_pj[places]])
        worst = float(self.accuracy.min()), float(self.energy_pj.max()) * 1.001
        return hypervolume(points, reference=worst, sense=("max", "min"))

    def uniform(self) -> list[int]:
        """Places of the policies with equal bits."""
        widths = next(iter(self.space.choices.values()))
        return list(self.at(np.array([[width] * self.policies.shape[1] for width in widths])))


def main(argv: list[str]) -> int:
    """Enumerate, search, compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks search", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--evaluations", type=int, default=300)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="the smallest case, one seed")
    parser.add_argument("--json", help="file to write")
    options = parser.parse_args(argv)
    cases, seeds = (["digitsnet"], [0]) if options.quick else (options.cases, options.seeds)
    results = []
    for case in cases:
        known = enumerated(case)
        rows = {name: _shares(method, known, options.evaluations, seeds) for name, method in _methods().items()}
        table = pd.DataFrame({name: row["share"] for name, row in rows.items()}).T
        table["seconds"] = [row["seconds"] for row in rows.values()]
        lead = min(float(np.min(np.subtract(rows["pareto.search"]["all"], rows["random"]["all"]))), 1.0)
        print(f"\n{case}: {len(known.policies):,} policies, share of the true hypervolume after so many evaluations")
        print(table.round(4).to_string())
        print(f"smallest lead over random at any count: {lead:+.4f}")
        results.append(
            {"case": case, "policies": len(known.policies), "table": table.round(4).to_dict("index"), "lead": lead}
        )
    if options.json:
        write_json(options.json, {"seeds": seeds, "cases": results}, "pymoo", "optuna")
    return 0


def enumerated(case: str) -> Known:
    """Every policy of a network, evaluated on test images of the digits."""
    data = load_data("digits", size=32) if case == "simplenet5" else load_data("digits")
    if case == "mlp8":
        model, bits = _mlp(data), (2, 3, 4, 5, 8)
    else:
        model, bits = trained(case, data, steps=600 if case == "digitsnet" else 150), (2, 3, 4, 5, 6, 8)
    test = data.test()
    images, labels = test.batch(torch.arange(min(_IMAGES, len(test))))
    evaluator = PolicyEvaluator(model, (images, labels), quantizer="dorefa", scale="max")
    space = DesignSpace(dict.fromkeys(evaluator.names, bits))
    table = cost_table(trace(model, tuple(images.shape[1:])), Stripes(), bits=bits)
    policies = space.policies()
    return Known(
        space=space,
        policies=policies,
        accuracy=100.0 * evaluator.accuracy(policies),
        energy_pj=np.asarray(table.score(policies)["energy_pj"]),
        table=pd.DataFrame(table.energy_pj, index=list(table.names), columns=list(bits)),
    )


def _mlp(data: Dataset) -> nn.Module:
    """Eight layers of 64, so that a space of 390,625 policies is evaluated in seconds."""
    torch.manual_seed(0)
    hidden = [module for _ in range(7) for module in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(64, 10))
    optimizer, generator = torch.optim.Adam(model.parameters(), 1e-3), torch.Generator().manual_seed(0)
    for _ in range(1500):
        images, labels = data.train.batch(torch.randint(len(data.train), (128,), generator=generator))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval()


Method = Callable[[Known, int, int], list[int]]


def _shares(method: Method, known: Known, evaluations: int, seeds: list[int]) -> dict[str, Any]:
    """Means over the seeds: the share at some counts and at all of them, and the seconds of a search."""
    whole, start = known.volume(), time.perf_counter()
    asked = [method(known, evaluations, seed) for seed in seeds]
    seconds = (time.perf_counter() - start) / len(seeds)
    every = list(range(10, evaluations + 1, 10))
    shares = np.array([[known.volume(places[:count]) / whole for count in every] for places in asked]).mean(axis=0)
    at = {count: float(shares[every.index(count)]) for count in _COUNTS if count in every}
    return {"share": at, "all": shares.tolist(), "seconds": round(seconds, 2)}


def _methods() -> dict[str, Method]:
    methods: dict[str, Method] = {"pareto.search": _ours, "random": _random}
    for name, package, method in (
        ("pymoo, NSGA-II", "pymoo", _nsga2),
        ("Optuna, NSGA-II", "optuna", _optuna),
    ):
        try:
            __import__(package)
        except ImportError:
            print(f"{name}: left out, {package} is not installed")
        else:
            methods[name] = method
    return methods


def _ours(known: Known, evaluations: int, seed: int) -> list[int]:
    asked: list[int] = []

    def evaluate(rows: Any) -> Any:
        asked.extend(known.at(rows))
        return known.accuracy[known.at(rows)]

    search(known.space, evaluate, cost=known.table, evaluations=evaluations, seed=seed, progress=False)
    return asked


def _random(known: Known, evaluations: int, seed: int) -> list[int]:
    drawn = np.random.default_rng(seed).permutation(len(known.policies))
    return [*known.uniform(), *drawn.tolist()][:evaluations]


def _nsga2(known: Known, evaluations: int, seed: int) -> list[int]:
    """Integers by pymoo's own operators, 20 a generation; a policy that is asked for again is not counted again."""
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.optimize import minimize

    widths = list(known.space.choices.values())
    asked = dict.fromkeys(known.uniform())

    class Policies(Problem):  # type: ignore[misc]  # pymoo is untyped
        def __init__(self) -> None:
            super().__init__(n_var=len(widths), n_obj=2, xl=0, xu=[len(each) - 1 for each in widths], vtype=int)

        def _evaluate(self, x: Any, out: Any, *_args: Any, **_more: Any) -> None:
            rows = np.column_stack([np.array(each)[x[:, column].astype(int)] for column, each in enumerate(widths)])
            places = known.at(rows)
            asked.update(dict.fromkeys(places.tolist()))
            out["F"] = np.column_stack([-known.accuracy[places], known.energy_pj[places]])

    operators = {"repair": RoundingRepair(), "vtype": float}
    algorithm = NSGA2(
        pop_size=20,
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=3.0, **operators),
        mutation=PM(eta=3.0, **operators),
        eliminate_duplicates=True,
    )
    minimize(Policies(), algorithm, ("n_eval", 3 * evaluations), seed=seed, verbose=False)
    return list(asked)[:evaluations]


def _optuna(known: Known, evaluations: int, seed: int) -> list[int]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    asked = dict.fromkeys(known.uniform())

    def objective(trial: Any) -> tuple[float, float]:
        row = [trial.suggest_int(name, 0, len(each) - 1) for name, each in known.space.choices.items()]
        bits = [each[place] for place, each in zip(row, known.space.choices.values(), strict=True)]
        place = int(known.at(np.array([bits]))[0])
        asked[place] = None
        return float(known.accuracy[place]), float(known.energy_pj[place])

    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.NSGAIISampler(seed=seed))
    for step in range(len(asked)):
        study.enqueue_trial(dict.fromkeys(known.space.names, step))
    study.optimize(objective, n_trials=evaluations)
    for _ in range(10):
        if len(asked) >= evaluations:
            break
        study.optimize(objective, n_trials=evaluations - len(asked))
    return list(asked)[:evaluations]
