"""The picture of learned bits, tested as data."""

from __future__ import annotations

import sys
from typing import Any

import pandas as pd
import pytest

import waveq
from tests.training import OPTIMIZERS, batches, mlp, train

HISTORY = pd.DataFrame(
    {
        "step": [0, 0, 10, 10, 20, 20, 30, 30],
        "phase": [1, 1, 2, 2, 2, 2, 3, 3],
        "layer": ["b", "a"] * 4,
        "beta": [7.0, 7.0, 6.5, 5.0, 4.0, 3.0, 3.5, 2.0],
    }
)


@pytest.mark.slow
def test_lines_are_total_bits_in_the_order_of_the_layers() -> None:
    axes: Any = waveq.plot_learning(HISTORY).axes[0]
    lines = {str(line.get_label()): list(line.get_ydata()) for line in axes.lines}
    assert list(lines) == ["b", "a"]
    assert lines == {"b": [8.0, 7.5, 5.0, 4.5], "a": [8.0, 6.0, 4.0, 3.0]}
    (shade,) = axes.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (10, 20)


@pytest.mark.slow
def test_many_layers_have_a_scale_of_depth_and_no_legend() -> None:
    names = [f"block{number}" for number in range(40)]
    rows = {
        "step": [0] * 40 + [9] * 40,
        "phase": 2,
        "layer": names * 2,
        "beta": [7.0] * 40 + [float(n) for n in range(40)],
    }
    figure = waveq.plot_learning(pd.DataFrame(rows))
    axes, scale = figure.axes
    assert len({line.get_color() for line in axes.lines}) == 40
    assert (axes.get_legend(), figure.legends) == (None, [])
    assert [label.get_text() for label in scale.get_yticklabels()] == ["1: block0", "40: block39"]


@pytest.mark.slow
def test_a_run_without_a_step_is_seen() -> None:
    (axes,) = waveq.plot_learning(HISTORY.iloc[:2]).axes
    assert [line.get_marker() for line in axes.lines] == ["o", "o"]
    assert list(axes.get_xticks()) == [0]


@pytest.mark.parametrize(
    ("history", "said"),
    [
        (HISTORY.drop(columns="beta"), "lacks the column 'beta'"),
        (HISTORY.iloc[:0], "no rows"),
        (pd.concat([HISTORY, HISTORY.iloc[2:3]]), "two rows for layer 'b' at step 10"),
    ],
)
def test_other_tables_are_refused(history: pd.DataFrame, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        waveq.plot_learning(history)


@pytest.mark.slow
def test_the_handle_draws_its_own() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=12)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(12))
    wq.finalize()
    lines: Any = wq.plot().axes[0].lines
    assert [line.get_label() for line in lines] == list(wq.names)
    assert [line.get_ydata()[-1] - 1.0 for line in lines] == pytest.approx(list(wq.betas().values()))


def test_without_matplotlib_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ModuleNotFoundError, match="pip install matplotlib"):
        waveq.plot_learning(HISTORY)
