from __future__ import annotations

import pytest

import waveq
from tests.training import mlp
from waveq.method.forecast import forecast_sine, forecast_task


@pytest.mark.parametrize(
    ("lambda_beta", "words"),
    [
        (0.05, "beta = 2.79, 4 total bits, in every layer"),
        (0.001, "beta = 7.00, 8 total bits"),
        (10.0, "beta = 1.00, 2 total"),
    ],
)
def test_forecast_is_clamped_like_beta(lambda_beta: float, words: str) -> None:
    assert words in forecast_sine(1.0, lambda_beta, 1, (1.0, 7.0), {"a": 100.0}, {"a": 1.0})


def test_forecast_warns_of_narrow_layers() -> None:
    text = forecast_sine(1.0, 0.05, 1, (1.0, 7.0), {"wide": 0.3, "narrow": 0.05}, {"wide": 1.0, "narrow": 1.0})
    assert "Expect collapse to 2 bits" in text
    assert "lambda_w): narrow; lower lambda_beta." in text


def test_forecast_by_layer_where_bits_cost_differently() -> None:
    text = forecast_sine(1.0, 0.05, 1, (1.0, 7.0), {"a": 0.3, "b": 0.3}, {"a": 0.5, "b": 1.5})
    assert "a beta = 3.79, 5 total bits; b beta = 2.21, 4 total bits" in text


def test_forecast_of_the_task_is_its_closed_form() -> None:
    # L(beta) = L0 4^-beta against price p: -dL/dbeta = 2 ln2 L = p
    assert "cost 0.0361 of task loss" in forecast_task(0.05, None)
    assert (
        forecast_task(0.05, "mean_bits <= 4")
        == "The price of a bit will be driven until the policy meets mean_bits <= 4."
    )


def test_what_a_handle_foretells_follows_from_what_moves_its_betas() -> None:
    covers = "\n94.0 % of all weights are quantised, in 3 of 6 tensors."
    assert waveq.attach(mlp(), bits=4).forecast() == "Bits are preset: 0 4, 2 4, 4 4." + covers
    assert waveq.attach(mlp(), total_steps=60, lambda_beta=0.05).forecast() == forecast_task(0.05, None) + covers
    told = waveq.attach(mlp(), total_steps=60, target={"mean_bits": 4.0}).forecast()
    assert told == forecast_task(0.02, "mean_bits <= 4") + covers
    assert "(sine alone, spread weights)" in waveq.attach(mlp(), total_steps=60, preset="paper").forecast()
