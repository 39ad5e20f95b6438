from __future__ import annotations

import argparse
import json
import math

import pandas as pd
import pytest

from benchmarks.lab.tables import as_rows, mean_and_error, pivot, save_table, with_error

ROWS = pd.DataFrame(
    [
        {"network": network, "seed": seed, "method": method, "test": test}
        for network, seed, method, test in (
            ("b", 0, "wave", 81.0),
            ("b", 0, "alone", 80.0),
            ("b", 1, "wave", 85.0),
            ("b", 1, "alone", 82.0),
            ("a", 0, "wave", 50.0),
        )
    ]
)


def test_mean_and_standard_error_by_hand():
    mean, error = mean_and_error([2.0, 4.0, 9.0])  # deviations -3, -1, 4: variance 13
    assert mean == 5.0
    assert error == pytest.approx(math.sqrt(13.0 / 3.0))
    assert with_error([2.0, 4.0, 9.0]) == "5.00 (2.08)"


def test_one_value_has_no_standard_error():
    assert math.isnan(mean_and_error([3.0])[1])
    assert with_error([3.0], digits=1) == "3.0"


def test_rows_hold_the_label_the_bits_and_what_was_reached():
    result = {"bits": {"a": 2, "b": 4}, "seconds": 1.0, "warnings": [], "validation_before_rounding": 1.0}
    reached = {"test": 80.0, "validation": 81.0, "mean_bits": 3.0, "energy_pj": 5.0, "cycles": 7.0, "diverged": False}
    row = as_rows([{"seed": 3}], [result | reached]).iloc[0].to_dict()
    assert row == {"seed": 3, "policy": "2 4", **reached}


def test_a_pivot_keeps_the_order_of_appearance_and_leaves_gaps():
    table = pivot(ROWS, ["network"], "method")
    assert list(table.index) == ["b", "a"]
    assert list(table.columns) == ["wave", "alone"]
    assert table.loc["b", "alone"] == "81.00 (1.00)"
    assert table.loc["a", "wave"] == "50.00"
    assert pd.isna(table.loc["a", "alone"])


def test_a_table_is_written_with_its_rows_and_without_folders(tmp_path, capsys):
    args = argparse.Namespace(seeds=[0, 1], out=tmp_path / "new", folder=tmp_path, data_dir=None, processes=1)
    save_table("name", pivot(ROWS, ["network"], "method"), ROWS, args, fact="seen")
    assert "81.00 (1.00)" in capsys.readouterr().out
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new" / "name.csv"), ROWS)
    written = json.loads((tmp_path / "new" / "name.json").read_text())
    assert written["arguments"] == {"seeds": [0, 1]}
    assert written["fact"] == "seen"
    assert written["table"]["columns"] == ["network", "wave", "alone"]
    assert written["table"]["lines"][-1] == ["a", "50.00", "-"]
    rows = pd.DataFrame(written["rows"]["lines"], columns=written["rows"]["columns"])
    pd.testing.assert_frame_equal(rows, ROWS)
    assert "versions" in written["provenance"]
