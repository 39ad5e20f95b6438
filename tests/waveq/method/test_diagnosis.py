from __future__ import annotations

import pytest

from waveq.method.diagnosis import BetaRecord, diagnose, forecast_sine, forecast_task

HEALTHY = BetaRecord(start=7.0, end=3.2, trend=1e-5, bits=5)


def record(**changes: float) -> BetaRecord:
    return BetaRecord(**{"start": 7.0, "end": 3.2, "trend": 0.0, "bits": 5, **changes})  # type: ignore[arg-type]


def test_a_healthy_run_is_silent() -> None:
    assert diagnose({"a": HEALTHY, "b": record(end=6.0, bits=7)}, 1000) == []
    assert diagnose({}, 1000) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"end": 1.0, "bits": 2}, "collapsed to its lower limit in: bad. Lower lambda_beta, or set a target"),
        ({"end": 7.0, "bits": 8}, "did not move from 7 in: bad"),
        ({"end": 6.8, "bits": 8}, "did not move from 7 in: bad"),
        ({"trend": -3e-3}, "still moving when the bits froze in: bad"),
        ({"end": 5.0, "bits": 4}, "the budget was met by force: more than a bit was rounded down in: bad"),
    ],
)
def test_each_finding_names_the_layer_and_says_what_to_do(found: dict[str, float], words: str) -> None:
    findings = diagnose({"good": HEALTHY, "bad": record(**found)}, 1000)
    assert len(findings) == 1
    assert words in findings[0]
    assert "good" not in findings[0]


def test_travel_is_judged_by_the_length_of_phase_2() -> None:
    # a quarter of phase 2 at this speed: 0.4 bits of 200 steps, 0.6 of 300
    assert diagnose({"a": record(trend=8e-3)}, 200) == []
    assert diagnose({"a": record(trend=8e-3)}, 300) != []


def test_a_used_budget_explains_layers_at_the_ends() -> None:
    ends = {"a": record(end=1.0, bits=2), "b": record(end=7.0, bits=8)}
    assert len(diagnose(ends, 1000)) == 2
    assert diagnose(ends, 1000, budget_is_used=True) == []


def test_rounding_down_the_last_bit_is_no_force() -> None:
    assert diagnose({"a": record(end=3.9, bits=4)}, 1000) == []


def test_many_layers_are_counted() -> None:
    (finding,) = diagnose({f"layer{i}": record(end=1.0, bits=2) for i in range(20)}, 1000)
    assert "layer7 and 12 more" in finding


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


def test_a_layer_that_the_task_lets_go_is_no_collapse_but_most_layers_are() -> None:
    low = record(end=1.0, bits=2)
    assert diagnose({"a": low, "b": HEALTHY}, 1000, task_moves_beta=True) == []
    (finding,) = diagnose({"a": low, "b": low, "c": HEALTHY}, 1000, task_moves_beta=True)
    assert finding.startswith("beta collapsed to its lower limit in: a, b.")
