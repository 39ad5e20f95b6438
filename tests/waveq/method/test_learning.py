"""What whole runs learn: where beta rests, what is diagnosed, whether budgets are met."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import waveq
from tests.training import OPTIMIZERS, batches, mlp, spread_layer, train
from waveq.method.parametrization import parametrization_of
from waveq.quantizers import quantize_weight

# ---------------------------------------------------------------------- equilibrium


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lambda_beta", "quantizer"), [(0.05, "wrpn"), (0.05, "dorefa"), (0.1, "wrpn"), (0.03, "dorefa")]
)
def test_beta_converges_to_the_forecast(lambda_beta: float, quantizer: str) -> None:
    model = spread_layer()
    wq = waveq.attach(
        model, quantizer=quantizer, total_steps=500, preset="paper", lambda_beta=lambda_beta, schedule="constant"
    )
    forecast = wq.forecast()
    expected = math.log2(0.34657 / lambda_beta)
    assert f"beta = {expected:.2f}, {math.ceil(expected) + 1} total bits" in forecast
    while wq.phase == 2:
        wq.penalty().backward()
        wq.step()
    assert wq.betas()["0"] == pytest.approx(expected, abs=0.2)
    assert wq.bits()["0"] == math.ceil(wq.betas()["0"]) + 1
    assert wq.diagnose() == []


def test_forecast_names_layers_that_cannot_hold() -> None:
    model = nn.Sequential(nn.Linear(400, 10), nn.Linear(400, 10))
    with torch.no_grad():
        model[0].weight.normal_(std=0.3)
        model[1].weight.normal_(std=0.02)
    wq = waveq.attach(model, quantizer="wrpn", total_steps=100, preset="paper")
    assert "Expect collapse to 2 bits" in wq.forecast()
    assert wq.forecast().splitlines()[0].endswith("std(u) lambda_w): 1; lower lambda_beta.")


def test_forecast_with_layer_costs_is_layer_by_layer() -> None:
    wq = waveq.attach(spread_pair(), quantizer="wrpn", total_steps=90, preset="paper", layer_costs={"0": 1.0, "1": 3.0})
    assert f"0 beta = {math.log2(0.34657 / 0.025):.2f}" in wq.forecast()
    assert f"1 beta = {math.log2(0.34657 / 0.075):.2f}" in wq.forecast()


def spread_pair() -> nn.Sequential:
    return nn.Sequential(spread_layer(4000)[0], spread_layer(4000)[0])


def test_forecast_of_preset_bits_and_budgets() -> None:
    assert waveq.attach(mlp(), bits=3).forecast().startswith("Bits are preset: 0 3, 2 3, 4 3.\n")
    assert (
        "until the policy meets mean_bits <= 4"
        in waveq.attach(mlp(), total_steps=9, target={"mean_bits": 4}).forecast()
    )
    assert "lambda_beta 0.02 lets the rounding" in waveq.attach(mlp(), total_steps=900).forecast()


# ---------------------------------------------------------------------- diagnoses


def run_weights_fixed(model: nn.Module, wq: waveq.WaveQ) -> list[str]:
    while wq.phase < 3:
        wq.penalty().backward()
        wq.step()
    return wq.diagnose()


@pytest.mark.slow
def test_collapse_is_diagnosed() -> None:
    model = mlp()
    with torch.no_grad():
        for name in ("0", "2", "4"):
            model.get_submodule(name).weight.mul_(0.01)  # type: ignore[operator]
    wq = waveq.attach(model, quantizer="wrpn", total_steps=300, preset="paper")
    findings = run_weights_fixed(model, wq)
    assert len(findings) == 2
    assert findings[0].startswith("beta collapsed to its lower limit in: 0, 2, 4. Lower lambda_beta")
    assert findings[1].startswith("rounding leaves nothing of 0 (")  # levels of no scale, weights a hundredth of them


@pytest.mark.slow
@pytest.mark.parametrize("clustered", [True, False])
def test_lock_is_diagnosed(clustered: bool) -> None:
    """Weights that sit on the 8-bit grid hold beta there; spread-out ones let it go under the same strengths."""
    model = spread_layer(2000)
    if clustered:
        with torch.no_grad():
            model[0].weight.copy_(quantize_weight(model[0].weight, 8, quantizer="wrpn", scale="none"))
    wq = waveq.attach(model, quantizer="wrpn", total_steps=1200, preset="paper", lambda_beta=0.1, beta_lr=0.015)
    findings = run_weights_fixed(model, wq)
    locked = [text for text in findings if text.startswith("beta did not move from 7 in: 0. The weights clustered")]
    assert bool(locked) is clustered


@pytest.mark.slow
def test_descent_cut_short_is_diagnosed() -> None:
    wq = waveq.attach(spread_layer(2000), quantizer="wrpn", total_steps=300, preset="paper", beta_lr=0.6)
    findings = run_weights_fixed(mlp(), wq)
    assert len(findings) == 1
    assert findings[0].startswith("beta was still moving when the bits froze in: 0.")


def test_unfrozen_bits_are_diagnosed() -> None:
    wq = waveq.attach(mlp(), total_steps=100)
    assert any("the bits are not frozen: step 0 of 100, phase 1" in finding for finding in wq.diagnose())


def test_preset_bits_have_nothing_to_diagnose() -> None:
    assert waveq.attach(mlp(), bits=4).diagnose() == []


@pytest.mark.slow
def test_a_healthy_run_rests_where_the_rounding_costs_what_bits_cost() -> None:
    """The task is the rounding error itself: beta rests at L = lambda_beta / (2 ln 2), as the forecast says."""
    model = spread_layer(4000)
    wq = waveq.attach(model, total_steps=500, quantizer="wrpn", scale="max", lambda_beta=0.02)
    layer, state = model[0], parametrization_of(model[0])
    assert "lets the rounding of an average layer cost 0.0144 of task loss" in wq.forecast()
    while wq.phase < 3:
        task = 8.0 * (layer.weight - layer.parametrizations.weight.original.detach()).square().mean()
        (task + wq.penalty()).backward()
        wq.step()
    assert task.item() == pytest.approx(0.0144, rel=0.2)
    assert 1.5 < state.beta.item() < 5
    assert wq.diagnose() == []


# ---------------------------------------------------------------------- budgets


@pytest.mark.slow
@pytest.mark.parametrize("limit", [2.4, 3.85, 6.0])
@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_mean_bits_budget_is_met_and_used(preset: str, limit: float) -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=300, quantizer="wrpn", scale="max", preset=preset, target={"mean_bits": limit})
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(300))
    mean = wq.policy().mean_bits
    assert limit - 1 < mean <= limit
    assert not any("budget" in finding for finding in wq.diagnose())


@pytest.mark.slow
def test_energy_budget_is_met_and_spares_the_expensive_layer() -> None:
    model = mlp()
    table = {
        name: {bits: 100.0 + cost * bits for bits in range(2, 9)}
        for name, cost in (("0", 1.0), ("2", 400.0), ("4", 10.0))
    }
    wq = waveq.attach(model, total_steps=300, target={"energy_pj": 0.5}, layer_costs=table)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(300))
    policy = wq.policy()
    share = sum(table[name][bits] for name, bits in policy.items()) / sum(costs[8] for costs in table.values())
    assert share <= 0.5
    assert policy["2"] < policy["0"]


def test_a_run_that_is_too_slow_meets_its_budget_by_rounding_and_says_so() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=20, target={"mean_bits": 3.0}, beta_lr=1e-3)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(20))
    assert wq.policy().mean_bits <= 3.0
    assert any("rounded down" in finding for finding in wq.diagnose())
