from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waveq.method.price import next_dual, pressure, price_factor


def test_pressure_is_zero_on_the_ramp() -> None:
    for progress, cost in ((0.0, 8.0), (0.3, 6.0), (0.6, 4.0), (1.0, 4.0)):
        assert pressure(cost, start=8.0, limit=4.0, progress=progress) == pytest.approx(0, abs=1e-9)
    assert pressure(4.2, start=8.0, limit=4.0, progress=1.0) == 1.0
    assert pressure(3.8, start=8.0, limit=4.0, progress=1.0) == -1.0
    assert pressure(8.0, start=8.0, limit=9.0, progress=0.0) < 0  # a budget that is met from the start


@given(dual=st.floats(-6.9, 6.9), push=st.floats(-1, 1), steps=st.integers(1, 10**6))
def test_price_is_never_negative_and_stays_in_its_range(dual: float, push: float, steps: int) -> None:
    assert 0 <= price_factor(dual, push) <= 2000.001
    moved = next_dual(dual, push, steps)
    assert abs(moved) <= math.log(1e3)
    assert (moved - dual) * push >= -1e-12


@pytest.mark.parametrize("phase2_steps", [60, 200, 1000])
@pytest.mark.parametrize("pull", [0.0, 0.01, 1.0, 30.0])
def test_a_bit_that_the_task_holds_with_any_force_comes_to_its_budget(pull: float, phase2_steps: int) -> None:
    """One beta under price - pull (bits above 3 only), with attach's own rate and step limit."""
    beta, dual, nominal = 7.0, 0.0, 0.02
    rate = 12 / (nominal * phase2_steps)
    for step in range(phase2_steps):
        push = pressure(beta + 1, start=8.0, limit=4.0, progress=step / phase2_steps)
        slope = nominal * price_factor(dual, push) - nominal * pull * (beta < 5)
        beta = min(7.0, max(1.0, beta - max(-0.05, min(0.05, rate * slope))))
        dual = next_dual(dual, push, phase2_steps)
    reachable = 7.0 - 0.05 * phase2_steps
    assert beta + 1 == pytest.approx(max(4.0, reachable + 1), abs=0.35)
