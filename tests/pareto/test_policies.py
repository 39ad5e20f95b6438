"""The door for policies: what fits goes through as it is, whatever its type; anything else is named."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pareto import DesignSpace, fit_additive, measured_losses, run_campaign, score_policies, search
from pareto._policies import policy_rows
from pareto.store import Store

LAYERS = ("conv", "fc")
TABLE = {"conv": {2: 1.0, 4: 2.0}, "fc": {2: 10.0, 8: 40.0}}


@pytest.mark.parametrize(
    "policies",
    [
        [[2, 2], [4, 8]],
        np.array([[2, 2], [4, 8]], dtype=np.uint8),
        np.array([[2, 2], [4, 8]], dtype=object),
        np.array([[2.0, 2.0], [4.0, 8.0]]),
        np.ma.masked_array([[2, 2], [4, 8]], mask=False),
        pd.DataFrame({"fc": [2, 8], "conv": [2, 4]}),
        pd.DataFrame({"fc": pd.array([2, 8], dtype="Int64"), "conv": [2, 4]}),
    ],
)
def test_whole_numbers_of_any_type(policies):
    rows = policy_rows(policies, LAYERS)
    assert rows.dtype == np.uint8
    assert rows.tolist() == [[2, 2], [4, 8]]
    assert score_policies(policies, TABLE).tolist() == [11.0, 42.0]


@pytest.mark.parametrize(
    ("policies", "error", "words"),
    [
        ([[2, 258]], ValueError, "row 0 gives layer 'fc' 258 bits"),
        ([[2, 2], [-2, 2]], ValueError, "row 1 gives layer 'conv' -2 bits"),
        ([[2, 2.5]], ValueError, "row 0 gives layer 'fc' 2.5 bits"),
        ([[2, np.nan]], ValueError, "row 0 gives layer 'fc' nan bits"),
        ([[2, np.inf]], ValueError, "row 0 gives layer 'fc' inf bits"),
        (np.array([[2, None]], dtype=object), ValueError, "row 0 gives layer 'fc' None bits"),
        (np.array([[2, True]], dtype=object), ValueError, "row 0 gives layer 'fc' True bits"),
        (np.array([[2, float("inf")]], dtype=object), ValueError, "row 0 gives layer 'fc' inf bits"),
        (np.ma.masked_array([[2, 2]], mask=[[False, True]]), ValueError, "row 0 is masked in layer 'fc'"),
        (np.array([[2 + 1j, 2]]), TypeError, "dtype is complex128"),
        (np.array([[True, False]]), TypeError, "dtype is bool"),
        ([["2", "2"]], TypeError, "dtype is <U1"),
        ([2, 2], ValueError, r"shape \(n, 2\), got \(2,\)"),
        (pd.DataFrame({"conv": [2], "fcc": [2]}), ValueError, "column 'fcc', which is no layer; did you mean 'fc'"),
        (pd.DataFrame({"conv": [2]}), ValueError, "no column for layer 'fc'"),
    ],
)
def test_what_is_no_policy_is_named(policies, error, words):
    with pytest.raises(error, match=words):
        score_policies(policies, TABLE)


def test_every_public_call_has_the_same_door(tmp_path):
    space, wrong = DesignSpace({"conv": (2, 4), "fc": (2, 8)}), [[2, 258]]
    with Store(tmp_path / "run.sqlite", layers=LAYERS, fingerprint={}) as store:
        calls = [
            lambda: space.frame(wrong),
            lambda: store.add(wrong, [1.0]),
            lambda: store.known(wrong),
            lambda: run_campaign(wrong, len, store, engine="serial", progress=False),
            lambda: search(space, len, include=wrong, store=store, progress=False),
            lambda: measured_losses({"conv": 2, "fc": 258}, len, space),
            lambda: fit_additive(pd.DataFrame({"conv": [2], "fc": [258], "accuracy": [1.0]}), LAYERS, "accuracy"),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="gives layer 'fc' 258 bits; bit widths are whole numbers"):
                call()


def test_widths_of_a_table_are_whole():
    with pytest.raises(ValueError, match=r"2\.7 is not a bit width"):
        score_policies([[2, 2]], {"conv": {2.7: 1.0}, "fc": {2: 1.0}})
