"""Loss tables against brute force, closed forms and exact Hessians."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

import pareto
from tests.reference_evaluate import scores_of
from waveq import PolicyEvaluator
from waveq.allocate.losstables import curvature_table, hessian_traces, measured_table, weight_error_table
from waveq.quantizers import quantize_weight


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(60, 4, generator=generator), torch.randint(3, (60,), generator=generator)


def test_measured_losses_are_differences_of_cross_entropy() -> None:
    model, (x, y) = network(), data()
    table = measured_table(PolicyEvaluator(model, (x, y), quantizer="dorefa"), (8, 2, 3))
    assert table.columns.tolist() == [2, 3, 8]
    assert table[8].tolist() == [0.0, 0.0]

    def loss(policy: dict[str, int]) -> float:
        return float(F.cross_entropy(scores_of(model, policy, [(x, y)]).double(), y))

    for name in ("0", "3"):
        for bits in (2, 3):
            expected = loss({"0": 8, "3": 8, name: bits}) - loss({"0": 8, "3": 8})
            assert table.loc[name, bits] == pytest.approx(expected, abs=1e-9)


def test_weight_errors_are_mean_squares() -> None:
    model = network()
    table = weight_error_table(model, (2, 4), quantizer="wrpn", skip=("0",))
    weight = model[3].weight.detach()
    expected = (quantize_weight(weight, 4, quantizer="wrpn", scale="max") - weight).square().mean()
    assert table.index.tolist() == ["3"]
    assert table.loc["3", 4] == pytest.approx(float(expected), rel=1e-5)


def exact_trace(model: nn.Module, name: str, x: Tensor, y: Tensor) -> float:
    weight = model.get_submodule(name).weight.detach()

    def loss(flat: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model.eval(), {f"{name}.weight": flat.view_as(weight)}, (x,)), y)

    return float(torch.autograd.functional.hessian(loss, weight.flatten()).trace())


@pytest.mark.slow
def test_traces_agree_with_the_exact_hessian() -> None:
    model, (x, y) = network().double(), data()
    x = x.double()
    traces = hessian_traces(model, [(x[:25], y[:25]), (x[25:], y[25:])], probes=400)
    assert model.training
    for name in ("0", "3"):
        exact = exact_trace(model, name, x, y)
        assert abs(traces[name].value - exact) < 4 * traces[name].error
        assert traces[name].error < 0.2 * abs(exact)
    again = hessian_traces(model.train(), [(x, y)], probes=400)
    assert again["0"].value == pytest.approx(traces["0"].value, rel=1e-9)


@pytest.mark.slow
def test_one_probe_is_exact_for_a_diagonal_hessian() -> None:
    """A single weight a class and x = 1 leave each 1x1 block; with two probes the spread of a 1x1 block is 0."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Linear(1, 2)).double()
    x, y = torch.ones(8, 1, dtype=torch.float64), torch.tensor([0, 1] * 4)
    model.train()
    trace = hessian_traces(model, (x, y), probes=64, skip=("1",))["0"]
    assert trace.value == pytest.approx(exact_trace(model, "0", x, y), rel=1e-9)
    assert trace.error == pytest.approx(0.0, abs=1e-12)


@pytest.mark.slow
def test_tables_serve_the_additive_frontier() -> None:
    model, held = network(), data()
    traces = {name: trace.value for name, trace in hessian_traces(model, held).items()}
    columns = (2, 3, 4, 8)
    costs = weight_error_table(model, columns) * 0.0 + np.array(columns)
    for table in (
        measured_table(PolicyEvaluator(model, held), columns),
        weight_error_table(model, columns),
        curvature_table(model, traces, columns),
    ):
        front = pareto.additive_frontier(costs, table)
        assert len(front) >= 2


@pytest.mark.parametrize(("bits", "message"), [((), "at least one"), ((2, 2), "different"), ((2, 10), "from 1 to 9")])
def test_bad_bits_are_named(bits: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weight_error_table(network(), bits)


def test_bad_probes_are_named() -> None:
    with pytest.raises(ValueError, match="probes must be at least 2"):
        hessian_traces(network(), data(), probes=1)
