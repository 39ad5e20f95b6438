from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pareto import DesignSpace

choices = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.lists(st.integers(1, 32), min_size=1, max_size=4, unique=True),
    min_size=1,
    max_size=4,
)


@given(choices)
def test_order_is_that_of_nested_loops(given_choices):
    space = DesignSpace(given_choices)
    expected = np.array(list(itertools.product(*given_choices.values())), dtype=np.uint8)
    np.testing.assert_array_equal(space.policies(), expected)
    assert space.policies().dtype == np.uint8
    assert len(space) == len(expected)


@given(choices, st.integers(0, 300), st.integers(1, 40))
def test_any_slice_equals_the_slice_of_all(given_choices, start, rows):
    space = DesignSpace(given_choices)
    start = min(start, len(space))
    stop = min(start + rows, len(space))
    np.testing.assert_array_equal(space.policies(start, stop), space.policies()[start:stop])
    np.testing.assert_array_equal(np.concatenate(list(space.chunks(rows))), space.policies())


@given(choices, st.data())
def test_index_and_policy_are_inverse(given_choices, data):
    space = DesignSpace(given_choices)
    index = data.draw(st.integers(0, len(space) - 1))
    assert space.index(space[index]) == index
    assert list(space[index].values()) == space.policies()[index].tolist()
    assert space[index] in space


def test_a_deep_space_is_walked_lazily():
    space = DesignSpace({f"layer{i}": range(2, 9) for i in range(53)})
    assert space.size == 7**53
    far = 7**52 * 3 - 2  # the slice crosses a change of the first layer
    for offset, row in enumerate(space.policies(far, far + 5)):
        assert row.tolist() == list(space[far + offset].values())
        assert space.index(row.tolist()) == far + offset
    with pytest.raises(ValueError, match=r"use chunks\(\), sample\(\)"):
        space.policies()


def test_sample_is_reproducible_and_of_the_space():
    space = DesignSpace({"a": (2, 8), "b": (3, 4, 5)})
    drawn = space.sample(50, seed=3)
    np.testing.assert_array_equal(drawn, space.sample(50, seed=3))
    assert all(row.tolist() in space for row in drawn)
    assert len(np.unique(drawn, axis=0)) == 6


@pytest.mark.parametrize(
    ("given_choices", "error", "words"),
    [
        ([("a", (2, 3))], TypeError, "choices must map"),
        ({}, ValueError, "at least one layer"),
        ({"a": ()}, ValueError, "'a' has no bit widths"),
        ({"a": (2, 2)}, ValueError, "'a' lists a bit width twice"),
        ({"a": (0, 2)}, ValueError, r"1\.\.32, got 0"),
        ({"a": (2.5,)}, TypeError, "must be integers, got 2.5"),
        ({"a": "23"}, TypeError, "sequence of bit widths"),
    ],
)
def test_wrong_choices_are_named(given_choices, error, words):
    with pytest.raises(error, match=words):
        DesignSpace(given_choices)


def test_wrong_policies_are_named():
    space = DesignSpace({"conv1": (2, 3), "conv2": (2, 3)})
    with pytest.raises(ValueError, match="'conv11'; did you mean 'conv1'"):
        space.index({"conv11": 2, "conv2": 2})
    with pytest.raises(ValueError, match="no bits for layer 'conv2'"):
        space.index({"conv1": 2})
    with pytest.raises(ValueError, match=r"'conv2' 5 bits, the space allows \(2, 3\)"):
        space.index({"conv1": 2, "conv2": 5})
    with pytest.raises(IndexError):
        space[4]
    assert {"conv1": 9, "conv2": 2} not in space
