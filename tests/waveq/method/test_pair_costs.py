"""What layers cost by the bits of both operands."""

from __future__ import annotations

from typing import Any

import pytest

from waveq.method.cost_arguments import resolve_pair_budget, resolve_pairs
from waveq.method.pair_costs import PairBudget, PairCosts, product_tables

STEPS = {"a": {w: {a: float(w * w + 3 * a) for a in range(1, 9)} for w in range(1, 10)}}


class Nothing:
    """Counts nothing, ever."""

    def tables(self) -> None:
        return None


def test_products_are_exact_between_whole_bits() -> None:
    costs = PairCosts(product_tables({"a": 7.0}))
    assert costs.value({"a": 3.3, "a (inputs)": 4.7}) == pytest.approx(7 * 3.3 * 4.7)
    assert costs.slopes({"a": 3.3, "a (inputs)": 4.7}) == pytest.approx({"a": 7 * 4.7, "a (inputs)": 7 * 3.3})


def test_prices_are_slopes_between_neighbours() -> None:
    costs = PairCosts(STEPS)
    assert costs.slopes({"a": 3.5, "a (inputs)": 2.0}) == pytest.approx({"a": 16 - 9, "a (inputs)": 3.0})
    assert costs.slopes({"a": 9.0, "a (inputs)": 8.0}) == pytest.approx({"a": 81 - 64, "a (inputs)": 3.0})  # at the end
    assert costs.value({"a": 3.5, "a (inputs)": 2.0}) == pytest.approx((9 + 16) / 2 + 6)


def test_prices_have_mean_one() -> None:
    relative = PairCosts(product_tables({"a": 10.0, "b": 1.0})).relative({"a": 4.0, "a (inputs)": 2.0, "b": 5.0})
    assert sum(relative.values()) == pytest.approx(3.0)
    assert relative["a (inputs)"] / relative["a"] == pytest.approx(2.0)
    assert relative["b"] / relative["a"] == pytest.approx(16 / 20)  # floating-point inputs count as 16 bits


def test_what_is_not_counted_yet_has_no_price_of_its_own() -> None:
    costs = PairCosts(Nothing())
    assert costs.relative({"a": 3.0}) == {"a": 1.0}
    assert not PairBudget("bitops", 0.5, costs).ready
    with pytest.raises(RuntimeError, match=r"multiplications are counted .* layer_costs=\{layer: multiplications\}"):
        costs.value({"a": 3.0})


@pytest.mark.parametrize("limit", [0.1, 0.2, 0.3, 0.5])
def test_rounding_keeps_within_the_budget_and_uses_it(limit: float) -> None:
    budget = PairBudget("bitops", limit, PairCosts(product_tables({"a": 5.0, "b": 3.0, "c": 2.0, "d": 1.0})))
    betas = {f"{name}{part}": 3.0 + 0.37 * k for k, name in enumerate("abcd") for part in ("", " (inputs)")}
    chosen = budget.round(betas, dict.fromkeys(betas, 8), {})
    assert 0.85 * limit < budget.value(chosen) <= limit
    for name in chosen:  # nothing more fits
        assert chosen[name] == 8 or budget.value({**chosen, name: chosen[name] + 1}) > limit


LEARNED = {"a": 0, "b": 0}
NUMBERS = {"a": 5.0, "b": 1.0}
BY_BITS: dict[str, Any] = {name: {b: float(b) for b in range(1, 10)} for name in "ab"}
PAIRS: dict[str, Any] = {name: dict(row) for name, row in product_tables(NUMBERS).items()}


def pairs_of(target: Any, inputs: dict[str, int], costs: Any) -> PairCosts | None:
    return resolve_pairs(target, LEARNED, inputs, costs, most_bits=8, counted=Nothing())


def test_when_costs_depend_on_both_operands() -> None:
    assert pairs_of(None, {"b": 0}, None) is None
    assert pairs_of({"mean_bits": 4.0}, {"b": 4}, None) is None
    assert pairs_of({"energy_pj": 0.4}, {"b": 4}, BY_BITS) is None
    for target, inputs, costs in (
        ({"bitops": 0.3}, {"b": 0}, None),
        ({"bitops": 0.3}, {}, NUMBERS),
        ({"energy_pj": 0.3}, {"b": 0}, PAIRS),
        (None, {"b": 0}, NUMBERS),
        (None, {"b": 4}, PAIRS),
    ):
        assert pairs_of(target, inputs, costs) is not None


@pytest.mark.parametrize(
    ("target", "inputs", "costs", "message"),
    [
        (
            {"mean_bits": 4.0},
            {"b": 0},
            None,
            r'mean_bits counts the bits of weights alone; .* target=\{"bitops": 0.3\}',
        ),
        ({"bitops": 0.3}, {"b": 0}, BY_BITS, r"layer_costs must give the number of multiplications of each layer"),
        ({"bitops": 0.3}, {"b": 0}, {"a": 1.0}, r"layer_costs has no cost for: b"),
        ({"bitops": 0.3}, {"b": 0}, {"a": 1.0, "b": -1.0}, r"layer_costs\['b'\] must be positive and finite, not -1.0"),
        (
            {"energy_pj": 0.3},
            {"b": 0},
            BY_BITS,
            r"target energy_pj with activation_bits=.learn. needs the cost by bits of",
        ),
        (None, {"b": 0}, BY_BITS, r"layer_costs with activation_bits=.learn. needs the cost by bits of both"),
        (
            {"energy_pj": 0.3},
            {"b": 0},
            {**PAIRS, "b": 3.0},
            r"layer_costs\['b'\] must be a table by weight bits and input",
        ),
        (
            {"energy_pj": 0.3},
            {"b": 0},
            {**PAIRS, "a": {w: dict.fromkeys(range(2, 9), 1.0) for w in range(2, 9)}},
            r"layer_costs\['a'\]\[2\]\[16\], .*floating point.*, must be positive and finite, not None",
        ),
    ],
)
def test_costs_that_do_not_say_enough(target: Any, inputs: dict[str, int], costs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pairs_of(target, inputs, costs)


def test_a_budget_out_of_reach() -> None:
    inputs, costs = {"b": 0}, PairCosts(product_tables(NUMBERS))
    with pytest.raises(
        ValueError, match=r"with 2 bits in every weight and input that is learned it is still 0.427 \(inp"
    ):
        resolve_pair_budget({"bitops": 0.2}, LEARNED, inputs, costs, learning=True)
    with pytest.raises(ValueError, match="target drives learned bits"):
        resolve_pair_budget({"bitops": 0.2}, {"a": 4, "b": 4}, {"b": 4}, costs, learning=False)
