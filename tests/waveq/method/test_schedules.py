from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reference_wave import figure_strengths
from waveq.method.arguments import resolve_schedule
from waveq.method.options import Method
from waveq.method.presets import get_preset
from waveq.method.schedules import (
    Schedule,
    check_total_steps,
    constant,
    exponential,
    from_callable,
    rising,
    three_phase,
)


def figure() -> Schedule:
    return three_phase(600, lambda_w=1.0, lambda_beta=0.05, rise=200, fall=500, sharpness=10)


def test_three_phase_is_the_figure_at_every_step() -> None:
    schedule = figure()
    for step in range(600):
        assert schedule(step) == pytest.approx(figure_strengths(step), abs=1e-12)


def test_numbers_read_off_the_figure() -> None:
    schedule = figure()
    assert schedule(0) == pytest.approx((0, 0), abs=1e-12)  # phase 1: the task alone
    assert schedule(200) == pytest.approx((0.5, 0.025), abs=1e-9)
    assert schedule(350) == pytest.approx((1.0, 0.05), abs=1e-9)  # phase 2: both
    assert schedule(500) == pytest.approx((1.0, 0.025), abs=1e-9)
    assert schedule(599) == pytest.approx((1.0, 0.0), abs=1e-8)  # phase 3: lambda_w stays, bits are not paid for
    assert [schedule.phase(step) for step in (0, 199, 200, 499, 500, 599, 10_000)] == [1, 1, 2, 2, 3, 3, 3]


def test_defaults_are_table_4s_proportion() -> None:
    schedule = three_phase(1200, lambda_w=1.0, lambda_beta=0.05)
    lengths = [len(list(steps)) for _, steps in itertools.groupby(range(1200), schedule.phase)]
    assert lengths == [400, 500, 300]  # 4 : 5 : 3


@given(total=st.integers(1, 5000), step=st.integers(0, 6000), lw=st.floats(0, 10), lb=st.floats(1e-4, 10))
def test_strengths_stay_within_their_bounds(total: int, step: int, lw: float, lb: float) -> None:
    for schedule in (
        three_phase(total, lambda_w=lw, lambda_beta=lb),
        constant(total, lambda_w=lw, lambda_beta=lb),
        exponential(total, lambda_w=lw, lambda_beta=lb),
    ):
        lambda_w, lambda_beta = schedule(step)
        assert 0 <= lambda_w <= lw * (1 + 1e-12)
        assert 0 <= lambda_beta <= lb * (1 + 1e-12)


@given(total=st.integers(1, 5000))
def test_phases_come_in_order(total: int) -> None:
    for schedule in (
        three_phase(total, lambda_w=1.0, lambda_beta=0.1),
        constant(total, lambda_w=1.0, lambda_beta=0.1),
        exponential(total, lambda_w=1.0, lambda_beta=0.1),
        from_callable(lambda _: (1.0, 0.1), total, learning=True),
    ):
        phases = [schedule.phase(step) for step in range(0, total + 1, max(1, total // 50))]
        assert phases == sorted(phases)
        assert schedule.phase(total) == 3
        assert schedule.fall is not None
        assert schedule.rise <= schedule.fall <= total


def test_exponential_closed_form() -> None:
    schedule = exponential(200, lambda_w=2.0, lambda_beta=0.1)
    for step in (0, 1, 50, 199, 200):
        assert schedule(step) == (pytest.approx(2 * math.exp(4 * (step / 200 - 1))), 0.1)
    assert schedule(10_000) == (2.0, 0.1)  # it does not explode when training goes on
    assert schedule.phase(0) == 2


def test_constant() -> None:
    assert constant(lambda_w=0.3)(10**9) == (0.3, 0.0)
    assert constant(lambda_w=0.3).phase(0) == 3
    learned = constant(400, lambda_w=0.3, lambda_beta=0.1)
    assert [learned.phase(step) for step in (0, 299, 300)] == [2, 2, 3]


def test_callable_is_called_with_the_step() -> None:
    schedule = from_callable(lambda step: (step / 10, 0.5), 40, learning=True)
    assert schedule(7) == (0.7, 0.5)
    assert [schedule.phase(step) for step in (0, 29, 30)] == [2, 2, 3]
    assert from_callable(lambda step: (1.0, 0.0), None, learning=False).phase(5) == 3


@pytest.mark.parametrize("total", [0, -1, 2.0, True, None, "10"])
def test_total_steps_out_of_range(total: Any) -> None:
    with pytest.raises(ValueError, match="total_steps must be a positive whole number of optimiser steps, not "):
        three_phase(total, lambda_w=1.0, lambda_beta=0.1)
    with pytest.raises(ValueError, match="total_steps"):
        exponential(total, lambda_w=1.0)


def test_numpy_steps_are_steps() -> None:
    assert type(check_total_steps(np.int64(5))) is int


@pytest.mark.parametrize(
    "wrong",
    [{"rise": 500.0}, {"fall": 10.0}, {"rise": -1.0}, {"fall": 700.0}, {"sharpness": 0.0}, {"rise": math.nan}],
)
def test_three_phase_refuses_impossible_phases(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needs 0 <= rise < fall <= total_steps and sharpness > 0"):
        three_phase(600, lambda_w=1.0, lambda_beta=0.1, **wrong)


def test_rising_is_one_exponential_over_the_run_that_learned_bits_keep_silent_until_phase_3() -> None:
    whole = rising(1000, lambda_w=10.0, first=0.001)
    learned = rising(1000, lambda_w=10.0, first=0.001, lambda_beta=0.02, rise=50, fall=500)
    assert (whole.phase(0), whole.fall) == (3, None)
    assert (learned.rise, learned.fall) == (50, 500)
    for step in range(0, 1001, 50):
        assert whole(step) == pytest.approx((10.0 ** (4 * step / 1000 - 3), 0.0))
        assert learned(step)[0] == (whole(step)[0] if step >= 500 else 0.0)
    assert learned(500)[0] == pytest.approx(0.1)
    assert learned(250)[1] == pytest.approx(0.02, rel=1e-3)
    assert whole(5000) == whole(1000), "past the end it stays"
    assert rising(10, lambda_w=0.0, first=0.0)(10) == (0.0, 0.0)
    with pytest.raises(ValueError, match="0 <= first <= lambda_w"):
        rising(10, lambda_w=0.5, first=1.0)
    with pytest.raises(ValueError, match="rise < fall"):
        rising(10, lambda_w=1.0, first=0.1, rise=5, fall=4)


@pytest.mark.parametrize("preset", ["recommended", "paper", "released"])
def test_a_search_is_the_three_phases_up_to_where_bits_freeze(preset: str) -> None:
    whole = resolve_schedule(Method(preset=preset, total_steps=2400), get_preset(preset), learning=True)
    assert whole.fall is not None
    method = Method(preset=preset, schedule="search", total_steps=whole.fall)
    search = resolve_schedule(method, get_preset(preset), learning=True)
    assert (search.name, search.rise, search.fall) == ("search", whole.rise, whole.fall)
    for step in range(0, whole.fall + 1, 7):
        assert search(step) == pytest.approx(whole(step), abs=1e-9)
    assert [search.phase(step) for step in (0, whole.fall - 1, whole.fall)] == [1, 2, 3]


def test_a_search_is_for_learned_bits() -> None:
    with pytest.raises(ValueError, match="with preset bits there is nothing to search"):
        resolve_schedule(Method(bits=3, schedule="search", total_steps=9), get_preset("paper"), learning=False)
