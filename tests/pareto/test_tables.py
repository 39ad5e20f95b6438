from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pareto import DesignSpace, as_table, enumerate_costs, score_policies
from tests import reference_pareto as slow

CHOICES = {"conv": (2, 4), "fc1": (3, 2, 8), "fc2": (5,)}
GENERATOR = np.random.default_rng(7)
TABLE = {name: {bits: float(GENERATOR.random()) for bits in range(2, 9)} for name in CHOICES}


def test_sums_equal_the_slow_twin():
    frame = enumerate_costs(DesignSpace(CHOICES), {"energy_pj": TABLE})
    expected = slow.brute_force_frame([TABLE], CHOICES)
    assert frame[list(CHOICES)].to_numpy().tolist() == [list(policy) for policy, _ in expected]
    np.testing.assert_allclose(frame["energy_pj"], [sums[0] for _, sums in expected], rtol=1e-14)
    assert (frame[list(CHOICES)].dtypes == np.uint8).all()


def test_all_forms_of_a_table_agree():
    frame = pd.DataFrame(TABLE).T
    array = frame.to_numpy()
    policies = DesignSpace(CHOICES).policies()
    expected = score_policies(policies, TABLE)
    np.testing.assert_array_equal(score_policies(policies, frame), expected)
    np.testing.assert_array_equal(score_policies(policies, array, bits=range(2, 9)), expected)
    strings = frame.rename(columns=str)  # what comes back from CSV
    np.testing.assert_array_equal(score_policies(policies, strings), expected)


def test_layers_may_come_in_another_order():
    shuffled = {name: TABLE[name] for name in reversed(TABLE)}
    space = DesignSpace(CHOICES)
    left, right = enumerate_costs(space, {"cycles": TABLE}), enumerate_costs(space, {"cycles": shuffled})
    pd.testing.assert_frame_equal(left, right)


def test_what_is_missing_is_named():
    space = DesignSpace(CHOICES)
    with pytest.raises(ValueError, match=r"costs\['cycles'\] lacks layer 'fc2'"):
        enumerate_costs(space, {"cycles": {name: TABLE[name] for name in ("conv", "fc1")}})
    with pytest.raises(ValueError, match="no value for layer 'fc2' at 5 bits; it has \\[2\\]"):
        enumerate_costs(space, {"cycles": TABLE | {"fc2": {2: 1.0}}})
    with pytest.raises(ValueError, match="row 1 gives layer 'fc2' 9 bits"):
        score_policies([[2, 2, 2], [2, 2, 9]], TABLE)
    with pytest.raises(ValueError, match="say which bit widths its 7 columns are"):
        as_table(np.zeros((3, 7)))
    with pytest.raises(ValueError, match="layer 'a' at 3 bits is nan"):
        as_table({"a": {2: 1.0, 3: float("nan")}}, argument="cost_table")
    with pytest.raises(ValueError, match="'bits' is not a bit width"):
        as_table({"a": {"bits": 1.0}})
