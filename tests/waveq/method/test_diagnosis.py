from __future__ import annotations

from typing import Any

import pytest
import scipy.stats
import torch
from torch import nn

import waveq
from tests.training import batches, mlp, train
from waveq.method.diagnosis import BetaRecord, diagnose
from waveq.method.parametrization import parametrization_of
from waveq.method.settling import block_of, drift_of, pace_at, stray_of, student_tail

HEALTHY = BetaRecord(start=7.0, end=3.2, bits=5)


def record(**changes: float) -> BetaRecord:
    return BetaRecord(**{"start": 7.0, "end": 3.2, "bits": 5, **changes})  # type: ignore[arg-type]


def test_a_healthy_run_is_silent() -> None:
    assert diagnose({"a": HEALTHY, "b": record(end=6.0, bits=7)}, 1000) == []
    assert diagnose({}, 1000) == []


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"end": 1.0, "bits": 2}, "collapsed to its lower limit in: bad. Lower lambda_beta, or set a target"),
        ({"end": 7.0, "bits": 8}, "did not move from 7 in: bad"),
        ({"end": 6.8, "bits": 8}, "did not move from 7 in: bad"),
        ({"now": 5, "later": 4}, "would change bad from 5 to 4 bits. Train longer"),
        ({"stray": 0.6}, "went far at the end of phase 2, which had 1000 steps, in: bad (by 0.6 bits). Another order"),
        ({"end": 5.0, "bits": 4}, "the budget was met by force: more than a bit was rounded down in: bad"),
    ],
)
def test_each_finding_names_the_layer_and_says_what_to_do(found: dict[str, float], words: str) -> None:
    findings = diagnose({"good": HEALTHY, "bad": record(**found)}, 1000)
    assert len(findings) == 1
    assert words in findings[0]
    assert "good" not in findings[0]


def test_half_a_bit_is_where_chance_decides() -> None:
    assert diagnose({"a": record(stray=0.49)}, 90) == []
    assert diagnose({"a": record(stray=0.51)}, 90) != []


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


def test_bits_that_are_enough_are_no_collapse_however_many_layers_have_few() -> None:
    low, cut = record(end=1.0, bits=2), record(end=5.0, bits=4)
    assert diagnose({"a": low, "b": low}, 1000, task_kept=True) == []
    assert diagnose({"a": low}, 1000, task_kept=True, task_moves_beta=True) == []
    (finding,) = diagnose({"a": low, "b": cut}, 1000, task_kept=True)
    assert finding.startswith("the budget was met by force")


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


# ---------------------------------------------------------------------- settling

NOISE = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
PACE = torch.tensor([pace_at(0.5 + (place + 0.5) / 16, 0.5) for place in range(8)])


def test_noise_is_no_drift_but_a_drift_in_noise_is() -> None:
    still = [drift_of((0.3 * noise * PACE).tolist(), 1000, 0.5, start=0.5) != 0 for noise in NOISE]
    moving = [drift_of(((0.3 * noise - 1.0) * PACE).tolist(), 1000, 0.5, start=0.5) < -0.1 for noise in NOISE]
    assert sum(still) < 0.02 * len(still)
    assert sum(moving) > 0.95 * len(moving)


@pytest.mark.parametrize("degrees", range(1, 9))
def test_students_distribution(degrees: int) -> None:
    for value in (0.0, 0.3, 1.0, 2.5, 7.0, 60.0):
        assert student_tail(value, degrees) == pytest.approx(scipy.stats.t.sf(value, degrees), rel=1e-9, abs=1e-12)


def test_a_tenth_of_the_layers_level_each() -> None:
    """Many layers at rest are as rarely told as one is."""
    still = [drift_of((0.3 * n * PACE).tolist(), 1000, 0.5, start=0.5, layers=10) != 0 for n in NOISE]
    assert sum(still) <= 2


def test_a_walk_to_and_fro_strays_and_a_rest_does_not() -> None:
    assert stray_of([0.0] * 8, 1000, start=0.5) == 0.0
    assert stray_of([1.0, -1.0] * 4, 1000, start=0.5) == pytest.approx(0.497, abs=1e-3)
    assert stray_of([2.0, *[9.0] * 7], 1, start=0.5) == 1.0  # one block, whatever a longer run left behind


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 15, 16, 17, 1000])
@pytest.mark.parametrize("start", [0.5, 0.6])
def test_every_step_of_the_end_has_a_block_and_every_block_a_step(steps: int, start: float) -> None:
    blocks = [block_of(step / steps, steps, start=start) for step in range(steps)]
    found = [block for block in blocks if block is not None]
    assert found == sorted(found)
    assert set(found) <= set(range(8))
    if found:
        assert set(found) == set(range(max(found) + 1))


def trained(lr: float = 0.05, **options: Any) -> waveq.WaveQ:
    model = mlp()
    wq = waveq.attach(model, **options)
    assert options["total_steps"]
    train(model, wq, torch.optim.SGD(model.parameters(), lr=lr), batches(options["total_steps"]))
    return wq


@pytest.mark.slow
def test_a_run_of_usual_length_is_silent() -> None:
    assert [text for text in trained(total_steps=600).diagnose() if "phase 2" in text or "moving" in text] == []


@pytest.mark.slow
def test_a_budget_looser_than_the_resting_point_is_told() -> None:
    wq = trained(total_steps=300, target={"mean_bits": 6.0})
    assert set(wq.bits().values()) == {6}
    assert "all 3 layers ended alike, at 6 total bits: the target mean_bits <= 6 is looser" in wq.diagnose()[-1]


# ---------------------------------------------------------------------- a penalty that takes no part


def without_penalty(how: str, steps: int = 3, **options: Any) -> waveq.WaveQ:
    model = mlp()
    wq = waveq.attach(model, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for x, y in batches(steps):
        if how == "forgotten":
            wq.penalty()
        if how == "detached":
            _ = wq.penalty().item()
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
    return wq


@pytest.mark.parametrize("options", [{"total_steps": 40}, {"bits": 3}], ids=["learned", "preset"])
@pytest.mark.parametrize(
    ("how", "words"), [("uncalled", "was never called"), ("forgotten", "no backward pass"), ("detached", "no backward")]
)
def test_a_penalty_without_effect_is_told_at_the_first_step_and_once(
    how: str, words: str, options: dict[str, Any]
) -> None:
    with pytest.warns(UserWarning, match=words) as told:
        wq = without_penalty(how, **options)
    assert len(told) == 1
    assert wq.diagnose() == [str(told[0].message)]


def test_it_is_no_price_too_low() -> None:
    with pytest.warns(UserWarning, match="never called"):
        wq = without_penalty("uncalled", steps=40, total_steps=40)
    (only,) = wq.diagnose()
    assert "lambda_beta" not in only


def test_nothing_is_missed_where_no_penalty_is_due() -> None:
    without_penalty("uncalled", bits=3, lambda_w=0.0)
