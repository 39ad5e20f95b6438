"""Figures 4 and 5 with matplotlib. Drawing only: what is drawn comes from `plot_data` and `sensitivity`.

Colours are Okabe and Ito's (colour-blind safe); every kind of point has its own shape besides, so that the
pictures survive a black-and-white printer. matplotlib is imported inside the functions and no global state of
it is touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from pareto._check import nearest
from pareto.plotdata import plot_data

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["AXIS_WORDS", "COLOURS", "MARKERS", "axis_label", "plot", "plot_sensitivity", "step_line"]

COLOURS = {
    "front": "#D55E00",  # vermillion
    "mark": "#0072B2",  # blue
    "uniform": "#000000",
    "budget": "#009E73",  # bluish green
    "policy": "#8C8C8C",
}
MARK_COLOURS = ("#0072B2", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("*", "D", "P", "X", "v", "^")
AXIS_WORDS = {
    "accuracy": "Accuracy (%)",
    "energy_pj": "Energy (pJ)",
    "cycles": "Cycles",
    "weight_bytes": "Weights (bytes)",
    "mean_bits": "Mean weight bits",
    "weight_bits": "Weight bits, all layers",
    "membership": "Efficient in (share of draws)",
}
_PAGE_INCHES = 10.0  # a page on its side
_DENSITY_FROM = 1500  # policies from which single dots would cover each other


def axis_label(column: str) -> str:
    """Words for a column: known metrics with their unit, others as they are.

    >>> axis_label("energy_pj"), axis_label("latency_ms")
    ('Energy (pJ)', 'latency_ms')
    """
    return AXIS_WORDS.get(str(column), str(column))


def plot(
    frame: pd.DataFrame,
    front: pd.DataFrame,
    *,
    mark: Mapping[str, Mapping[str, Any]] | None = None,
    budgets: Sequence[float] = (),
    sense: Mapping[str, str] | None = None,
    x: str | None = None,
    y: str | None = None,
    layers: Sequence[str] | None = None,
    title: str | None = None,
    band: pd.DataFrame | None = None,
) -> Figure:
    """Draw the design space, its frontier, marked and uniform policies and budgets (figure 4).

    Few policies are dots; from 1,500 on they become a density of hexagons, so that thousands do not cover
    each other. Arguments and errors are those of `plot_data`; `title` is written above; `band` (columns x, low and
    high, from `frontier_certainty`) is drawn under the frontier. The figure is not shown: call
    ``.savefig("frontier.png")`` (or .svg, .pdf).

    >>> from pareto import frontier
    >>> frame = pd.DataFrame({"accuracy": [70, 90, 91, 60], "energy_pj": [4, 5, 6, 7]})
    >>> front = frontier(frame, sense={"accuracy": "max", "energy_pj": "min"})
    >>> figure = plot(frame, front, mark={"ours": {"accuracy": 90, "energy_pj": 5}})
    >>> figure.axes[0].get_ylabel()
    'Accuracy (%)'
    """
    data = plot_data(frame, front, mark=mark, budgets=budgets, sense=sense, x=x, y=y, layers=layers)
    figure, axes = _figure()
    _draw_policies(axes, data[data["kind"] == "policy"])
    if band is not None:
        axes.fill_between(
            band["x"],
            band["low"],
            band["high"],
            step="post",
            color=COLOURS["front"],
            alpha=0.25,
            linewidth=0,
            zorder=3,
            label="frontier on many images (90 %)",
        )
    _draw_front(
        axes,
        data[data["kind"] == "front"],
        data.attrs["sense"][data.attrs["x"]],
        staircase=len(data.attrs["sense"]) == 2,
    )
    _draw_uniform(axes, data[data["kind"] == "uniform"])
    _draw_budgets(axes, data)
    for number, point in enumerate(_points(data, "mark")):
        axes.plot(
            [point.x],
            [point.y],
            MARKERS[number % len(MARKERS)],
            color=MARK_COLOURS[number % len(MARK_COLOURS)],
            markersize=15 if number % len(MARKERS) == 0 else 10,
            markeredgecolor="black",
            markeredgewidth=0.9,
            zorder=7,
            label=f"{point.label}{'' if point.efficient else ' (not on the frontier)'}",
        )
    axes.set_xlabel(axis_label(data.attrs["x"]))
    axes.set_ylabel(axis_label(data.attrs["y"]))
    if title is not None:
        axes.set_title(title)
    axes.legend(loc="best", frameon=True, framealpha=0.92, fontsize=9)
    return figure


def step_line(front: pd.DataFrame, sense_x: str) -> tuple[list[float], list[float]]:
    """Corners of the staircase through front points sorted by x: what is attainable between two of them.

    >>> step_line(pd.DataFrame({"x": [1.0, 3.0], "y": [5.0, 9.0]}), "min")
    ([1.0, 3.0, 3.0], [5.0, 5.0, 9.0])
    """
    xs, ys = front["x"].tolist(), front["y"].tolist()
    line_x, line_y = xs[:1], ys[:1]
    for before, after in zip(range(len(xs) - 1), range(1, len(xs)), strict=True):
        # Where x is a cost, paying more than point 1 but less than point 2 still buys only point 1.
        corner = (xs[after], ys[before]) if sense_x == "min" else (xs[before], ys[after])
        line_x += [corner[0], xs[after]]
        line_y += [corner[1], ys[after]]
    return line_x, line_y


def plot_sensitivity(table: pd.DataFrame, *, title: str | None = None, unit: str = "points of accuracy") -> Figure:
    """Bars of the change that each layer's step makes, with its standard error and the mean (figure 5).

    Args:
        table: result of `sensitivity`.
        title: written above.
        unit: what a change is counted in.

    Raises ValueError for a table that lacks a column, or has no row.

    >>> from pareto import sensitivity
    >>> table = sensitivity({"conv": 4, "fc": 2}, lambda policies: policies @ [10.0, 1.0])
    >>> len(plot_sensitivity(table).axes[0].patches)
    2
    """
    for name in ("layer", "step", "bits", "changed_bits", "change", "standard_error"):
        if name not in table.columns:
            raise ValueError(f"table lacks column {name!r}{nearest(name, table.columns)}")
    if table.empty:
        raise ValueError("table has no row: every change would leave the range of bits")
    names = list(dict.fromkeys(table["layer"]))
    steps = sorted(table["step"].unique())
    figure, axes = _figure(width=min(max(6.4, 0.34 * len(names) * len(steps) + 2.0), _PAGE_INCHES))
    place = {name: number for number, name in enumerate(names)}
    width = 0.8 / len(steps)
    for number, step in enumerate(steps):
        rows = table[table["step"] == step]
        colour = (COLOURS["mark"], MARK_COLOURS[2], MARK_COLOURS[1], COLOURS["budget"])[number % 4]
        at = np.array([place[name] for name in rows["layer"]]) + (number - (len(steps) - 1) / 2) * width
        errors = rows["standard_error"].to_numpy(dtype=float)
        axes.bar(
            at,
            rows["change"],
            width=width,
            color=colour,
            edgecolor="black",
            linewidth=0.6,
            hatch=("", "//", "..", "xx")[number % 4],
            label=_step_words(int(step)),
            yerr=None if np.isnan(errors).all() else errors,
            capsize=2.5,
            error_kw={"linewidth": 1.0},
        )
        mean = float(rows["change"].mean())
        axes.axhline(mean, color=colour, linestyle=(0, (5, 3)), linewidth=1.2, label=f"mean {mean:+.2f}")
    axes.axhline(0.0, color="black", linewidth=0.8)
    bits = dict(zip(table["layer"], table["bits"], strict=True))
    axes.set_xticks(
        range(len(names)),
        [f"{name} ({bits[name]})" for name in names],
        rotation=90 if len(names) > 6 else 0,
        fontsize=6 if len(names) > 30 else None,
    )
    axes.set_xlabel("Layer (its bits)")
    axes.set_ylabel(f"Change, {unit}")
    if title is not None:
        axes.set_title(title)
    axes.legend(fontsize=9, framealpha=0.92)
    return figure


class _Point(NamedTuple):
    label: str
    x: float
    y: float
    efficient: bool


def _points(data: pd.DataFrame, kind: str) -> list[_Point]:
    """Rows of one kind with their types back, which DataFrame.itertuples() loses."""
    rows = data[data["kind"] == kind]
    return [
        _Point(str(label), float(x), float(y), bool(efficient))
        for label, x, y, efficient in zip(rows["label"], rows["x"], rows["y"], rows["efficient"], strict=True)
    ]


def _step_words(step: int) -> str:
    return f"{abs(step)} bit{'s' if abs(step) > 1 else ''} {'less' if step < 0 else 'more'}"


def _figure(width: float = 6.4) -> tuple[Figure, Axes]:
    # Figure() instead of pyplot: no window, no global list that keeps every picture of a long run alive.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _draw_policies(axes: Axes, points: pd.DataFrame) -> None:
    if len(points) < _DENSITY_FROM:
        axes.plot(
            points["x"],
            points["y"],
            "o",
            color=COLOURS["policy"],
            markersize=3.5,
            markeredgewidth=0,
            alpha=0.6,
            zorder=2,
            label=f"{len(points):,} policies",
        )
        return
    # Counts differ by orders of magnitude between the middle and the rim: a linear scale would hide the rim.
    finite = points[
        np.isfinite(points[["x", "y"]]).all(axis=1)
    ]  # one infinite policy would leave no cell for the others
    cells = axes.hexbin(
        finite["x"],
        finite["y"],
        gridsize=55,
        bins="log",
        mincnt=1,
        cmap="Greys",
        vmin=0.4,
        linewidths=0.2,
        zorder=2,
    )
    # A collection's legend entry would show no colour: a hexagon in the grey of a full cell stands for it.
    axes.plot([], [], "h", color="0.35", markersize=8, label=f"{len(points):,} policies")
    axes.figure.colorbar(cells, ax=axes, label="Policies per cell", shrink=0.8, pad=0.02)


def _draw_front(axes: Axes, front: pd.DataFrame, sense_x: str, *, staircase: bool) -> None:
    if staircase:  # with three objectives the drawn two do not form a line
        line_x, line_y = step_line(front, sense_x)
        axes.plot(line_x, line_y, color=COLOURS["front"], linewidth=1.6, zorder=4)
    axes.plot(
        front["x"],
        front["y"],
        "o",
        color=COLOURS["front"],
        markersize=4.5 if len(front) < 200 else 2.0,
        markeredgecolor="white",
        markeredgewidth=0.4,
        zorder=5,
        label=f"frontier ({len(front):,})",
    )


def _draw_uniform(axes: Axes, points: pd.DataFrame) -> None:
    from matplotlib.patheffects import withStroke

    if points.empty:
        return
    axes.plot(
        points["x"],
        points["y"],
        "s",
        markerfacecolor="white",
        markeredgecolor=COLOURS["uniform"],
        markersize=6,
        zorder=6,
        linestyle="none",
        label="uniform",
    )
    for point in _points(points, "uniform"):
        axes.annotate(
            str(point.label).split()[0],
            (point.x, point.y),
            xytext=(6, -9),
            textcoords="offset points",
            fontsize=8,
            zorder=8,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],  # readable on dark cells
        )


def _draw_budgets(axes: Axes, data: pd.DataFrame) -> None:
    for line in _points(data, "budget"):
        axes.axvline(line.x, color=COLOURS["budget"], linestyle="--", linewidth=1.1, zorder=3)
    best = data[data["kind"] == "budget best"]
    if not best.empty:
        axes.plot(
            best["x"],
            best["y"],
            "o",
            markerfacecolor="none",
            markeredgecolor=COLOURS["budget"],
            markeredgewidth=1.6,
            markersize=11,
            zorder=6,
            label="best within budget",
        )
