from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripes_sim import stream_best, stream_front
from tests import reference_stripes as slow
from tests.stripes_sim.test_scoring import random_table

spaces = st.tuples(st.integers(1, 4), st.sampled_from([(4,), (2, 8), (2, 3, 4, 5)]), st.integers(0, 999), st.booleans())


def a_space(space):
    layers, bits, seed, rounded = space
    table = random_table(layers, bits, seed)
    loss = np.random.default_rng(seed + 1).random((layers, len(bits)))
    # rounded losses make ties, which fronts must not double
    return table, np.round(4 * loss) if rounded else loss


@settings(max_examples=20)
@given(spaces)
def test_the_front_is_that_of_comparing_each_with_each(space):
    table, loss = a_space(space)
    front = stream_front(table, loss)
    expected = slow.frontier(loss, table.energy_pj)
    np.testing.assert_allclose(front.cost - table.fixed["energy_pj"], [cost for cost, _ in expected], atol=1e-8)
    np.testing.assert_allclose(front.loss, [value for _, value in expected], atol=1e-8)
    np.testing.assert_allclose(table.score(front.policies)["energy_pj"], front.cost)
    assert front.size == len(table.bits) ** len(table.names)


@settings(max_examples=20)
@given(spaces, st.floats(0, 4))
def test_the_best_within_a_budget_is_that_of_looking_at_all(space, limit):
    table, loss = a_space(space)
    best = stream_best(table, loss, budget=limit + table.fixed["energy_pj"])
    expected, within = slow.best_under_budget(loss, table.energy_pj, limit)
    assert best.within == within
    assert best.loss == pytest.approx(expected)
    if best.policy is not None:
        assert best.cost <= limit + table.fixed["energy_pj"] + 1e-9
        assert table.score_one(best.policy)["energy_pj"] == pytest.approx(best.cost)


def test_spaces_cut_into_prefixes_agree_with_themselves(monkeypatch):
    from stripes_sim import stream

    table, loss = a_space((9, (2, 3, 4, 5, 8), 3, False))
    whole, best = stream_front(table, loss), stream_best(table, loss, budget=3.5)
    monkeypatch.setattr(stream, "_SUFFIXES", 25)
    again = stream_front(table, loss)
    np.testing.assert_allclose(again.cost, whole.cost)
    np.testing.assert_array_equal(again.policies, whole.policies)
    assert stream_best(table, loss, budget=3.5).policy == best.policy
    assert stream_best(table, loss, budget=3.5).within == best.within


def test_losses_may_be_named_or_mapped():
    table, loss = a_space((3, (2, 8), 0, False))
    mapped = {name: dict(zip(table.bits, row, strict=True)) for name, row in zip(table.names, loss, strict=True)}
    assert stream_best(table, mapped, budget=9).policy == stream_best(table, loss, budget=9).policy
    assert stream_front(table, "cycles").size == 8
    frame = stream_front(table, loss).to_frame()
    assert list(frame.columns) == ["cost", "loss", *table.names]


def test_nothing_within_the_budget_is_no_policy():
    table, loss = a_space((2, (2, 8), 0, False))
    best = stream_best(table, loss, budget=-1)
    assert (best.policy, best.within, best.loss) == (None, 0, float("inf"))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (np.zeros((2, 3)), "loss must have one row per layer and one column per bits, (2, 2), but it has (2, 3)"),
        ([[0, np.nan], [0, 0]], "loss of layer 'layer0' at 8 bits is nan"),
        ({"layer0": {2: 1, 8: 1}}, "loss has no entry for all of (2, 8) bits in layer 'layer1'"),
        ("energie_pj", "objective must be one of"),
    ],
)
def test_bad_losses_are_named(loss, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        stream_front(random_table(2, (2, 8), 0), loss)


def test_a_space_too_large_to_number_is_refused():
    table = random_table(70, (2, 8), 0)
    with pytest.raises(ValueError, match=re.escape("a space of 2**70 policies is more than 2**62")):
        stream_best(table, "cycles", budget=1)
