from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waveq.method.budget import merge_costs, parse_budget, relative_bit_costs

TABLE = {"a": {b: 10.0 * b for b in range(1, 10)}, "b": {b: 100.0 + 5.0 * b for b in range(1, 10)}}
LEARNED = {"a": 0, "b": 0}


# ---------------------------------------------------------------------- reading the target


def test_mean_bits_by_hand() -> None:
    budget = parse_budget({"mean_bits": 3.85}, LEARNED, None)
    assert (budget.objective, budget.limit) == ("mean_bits", 3.85)
    assert budget.value({"a": 2.5, "b": 8.0}) == 5.25


def test_share_by_hand() -> None:
    budget = parse_budget({"energy_pj": 0.9}, LEARNED, TABLE)
    assert budget.value({"a": 8.0, "b": 8.0}) == 1.0
    assert budget.value({"a": 2.5, "b": 4.0}) == pytest.approx((25 + 120) / (80 + 140))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({}, "target takes one objective, such as"),
        ({"mean_bits": 4, "energy_pj": 0.5}, "takes one objective"),
        ({"mean_bits": 1.5}, "target mean_bits must be 2 to 9 total bits, not 1.5"),
        ({"mean_bits": 10}, "not 10"),
        ({"mean_bits": math.nan}, "not nan"),
        ({"mean_bits": "4"}, "target mean_bits must be a number, not '4'"),
        ({"mean_bits": True}, "must be a number, not True"),
        ({"energy_pj": 0}, "share of the cost at 8 bits, 0 to 1, not 0"),
        (
            {"energy_pj": 40},
            r"share of the cost at 8 bits, 0 to 1, not 40 \(the mean over layers is called mean_bits\)",
        ),
        (
            {"energy_pj": 0.1},
            r"energy_pj = 0.1 cannot be met: with 2 bits in every layer that is learned it is still 0.591",
        ),
    ],
)
def test_impossible_targets(target: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_budget(target, LEARNED, TABLE)


def test_a_target_is_a_mapping() -> None:
    with pytest.raises(TypeError, match=r"target must name an objective, such as .* not 3\.85"):
        parse_budget(3.85, LEARNED, None)  # type: ignore[arg-type]


def test_fixed_layers_count_against_the_target() -> None:
    parse_budget({"mean_bits": 5.0}, {"a": 8, "b": 0}, None)
    with pytest.raises(ValueError, match=r"mean_bits = 4.9 cannot be met: .* still 5.000"):
        parse_budget({"mean_bits": 4.9}, {"a": 8, "b": 0}, None)


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        (None, "needs layer_costs with the cost by total bits of every layer .* layer 'a' lacks 2, 3, 4"),
        ({"a": TABLE["a"]}, "layer 'b' lacks 2, 3"),
        ({"a": 1.0, "b": 2.0}, "layer 'a' lacks"),
        ({"a": TABLE["a"], "b": dict.fromkeys(range(2, 8), 1.0)}, "layer 'b' lacks 8 bits"),
        (
            {"a": TABLE["a"], "b": {**TABLE["b"], 3: math.nan}},
            r"layer_costs\['b'\]\[3\] must be positive and finite, not nan",
        ),
        ({"a": TABLE["a"], "b": {**TABLE["b"], 3: -1.0}}, "not -1.0"),
    ],
)
def test_shares_need_whole_tables(costs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_budget({"energy_pj": 0.8}, LEARNED, costs)


def test_tables_reach_as_far_as_the_bits_that_occur() -> None:
    short = {"a": {b: float(b) for b in range(2, 9)}, "b": {b: float(b) for b in range(2, 9)}}
    parse_budget({"cycles": 0.8}, LEARNED, short)
    with pytest.raises(ValueError, match="layer 'a' lacks 9 bits"):
        parse_budget({"cycles": 0.8}, LEARNED, short, most_bits=9)
    with pytest.raises(ValueError, match="layer 'b' lacks 1 bits"):
        parse_budget({"cycles": 0.8}, {"a": 0, "b": 1}, short)


# ---------------------------------------------------------------------- whole bits within the limit


@given(
    betas=st.lists(st.floats(1.0, 7.0), min_size=1, max_size=8),
    limit=st.floats(2.0, 9.0),
    fixed=st.integers(0, 2),
)
def test_rounding_meets_the_limit_and_leaves_no_room(betas: list[float], limit: float, fixed: int) -> None:
    learned = {f"l{i}": beta for i, beta in enumerate(betas)}
    held = {f"f{i}": 8 for i in range(fixed)}
    chosen = {**dict.fromkeys(learned, 0), **held}
    lowest = (2 * len(learned) + 8 * fixed) / len(chosen)
    if limit < lowest:
        return
    budget = parse_budget({"mean_bits": limit}, chosen, None)
    ceiled = {name: math.ceil(beta) + 1 for name, beta in learned.items()}
    bits = budget.round(learned, ceiled, held)
    mean = sum([*bits.values(), *held.values()]) / len(chosen)
    assert mean <= limit + 1e-9
    assert all(2 <= bits[name] <= 8 for name in learned)
    if sum([*ceiled.values(), *held.values()]) / len(chosen) <= limit:
        assert bits == ceiled
    elif min(bits.values()) < 8:  # one bit more anywhere would not fit
        assert mean + 1 / len(chosen) > limit - 1e-9


def test_the_least_used_bit_goes_first() -> None:
    budget = parse_budget({"mean_bits": 4.5}, LEARNED, None)
    assert budget.round({"a": 3.9, "b": 3.1}, {"a": 5, "b": 5}, {}) == {"a": 5, "b": 4}


# ---------------------------------------------------------------------- prices


def test_relative_costs_by_hand() -> None:
    assert relative_bit_costs(["a", "b"], None) == {"a": 1.0, "b": 1.0}
    assert relative_bit_costs(["a", "b"], TABLE) == pytest.approx({"a": 4 / 3, "b": 2 / 3})
    assert relative_bit_costs(["a", "b"], {"a": 1, "b": 3}) == {"a": 0.5, "b": 1.5}


@given(st.dictionaries(st.text(min_size=1), st.floats(1e-6, 1e6), min_size=1, max_size=6))
def test_relative_costs_have_mean_one(costs: dict[str, float]) -> None:
    relative = relative_bit_costs(list(costs), costs)
    assert sum(relative.values()) / len(relative) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"a": 1.0}, "layer_costs has no cost for: b"),
        ({"a": 1.0, "b": 0.0}, r"layer_costs\['b'\] must be positive and finite per bit, not 0.0"),
        ({"a": 1.0, "b": math.inf}, "not inf"),
        ({"a": 1.0, "b": {4: 2.0}}, "not nan"),
        ({"a": 1.0, "b": {}}, "not nan"),
        ({"a": 1.0, "b": {2: 5.0, 8: 5.0}}, "not 0.0"),
    ],
)
def test_impossible_costs(costs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relative_bit_costs(["a", "b"], costs)


def test_layers_that_share_a_weight_pay_together() -> None:
    shared = {"a": ("a", "c"), "b": ("b",)}
    assert merge_costs(None, shared) is None
    assert merge_costs({"a": {2: 1.0, 3: 2.0}, "c": {2: 10.0, 3: 20.0}, "b": 1.0}, shared) == {
        "a": {2: 11, 3: 22},
        "b": 1,
    }
    assert merge_costs({"b": 1.0}, shared) == {"b": 1.0}


def test_a_dear_bit_that_is_taken_back_makes_room_for_cheap_ones() -> None:
    costs = {"dear": {b: 10.0 * b for b in range(2, 9)}, "cheap": {b: 1.0 * b for b in range(2, 9)}}
    budget = parse_budget({"energy_pj": 27 / 88}, {"dear": 0, "cheap": 0}, costs)
    # 3 and 3 bits cost 33; without the dear one's third bit 23, which leaves 4 for the cheap layer
    assert budget.round({"dear": 1.1, "cheap": 2.0}, {"dear": 3, "cheap": 3}, {}) == {"dear": 2, "cheap": 7}
