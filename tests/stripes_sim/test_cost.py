from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pareto
from stripes_sim import LayerShape, Stripes, cost_table
from tests import reference_stripes as slow
from tests.stripes_sim.test_scoring import random_table

NET = [
    LayerShape(name="a", kind="conv", in_channels=64, out_channels=64, kernel_size=3, input_size=(14, 14), padding=1),
    LayerShape(name="scores", kind="matmul", in_channels=64, out_channels=49, tokens=49, copies=8),
    LayerShape(name="b", kind="linear", in_channels=512, out_channels=100),
]


def test_scores_of_policies_are_those_of_runs():
    table = cost_table(NET, Stripes(), bits=(2, 3, 5, 8), activation_bits=8, batch=2)
    assert (table.names, table.bits, table.cycles.shape) == (("a", "b"), (2, 3, 5, 8), (2, 4))
    policies = [{"a": a, "b": b} for a in table.bits for b in table.bits]
    scores = table.score(
        table.policy_array(policies), objectives=("cycles", "energy_pj", "compute_cycles", "weight_bytes")
    )
    for policy, row in zip(policies, scores.to_dict("records"), strict=True):
        result = Stripes().run(NET, policy, 8, batch=2)
        assert row == pytest.approx({key: result.score[key] for key in row})
        assert table.score_one(policy) == pytest.approx(row)


def test_layers_that_share_a_name_share_their_bits():
    twice = [NET[0], dataclasses.replace(NET[0], input_size=(7, 7)), NET[2]]
    table = cost_table(twice, Stripes(), bits=(4,))
    assert table.names == ("a", "b")
    assert table.score([[4, 4]])["cycles"][0] == Stripes().run(twice, 4).cycles


def test_marginal_prices_and_plain_data():
    table = cost_table(NET, Stripes(), bits=range(1, 17))
    # 13 sets of windows, 4 steps of 16 channels, 9 taps, one cycle for each bit
    assert table.marginal("compute_cycles") == {"a": 13 * 36.0, "b": 2.0}
    assert table.marginal("compute_cycles", from_bits=3)["a"] == 13 * 36.0
    assert table.by_layer("weight_bytes")["b"][8] == 51_200.0
    assert set(table.by_layer()) == {"a", "b"}
    frame = table.to_frame()
    assert len(frame) == 2 * 16
    assert frame.loc[(frame["name"] == "b") & (frame["bits"] == 8), "weight_bytes"].item() == 51_200.0


@pytest.mark.slow
@settings(max_examples=20)
@given(st.integers(1, 4), st.sampled_from([(4,), (2, 8), (2, 3, 4, 5)]), st.integers(0, 999), st.booleans())
def test_its_plain_data_give_the_frontier_of_the_whole_space(layers, bits, seed, rounded):
    table = random_table(layers, bits, seed)
    loss = np.random.default_rng(seed + 1).random((layers, len(bits)))
    loss = np.round(4 * loss) if rounded else loss  # ties, which a frontier must not double
    front = pareto.additive_frontier(
        table.by_layer(), {name: dict(zip(bits, row, strict=True)) for name, row in zip(table.names, loss, strict=True)}
    )
    np.testing.assert_allclose(front[["cost", "loss"]], slow.frontier(loss, table.energy_pj), atol=1e-8)
    scores = table.score(front[list(table.names)].to_numpy())
    np.testing.assert_allclose(scores["energy_pj"], front["cost"] + table.fixed["energy_pj"])


def test_other_integers_than_uint8_are_accepted():
    table = cost_table(NET, Stripes())
    for kind in (np.int64, np.int8, np.uint16):
        assert table.score(np.array([[2, 8]], dtype=kind)).equals(table.score(np.array([[2, 8]], dtype=np.uint8)))
    columns = np.asfortranarray(np.array([[2, 8], [3, 4], [5, 6]], dtype=np.uint8))
    assert table.score(columns).equals(table.score(np.ascontiguousarray(columns)))


@pytest.mark.parametrize(
    ("policies", "error", "message"),
    [
        (
            [[2, 3, 4]],
            ValueError,
            "policies must have shape (N, 2), one column per layer of the table, but it has shape (1, 3)",
        ),
        ([2, 3], ValueError, "but it has shape (2,)"),
        ([[2.0, 3.0]], TypeError, "policies must be integers (uint8), but the array holds float64"),
        ([[2, 300]], ValueError, "row 0 of policies gives layer 'b' 300 bits, but the table has"),
        ([[2, -1]], ValueError, "row 0 of policies gives layer 'b' -1 bits"),
    ],
)
def test_bad_policies_are_named(policies, error, message):
    with pytest.raises(error, match=re.escape(message)):
        cost_table(NET, Stripes()).score(policies)


def test_bad_questions_are_named():
    table = cost_table(NET, Stripes())
    with pytest.raises(ValueError, match=r"objective must be one of .* but it is 'energy'; did you mean 'energy_pj'"):
        table.score([[2, 3]], objectives=["energy"])
    with pytest.raises(ValueError, match="from_bits=8 needs 9 bits in the table"):
        table.marginal(from_bits=8)
    with pytest.raises(ValueError, match="no price in a table of one column"):
        cost_table(NET, Stripes(), bits=(4,)).marginal()
    with pytest.raises(ValueError, match="bits must be from 1 to 16, but it is 17"):
        cost_table(NET, Stripes(), bits=range(2, 18))
    with pytest.raises(ValueError, match="it is empty"):
        cost_table(NET, Stripes(), bits=())
    with pytest.raises(ValueError, match="policy names 'c', which is no layer"):
        table.policy_array([{"a": 2, "b": 3, "c": 4}])
    with pytest.raises(ValueError, match="no layer of this workload has weights"):
        cost_table(NET[1:2], Stripes())
