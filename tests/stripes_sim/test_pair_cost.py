from __future__ import annotations

import re

import numpy as np
import pytest

from stripes_sim import LayerShape, Loom, Stripes, cost_table
from tests.stripes_sim.test_cost import NET

KEYS = ("cycles", "energy_pj", "compute_cycles", "weight_bytes")


@pytest.mark.parametrize("machine", [Stripes(), Loom()])
def test_scores_of_pairs_are_those_of_runs(machine):
    table = cost_table(NET, machine, bits=(2, 3, 8), activation_bits=(4, 16), batch=2)
    assert (table.names, table.bits, table.activation_bits, table.cycles.shape) == (
        ("a", "b"),
        (2, 3, 8),
        (4, 16),
        (2, 3, 2),
    )
    weights = [[w, v] for w in table.bits for v in table.bits for _ in range(4)]
    inputs = [[p, q] for _ in range(9) for p in (4, 16) for q in (4, 16)]
    scores = table.score(weights, inputs, objectives=KEYS)
    for (w, v), (p, q), row in zip(weights, inputs, scores.to_dict("records"), strict=True):
        result = machine.run(NET, {"a": w, "b": v}, {"a": p, "b": q}, batch=2)
        assert row == pytest.approx({key: result.score[key] for key in row})


def test_a_column_is_the_table_of_these_bits():
    pairs = cost_table(NET, Stripes(), bits=(2, 8), activation_bits=range(2, 5))
    alone = cost_table(NET, Stripes(), bits=(2, 8), activation_bits={"a": 3, "b": 3})
    for key in KEYS:
        np.testing.assert_array_equal(getattr(pairs, key)[:, :, 1], getattr(alone, key))
    assert pairs.fixed == alone.fixed


def test_plain_data_and_long_form():
    table = cost_table(NET, Loom(), bits=(2, 8), activation_bits=(2, 4))
    assert table.by_layer("cycles")["b"][8][4] == table.cycles[1, 1, 1]
    frame = table.to_frame()
    assert list(frame.columns) == [
        "name",
        "bits",
        "activation_bits",
        "cycles",
        "energy_pj",
        "compute_cycles",
        "weight_bytes",
    ]
    assert frame.loc[3].tolist()[:3] == ["a", 8, 4]
    assert frame.loc[3, "cycles"] == table.cycles[0, 1, 1]


def test_more_bits_never_cost_less():
    fc = [LayerShape(name="fc", kind="linear", in_channels=300, out_channels=77)]
    for machine in (Stripes(), Loom()):
        table = cost_table(fc, machine, bits=range(2, 9), activation_bits=range(2, 9))
        for axis in (1, 2):
            assert (np.diff(table.energy_pj, axis=axis) >= 0).all()


@pytest.mark.parametrize(
    ("policies", "inputs", "message"),
    [
        ([[2, 2]], [[2]], "inputs must have shape (N, 2), one column per layer of the table, but it has shape (1, 1)"),
        ([[2, 2]], [[2, 3]], "row 0 of inputs gives layer 'b' 3 bits, but the table has (2, 4)"),
        ([[2, 9]], [[2, 4]], "row 0 of policies gives layer 'b' 9 bits, but the table has (2, 8)"),
        ([[2, 2]], [[2, 4]] * 2, "policies and inputs must have as many rows, but they have 1 and 2"),
    ],
)
def test_what_is_not_in_the_table(policies, inputs, message):
    table = cost_table(NET, Loom(), bits=(2, 8), activation_bits=(2, 4))
    with pytest.raises(ValueError, match=re.escape(message)):
        table.score(policies, inputs)
    with pytest.raises(ValueError, match="objective must be one of"):
        table.by_layer("joules")


def test_an_empty_axis():
    with pytest.raises(ValueError, match="activation_bits must name at least one number"):
        cost_table(NET, Loom(), activation_bits=())
