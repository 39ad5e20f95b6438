from __future__ import annotations

import numpy as np
import pytest

from pareto import Store, alike_steps, frontier_certainty, is_efficient, paired_difference


def table(policies: int = 40, samples: int = 30, costs: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    better = 0.6 + 0.01 * np.arange(policies)[:, None]
    return rng.random((policies, samples)) < better, rng.integers(0, costs, policies).astype(float)


def test_membership_is_that_of_a_frontier_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    correct, cost = table()  # several policies a cost, and equal accuracies
    picked = np.random.default_rng(3).integers(30, size=(50, 30))
    fronts = [
        is_efficient(np.column_stack([correct[:, drawn].sum(axis=1), cost]), sense=("max", "min")) for drawn in picked
    ]
    found = frontier_certainty(correct, cost, draws=50, seed=3)
    np.testing.assert_array_equal(found.membership, np.mean(fronts, axis=0))
    monkeypatch.setattr("pareto.certainty._BLOCK", 5)  # what is cut does not matter
    again = frontier_certainty(correct, cost, draws=50, seed=3)
    for name in ("membership", "costs", "low", "high"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


def test_the_band_turns_the_draws_about_the_measured_frontier() -> None:
    correct, cost = table()
    found = frontier_certainty(correct, cost, draws=200, seed=1, level=0.8)
    accuracy = 100.0 * correct.mean(axis=1)
    front = is_efficient(np.column_stack([accuracy, cost]), sense=("max", "min"))
    np.testing.assert_array_equal(found.costs, np.unique(cost[front]))
    picked = np.random.default_rng(1).integers(30, size=(200, 30))
    for step, (low, high) in enumerate(zip(found.low, found.high, strict=True)):
        affordable = correct[cost <= found.costs[step]]
        best = [100.0 * affordable[:, drawn].mean(axis=1).max() for drawn in picked]
        measured = 100.0 * affordable.mean(axis=1).max()
        bounds = 2 * measured - np.quantile(best, [0.9, 0.1])
        np.testing.assert_allclose([low, high], np.clip(bounds, 0, 100), atol=1e-4)


def test_one_policy_is_a_binomial() -> None:
    right = np.arange(400)[None, :] < 300
    found = frontier_certainty(right, [1.0], draws=2000)
    assert found.membership.tolist() == [1.0]
    error = 100 * (0.75 * 0.25 / 400) ** 0.5
    np.testing.assert_allclose([found.low[0], found.high[0]], [75 - 1.645 * error, 75 + 1.645 * error], atol=0.5)


def test_two_policies_have_the_odds_of_their_discordant_samples() -> None:
    # The dearer one is right on 6 samples more and wrong on 4 more: it is efficient where it draws more of the former.
    correct = np.ones((2, 100), dtype=np.bool_)
    correct[0, :6], correct[1, 6:10] = False, False
    found = frontier_certainty(correct, [1.0, 2.0], draws=4000)
    drawn = np.random.default_rng(5).multinomial(100, [0.06, 0.04, 0.9], size=50_000)
    assert found.membership[0] == 1.0
    assert found.membership[1] == pytest.approx((drawn[:, 0] > drawn[:, 1]).mean(), abs=0.03)


def test_paired_errors_are_those_of_the_differences() -> None:
    one, other = np.random.default_rng(0).random((2, 7, 200)) < 0.7
    difference, error = paired_difference(one, other)
    each = one.astype(float) - other
    np.testing.assert_allclose(difference, 100 * each.mean(axis=1))
    np.testing.assert_allclose(error, 100 * each.std(axis=1) / 200**0.5)
    same, none = paired_difference(one, one)
    assert not same.any()
    assert not none.any()


def test_what_cannot_be_told_apart_has_one_number() -> None:
    nested = np.arange(1000) < np.array([[500], [503], [520], [523], [900]])
    # 3 of 1000 differ, all one way: 0.3 points, standard error 0.17; 20 of 1000: 2 points, 0.44
    assert alike_steps(nested).tolist() == [0, 0, 1, 1, 2]
    assert alike_steps(nested, errors=1.0).tolist() == [0, 1, 2, 3, 4]
    assert alike_steps(nested[:0]).tolist() == []


@pytest.mark.parametrize(
    ("correct", "cost", "options", "words"),
    [
        (np.ones((2, 3)), [1.0, 2.0], {}, r"correct must be \(policies, samples\) booleans"),
        (np.ones((2, 3), bool), [1.0], {}, "one number a policy"),
        (np.ones((2, 3), bool), [1.0, np.inf], {}, "cost: row 1 is not finite"),
        (np.ones((2, 3), bool), [1.0, 2.0], {"draws": 0}, "draws must be at least 1"),
        (np.ones((2, 3), bool), [1.0, 2.0], {"level": 1.0}, "level between 0 and 1"),
    ],
)
def test_wrong_arguments_are_named(correct, cost, options, words) -> None:
    with pytest.raises(ValueError, match=words):
        frontier_certainty(correct, cost, **options)


POLICIES = np.array([[2, 3], [4, 3], [4, 8]], dtype=np.uint8)
RIGHT = np.random.default_rng(0).random((3, 434)) < 0.8


def test_bits_come_out_of_the_store_as_they_went_in(tmp_path) -> None:
    path = tmp_path / "a.sqlite"
    with Store(path, layers=["a", "b"], fingerprint={}) as store:
        assert store.correct(POLICIES) is None
        store.add(POLICIES[1:], RIGHT[1:].mean(axis=1), correct=RIGHT[1:])
        assert store.correct(POLICIES) is None  # of one it is not known
        store.add(POLICIES[:1], RIGHT[:1].mean(axis=1), correct=RIGHT[:1])
        store.add(POLICIES[:1], RIGHT[:1].mean(axis=1), correct=~RIGHT[:1])  # the first result stays, and its bits
    with Store.read(path) as store:
        np.testing.assert_array_equal(store.correct(POLICIES[[2, 0, 1]]), RIGHT[[2, 0, 1]])
        with pytest.raises(ValueError, match=r"correct must be \(3, samples\) booleans"):
            store.add(POLICIES, [1.0, 2.0, 3.0], correct=RIGHT[:2])


def test_bits_of_another_hand_are_refused(tmp_path) -> None:
    path = tmp_path / "a.sqlite"
    with Store(path, layers=["a", "b"], fingerprint={}) as store:
        store.add(POLICIES, RIGHT.mean(axis=1), correct=RIGHT)
        store._connection.execute(
            "UPDATE samples SET correct = zeroblob(55) WHERE policy = ?", (POLICIES[1].tobytes(),)
        )
        with pytest.raises(ValueError, match=r"samples that policy \[4, 3\] gets right are not what was written"):
            store.correct(POLICIES)


def test_a_store_without_bits_is_read_and_goes_on(tmp_path) -> None:
    path = tmp_path / "old.sqlite"
    with Store(path, layers=["a", "b"], fingerprint={}) as store:
        store.add(POLICIES[:1], [80.0])
        store._connection.execute("DROP TABLE samples")  # as before there were any
    with Store.read(path) as store:
        assert store.correct(POLICIES[:1]) is None
        assert len(store) == 1
    with Store(path, layers=["a", "b"], fingerprint={}) as store:
        store.add(POLICIES[1:], RIGHT[1:].mean(axis=1), correct=RIGHT[1:])
        assert store.correct(POLICIES) is None
        np.testing.assert_array_equal(store.correct(POLICIES[1:]), RIGHT[1:])
