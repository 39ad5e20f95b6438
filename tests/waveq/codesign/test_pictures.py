"""Pictures: what they draw, tested as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from waveq.codesign.pictures import frontier_figure, learning_data, save_figure, save_learning

TABLE = pd.DataFrame({"a": [2, 3, 4], "accuracy": [80.0, 90.0, 85.0], "energy_pj": [1e6, 2e6, 3e6]})
SENSE = {"accuracy": "max", "energy_pj": "min"}


def line(figure: Any, label: str) -> list[tuple[float, float]]:
    (found,) = [line for line in figure.axes[0].lines if str(line.get_label()).startswith(label)]
    return list(zip(map(float, found.get_xdata()), map(float, found.get_ydata()), strict=True))


def test_frontier_is_drawn_in_microjoule() -> None:
    figure = frontier_figure(TABLE, sense=SENSE, mark={"ours": {"a": 4}}, budgets=[2.5e6], layers=["a"])
    assert figure.axes[0].get_xlabel() == "Energy (µJ)"
    assert line(figure, "frontier") == [(1.0, 80.0), (2.0, 90.0)]
    assert line(figure, "ours (not on the frontier)") == [(3.0, 85.0)]
    assert line(figure, "best within budget") == [(2.0, 90.0)]


def test_other_objectives_keep_their_units() -> None:
    table = TABLE.rename(columns={"energy_pj": "cycles"})
    figure = frontier_figure(table, sense={"accuracy": "max", "cycles": "min"}, mark={}, budgets=[2e6], layers=["a"])
    assert figure.axes[0].get_xlabel() == "Cycles"
    assert line(figure, "best within budget") == [(2e6, 90.0)]


@pytest.mark.slow
def test_learning_data_are_total_bits_by_step(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("step,phase,beta/conv1,beta/fc\n10,1,7,7\n20,2,6.5,3\n20,2,6.5,3\n30,3,6,2.25\n40,3,,\n")
    data = learning_data(metrics)
    assert data.index.tolist() == [10, 20, 30]
    assert data["conv1"].tolist() == [8.0, 7.5, 7.0]
    assert data["fc"].tolist() == [8.0, 4.0, 3.25]
    assert save_learning(metrics, tmp_path / "learning.png")


@pytest.mark.slow
def test_lines_of_twenty_layers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("waveq.codesign.pictures.save_figure", lambda figure, path: drawn.append(figure))
    names = [f"layer{number}" for number in range(20)]
    columns = {f"beta/{name}": [7.0, 3.0] for name in names}
    pd.DataFrame({"step": [1, 2], "phase": [1, 1], **columns}).to_csv(tmp_path / "metrics.csv", index=False)
    assert save_learning(tmp_path / "metrics.csv", tmp_path / "learning.png")
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == names


def test_nothing_learned_draws_nothing(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("step,phase,beta/conv1\n")
    assert not save_learning(metrics, tmp_path / "learning.png")
    assert not (tmp_path / "learning.png").exists()


@pytest.mark.slow
def test_figures_replace_files_whole(tmp_path: Path) -> None:
    figure = frontier_figure(TABLE, sense=SENSE, mark={}, layers=["a"])
    for name in ("one.png", "two.png"):
        save_figure(figure, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.png", "two.png"]
    with pytest.raises(ValueError, match="xyz"):
        save_figure(figure, tmp_path / "three.xyz")
