from __future__ import annotations

import numpy as np
import pytest

from pareto import sensitivity

POLICY = {"conv": 4, "fc1": 3, "fc2": 1}
WEIGHTS = np.array([1.0, 10.0, 100.0])


def test_each_row_is_one_layer_one_bit_less():
    seen = []

    def evaluate(policies):
        seen.append(policies.copy())
        return policies @ WEIGHTS

    table = sensitivity(POLICY, evaluate)
    assert len(seen) == 1
    assert seen[0].dtype == np.uint8
    assert seen[0].tolist() == [[4, 3, 1], [3, 3, 1], [4, 2, 1]]  # fc2 has no bit to lose
    assert table["layer"].tolist() == ["conv", "fc1"]
    assert table["change"].tolist() == [-1.0, -10.0]
    assert table["baseline"].tolist() == [134.0, 134.0]
    assert table["standard_error"].isna().all()


def test_one_bit_more_as_well():
    table = sensitivity(POLICY, lambda policies: policies @ WEIGHTS, steps=(-1, 1), max_bits=4)
    rows = table[["layer", "step", "changed_bits", "change"]].to_numpy().tolist()
    assert rows == [["conv", -1, 3, -1.0], ["fc1", -1, 2, -10.0], ["fc1", 1, 4, 10.0], ["fc2", 1, 2, 100.0]]


def test_standard_error_over_seeds_is_paired():
    # Seeds differ by far more than policies do; paired, only what changes between policies counts.
    offsets = np.array([0.0, 50.0, -50.0, 20.0])
    noise = np.array([[0.0] * 4, [1.0, -1.0, 1.0, -1.0]])
    table = sensitivity({"fc": 4}, lambda policies: 80.0 + offsets + noise[: len(policies)])
    assert table["change"].tolist() == [0.0]
    assert table["standard_error"][0] == pytest.approx(np.array([1, -1, 1, -1]).std(ddof=1) / 2)


def test_bootstrap_over_samples_matches_its_closed_form():
    # 1000 samples, 60 lost and 20 won: variance of the mean of a variable in {-1, 0, 1}.
    correct = np.zeros((2, 1000), dtype=bool)
    correct[0, :800] = True
    correct[1, 60:820] = True
    table = sensitivity({"fc": 4}, lambda policies: correct[: len(policies)], resamples=20000)
    assert table["baseline"][0] == 80.0
    assert table["change"][0] == pytest.approx(-4.0)
    exact = 100 * np.sqrt((0.08 - 0.04**2) / 1000)
    assert table["standard_error"][0] == pytest.approx(exact, rel=0.03)
    again = sensitivity({"fc": 4}, lambda policies: correct[: len(policies)], resamples=20000)
    assert again.equals(table)


@pytest.mark.parametrize(
    ("policy", "error", "words"),
    [
        ([4, 3], TypeError, "must map layer names"),
        ({}, ValueError, "at least one layer"),
        ({"fc": 3.5}, TypeError, r"policy\['fc'\] must be an integer"),
        ({"fc": 40}, ValueError, r"must lie in 1\.\.32, got 40"),
    ],
)
def test_wrong_policies_are_named(policy, error, words):
    with pytest.raises(error, match=words):
        sensitivity(policy, lambda policies: policies[:, 0])


def test_wrong_answers_of_evaluate_are_named():
    with pytest.raises(ValueError, match=r"must return shape \(3,\) or \(3, repeats\), it returned \(1,\)"):
        sensitivity({"a": 3, "b": 3}, lambda policies: np.zeros(1))
    with pytest.raises(ValueError, match=r"NaN for policy \{'a': 2, 'b': 3\}"):
        sensitivity({"a": 3, "b": 3}, lambda policies: np.where(policies[:, 0] == 2, np.nan, 1.0))
    with pytest.raises(ValueError, match="steps must be integers other than 0"):
        sensitivity({"a": 3}, lambda policies: np.zeros(len(policies)), steps=(0,))
