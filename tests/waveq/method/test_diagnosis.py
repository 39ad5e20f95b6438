from __future__ import annotations

import pytest

import waveq
from tests.training import mlp
from waveq.method.diagnosis import BetaRecord, diagnose
from waveq.method.parametrization import parametrization_of

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


def test_a_layer_that_the_task_lets_go_is_no_collapse_but_most_layers_are() -> None:
    low = record(end=1.0, bits=2)
    assert diagnose({"a": low, "b": HEALTHY}, 1000, task_moves_beta=True) == []
    (finding,) = diagnose({"a": low, "b": low, "c": HEALTHY}, 1000, task_moves_beta=True)
    assert finding.startswith("beta collapsed to its lower limit in: a, b.")


def test_a_run_that_stops_early_says_that_its_bits_are_free() -> None:
    wq = waveq.attach(mlp(), total_steps=100)
    assert wq.diagnose()[-1] == "the bits are not frozen: step 0 of 100, phase 1; phase 3 begins at step 35."


def test_a_budget_that_was_missed_is_told_with_what_came_out() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=100, target={"mean_bits": 4.0})
    for name in wq.names:
        parametrization_of(model.get_submodule(name)).freeze(6)
    assert wq.diagnose()[-1] == "the budget mean_bits <= 4 was not met: 6."


def test_preset_bits_are_beyond_doubt() -> None:
    assert waveq.attach(mlp(), bits=4).diagnose() == []
