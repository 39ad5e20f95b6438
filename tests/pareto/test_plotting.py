from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from pareto import DesignSpace, frontier, plot, plot_sensitivity, sensitivity
from pareto.plotting import step_line

SENSE = {"accuracy": "max", "energy_pj": "min"}


def space_frame(layers):
    space = DesignSpace({f"conv{i}": (2, 3, 4, 5, 8) for i in range(layers)})
    bits = space.policies().astype(float)
    return space.frame(accuracy=90 - 300 * (2.0 ** (-2 * bits)).sum(axis=1), energy_pj=bits.sum(axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("layers", [2, 5])  # dots, and from 1,500 policies on a density
def test_pictures_are_written(layers, tmp_path):
    frame = space_frame(layers)
    front = frontier(frame, sense=SENSE)
    policy = {f"conv{i}": 4 for i in range(layers)}
    figure = plot(frame, front, mark={"WaveQ": policy}, budgets=[2.5 * layers], title="toy")
    for kind in ("png", "svg"):
        target = tmp_path / f"front.{kind}"
        figure.savefig(target)
        assert target.stat().st_size > 10_000
    axes = figure.axes[0]
    assert axes.get_xlabel() == "Energy (pJ)"
    drawn = {line.get_label(): line for line in axes.lines}
    np.testing.assert_array_equal(drawn[f"frontier ({len(front):,})"].get_xdata(), front["energy_pj"])
    assert "uniform" in drawn
    assert any(str(label).startswith("WaveQ") for label in drawn)
    assert bool(axes.collections) == (layers == 5)


@pytest.mark.slow
def test_an_infinite_policy_leaves_the_density_of_the_others():
    frame = space_frame(5)
    frame.loc[7, "accuracy"] = -np.inf
    figure = plot(frame, frontier(frame, sense=SENSE))
    assert figure.axes[0].collections[0].get_array().sum() == len(frame) - 1


@pytest.mark.slow
def test_sensitivity_of_54_layers_fits_on_a_page():
    policy = {f"layer{number}": 4 for number in range(54)}
    figure = plot_sensitivity(sensitivity(policy, lambda rows: rows.sum(axis=1) * 1.0, steps=(-1, 1)))
    assert figure.get_figwidth() <= 10
    assert len(figure.axes[0].get_xticklabels()) == 54


def test_the_staircase_never_promises_what_no_policy_reaches():
    front = pd.DataFrame({"x": [1.0, 2.0, 4.0], "y": [50.0, 80.0, 90.0]})
    xs, ys = step_line(front, "min")
    assert (xs, ys) == ([1.0, 2.0, 2.0, 4.0, 4.0], [50.0, 50.0, 80.0, 80.0, 90.0])
    xs, ys = step_line(pd.DataFrame({"x": [1.0, 2.0], "y": [9.0, 5.0]}), "max")
    assert (xs, ys) == ([1.0, 1.0, 2.0], [9.0, 5.0, 5.0])


def test_bars_equal_the_table():
    table = sensitivity({"a": 4, "b": 3}, lambda p: np.outer(p @ [1.0, 2.0], [1.0, 1.1]), steps=(-1, 1))
    figure = plot_sensitivity(table, title="one bit")
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    np.testing.assert_allclose(heights, table["change"])
    with pytest.raises(ValueError, match="table lacks column 'change'; did you mean 'chang'"):
        plot_sensitivity(table.rename(columns={"change": "chang"}))
    with pytest.raises(ValueError, match="table has no row"):
        plot_sensitivity(table.iloc[:0])
