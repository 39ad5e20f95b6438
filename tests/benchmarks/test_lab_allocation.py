from __future__ import annotations

import copy

import pytest

from benchmarks.lab.allocation import METHODS, allocate, costs_of
from benchmarks.lab.data import images_of
from benchmarks.lab.job import Job, Where
from benchmarks.lab.training import float_network
from stripes_sim import trace
from waveq.layers import quantizable


@pytest.fixture(scope="module")
def problem(tiny, lab_folder):
    network = float_network(tiny, 0, Where(folder=lab_folder / "cpu"))
    return network, trace(network, (1, 8, 8)), images_of(tiny, "cpu").train


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "limit"), [("mean_bits", 3.5), ("energy_pj", 0.5), ("cycles", 0.5)])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_its_budget(problem, tiny, method, objective, limit):
    network, layers, train = problem
    job = Job(
        setting=tiny, seed=0, allocation={"method": method, "objective": objective, "limit": limit, "share_of": 8}
    )
    found = allocate(copy.deepcopy(network), layers, train, job, steps=20, lr=0.02)
    costs = costs_of(tuple(quantizable(network)), layers, objective)
    spent = sum(costs[name][bits] for name, bits in found.bits.items())
    most = limit if objective == "mean_bits" else limit * sum(row[8] for row in costs.values())
    assert set(found.bits) == set(quantizable(network))
    assert spent <= most * (1 + 1e-6)
    assert found.steps_left == (13 if method == "steps" else 20)  # 7 are 35 %


@pytest.mark.slow
def test_an_unknown_method_is_refused(problem, tiny):
    network, layers, train = problem
    job = Job(setting=tiny, seed=0, allocation={"method": "guess", "objective": "mean_bits", "limit": 3.0})
    with pytest.raises(ValueError, match="guess"):
        allocate(network, layers, train, job, steps=8, lr=0.02)
