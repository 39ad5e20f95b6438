"""Metrics that survive an interruption, and silence that ends."""

from __future__ import annotations

import csv
import logging
import warnings
from pathlib import Path

import pytest

from waveq.train.logs import MetricsCsv, quiet_lightning


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_behind_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    first = MetricsCsv(path, ("loss", "bits"), from_step=0)
    for step in (2, 4, 6):
        first.log_metrics({"loss": 1 / step, "bits": 8.0}, step)
    # and then the power fails
    with path.open("a") as file:
        file.write("8,0.")
    second = MetricsCsv(path, ("loss", "bits"), from_step=4)
    second.log_metrics({"loss": 0.125}, 6)
    assert [(row["step"], row["loss"], row["bits"]) for row in rows(path)] == [
        ("2", "0.5", "8"),
        ("4", "0.25", "8"),
        ("6", "0.125", ""),
    ]


def test_a_new_stage_begins_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n2,1.0\n")
    MetricsCsv(path, ("loss",), from_step=0)
    assert rows(path) == []


def test_what_is_not_finite_is_written_as_it_is(tmp_path: Path) -> None:
    log = MetricsCsv(tmp_path / "m.csv", ("loss",), from_step=0)
    log.log_metrics({"loss": float("nan"), "unknown": 1.0}, 1)
    assert rows(tmp_path / "m.csv") == [{"step": "1", "loss": "nan"}]


def test_other_warnings_are_still_shown() -> None:
    chatty = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = chatty.level
    with quiet_lightning():
        assert chatty.level == logging.WARNING
        warnings.warn("The number of training batches (5) is smaller than the logging interval", stacklevel=1)
        with pytest.warns(UserWarning, match="something new"):
            warnings.warn("something new", stacklevel=1)
    assert chatty.level == before
