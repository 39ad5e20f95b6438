"""Tables of policies from outside: read whatever parts their cells, and refused with file and row."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from pareto import Store
from waveq.cli.app import main
from waveq.codesign.space import read_table
from waveq.policy import Policy

GOOD = pd.DataFrame({"conv": [2, 4], "fc": [3, 8], "accuracy": [80.5, 91.25], "energy_pj": [1.5, 2.0]})
POLICY = Policy({"conv": 2, "fc": 3})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.csv", {}),
        ("b.csv", {"sep": ";", "decimal": ","}),
        ("c.csv", {"sep": ";"}),
        ("d.csv", {"sep": "\t"}),
        ("e.tsv", {"sep": "\t", "decimal": ","}),
    ],
)
def test_separators_and_decimals_are_found(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    GOOD.to_csv(tmp_path / name, index=False, **options)  # type: ignore[call-overload]
    pd.testing.assert_frame_equal(read_table(tmp_path / name, policy=POLICY), GOOD)


def test_parquet_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    GOOD.to_parquet(tmp_path / "a.parquet", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.parquet", policy=POLICY), GOOD)
    (tmp_path / "b.parquet").write_text("conv,fc")
    with pytest.raises(ValueError, match=r"b\.parquet is no Parquet file"):
        read_table(tmp_path / "b.parquet")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("conv", 258, "conv is 258 in row 2 \\(line 3 of a CSV file\\); bits are whole numbers from 1 to 32"),
        ("conv", 2.5, "conv is 2.5 in row 2"),
        ("fc", None, "fc is empty in row 2"),
        ("accuracy", 100.5, "accuracy is 100.5 in row 2 .*; accuracies are percent, from 0 to 100"),
        ("accuracy", -1.0, "accuracy is -1.0 in row 2"),
        ("accuracy", None, "accuracy is empty in row 2"),
        ("energy_pj", float("inf"), "energy_pj is inf in row 2 .*; a finite number is expected"),
        ("energy_pj", "dear", "energy_pj is 'dear' in row 2"),
    ],
)
def test_a_cell_that_cannot_be_is_named_with_file_and_row(
    tmp_path: Path, column: str, value: object, words: str
) -> None:
    frame = GOOD.astype({column: object})
    frame.loc[1, column] = value
    frame.to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(ValueError, match=rf"bad\.csv: {words}"):
        read_table(tmp_path / "bad.csv", policy=POLICY)


def test_policies_and_columns_are_there_once(tmp_path: Path) -> None:
    pd.concat([GOOD, GOOD.iloc[:1]]).to_csv(tmp_path / "twice.csv", index=False)
    with pytest.raises(ValueError, match=r"twice\.csv: row 3 .* has a policy for the second time: \{'conv': 2, "):
        read_table(tmp_path / "twice.csv", policy=POLICY)
    (tmp_path / "column.csv").write_text("conv;conv;accuracy\n2;3;80,5\n")
    with pytest.raises(ValueError, match="column 'conv' is given twice"):
        read_table(tmp_path / "column.csv")
    (tmp_path / "empty.csv").write_text("conv,accuracy\n")
    with pytest.raises(ValueError, match=r"empty\.csv: no policy is in it"):
        read_table(tmp_path / "empty.csv")


def test_the_frontier_of_a_campaign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.sqlite"
    with Store(path, layers=["conv", "fc"], fingerprint={"seed": 0}) as store:
        store.add([[2, 3], [4, 4], [8, 8]], [80.0, 91.0, 90.0])
    assert main(["frontier", str(path), "--out", str(tmp_path / "out")]) == 0
    with pytest.raises(ValueError, match="the column 'energy_pj' is missing"):
        read_table(path, numbers=("accuracy", "energy_pj"))
    front = pd.read_csv(tmp_path / "out" / "frontier.csv")
    assert front[["accuracy", "mean_bits"]].to_numpy().tolist() == [[80.0, 2.5], [91.0, 4.0]]
    assert "2 of 3 policies are efficient" in capsys.readouterr().out
    assert main(["frontier", str(path), "--sense", "accuracy=maximize,mean_bits=min"]) == 2
    assert "did you mean 'max'?" in capsys.readouterr().err
