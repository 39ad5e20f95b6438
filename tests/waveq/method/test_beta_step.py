from __future__ import annotations

import math

import pytest

import waveq
from tests.training import mlp


@pytest.mark.slow
def test_beta_stays_within_its_clamps_and_moves_a_step_at_a_time() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=400, schedule="constant", lambda_beta=50.0)
    lowest = 7.0
    for _ in range(299):
        wq.penalty().backward()
        before = wq.betas()
        wq.step()
        assert all(abs(wq.betas()[name] - before[name]) <= 0.05 + 1e-6 for name in before)
        lowest = min(lowest, *wq.betas().values())
    assert lowest == 1.0


def test_an_overflow_moves_no_beta() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=10, schedule="constant")
    before = wq.betas()
    (wq.penalty() * math.inf).backward()
    wq.step()
    assert wq.betas() == before
    assert wq.steps == 1
    wq.penalty().backward()
    wq.step()
    assert all(wq.betas()[name] < before[name] for name in before)


def test_a_short_run_has_time_for_the_whole_range() -> None:
    wq = waveq.attach(mlp(), total_steps=40, schedule="constant", lambda_beta=50.0)
    for _ in range(29):  # phase 2 is 30 steps: 0.05 bits each would end at 5.5
        wq.penalty().backward()
        wq.step()
    assert set(wq.betas().values()) == {1.0}
