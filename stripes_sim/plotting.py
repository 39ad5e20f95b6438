"""Pictures: energy by part, and explored machines. Both return a matplotlib figure and show nothing.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; hatches and markers help in print.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stripes_sim.bits import nearest
from stripes_sim.costs import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

    from stripes_sim.result import Result

__all__ = ["breakdown_data", "plot_breakdown", "plot_exploration"]

_COLOURS = ("#0072B2", "#E69F00", "#56B4E9", "#D55E00", "#999999")
_HATCHES = ("", "//", "..", "xx", "\\\\")
_MARKERS = "osD^vPX*"


def breakdown_data(results: Result | Mapping[str, Result]) -> pd.DataFrame:
    """What `plot_breakdown` draws: a row per layer (one result) or per label (several), a column per part, in uJ."""
    if isinstance(results, Mapping):
        rows = {label: result.breakdown_pj for label, result in results.items()}
        return pd.DataFrame.from_dict(rows, orient="index")[list(PARTS)] / 1e6
    frame = results.frame.set_index("name")[[f"{part}_pj" for part in PARTS]] / 1e6
    return frame.set_axis(list(PARTS), axis="columns")


def plot_breakdown(results: Result | Mapping[str, Result], *, title: str | None = None) -> Figure:
    """Stacked bars of energy by part: one bar per layer, or per run where a mapping label -> result is given.

    Args:
        results: one run, or several by label (a policy beside its baselines).
        title: default names the machine and bits.

    Returns:
        A matplotlib figure; ``figure.savefig("energy.png")`` writes it.
    """
    from matplotlib.figure import Figure

    data = breakdown_data(results)
    figure = Figure(figsize=(max(6.0, 1.5 + 0.36 * len(data)), 4.8), layout="constrained")
    axes = figure.add_subplot()
    below = np.zeros(len(data))
    for part, colour, hatch in zip(PARTS, _COLOURS, _HATCHES, strict=True):
        values = data[part].to_numpy()
        axes.bar(
            np.arange(len(data)),
            values,
            bottom=below,
            color=colour,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.5,
            label=part.replace("_", " "),
        )
        below = below + values
    few = len(data) <= 6
    axes.set_xticks(
        np.arange(len(data)), _names(results, data), rotation=0 if few else 60, ha="center" if few else "right"
    )
    axes.set_ylabel("energy (µJ)")
    axes.set_title(title if title is not None else _title(results), fontsize="medium", wrap=True)
    handles, labels = axes.get_legend_handles_labels()
    # beside the bars: wherever it stood among them, some layer would have a bar there
    axes.legend(handles[::-1], labels[::-1], frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _plain(axes)
    return figure


def _names(results: Result | Mapping[str, Result], data: pd.DataFrame) -> list[str]:
    """Labels of the bars; those of layers with their bits, as `Result.frame` has them."""
    if isinstance(results, Mapping):
        return [str(label) for label in data.index]
    bits = zip(data.index, results.frame["weight_bits"], strict=True)
    return [f"{name} ({width})" for name, width in bits]


def plot_exploration(
    frame: pd.DataFrame,
    *,
    x: str = "area_mm2",
    y: str = "energy_pj",
    colour: str = "tiles",
    efficient: pd.DataFrame | None = None,
) -> Figure:
    """Explored machines as points, coloured by one parameter, one marker per policy.

    Args:
        frame: what `stripes_sim.explore` returns.
        x, y: its columns on the axes.
        colour: the column that sets the colour.
        efficient: rows to join with a line, such as ``pareto.frontier(frame, sense={x: "min", y: "min"})``.

    Raises:
        ValueError: a column that the frame does not have.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    for column in (x, y, colour):
        if column not in frame:
            raise ValueError(f"no column {column!r} to draw{nearest(column, list(frame.columns))}")
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axes = figure.add_subplot()
    if efficient is not None:
        front = efficient.sort_values(x)
        axes.step(front[x], front[y], where="post", color="0.45", linewidth=1.2, zorder=1, label="frontier")
    levels = sorted(frame[colour].unique())
    shades = colormaps["viridis"](np.linspace(0, 0.92, len(levels)))
    policies = list(dict.fromkeys(frame["policy"])) if "policy" in frame else [None]
    for number, policy in enumerate(policies):
        part = frame if policy is None else frame[frame["policy"] == policy]
        for level, shade in zip(levels, shades, strict=True):
            rows = part[part[colour] == level]
            axes.scatter(
                rows[x],
                rows[y],
                s=26,
                color=shade,
                marker=_MARKERS[number % len(_MARKERS)],
                edgecolor="white",
                linewidth=0.4,
                zorder=2,
                label=f"{colour} {level}" if number == 0 else None,
            )
        if len(policies) > 1:
            axes.scatter([], [], color="0.3", marker=_MARKERS[number % len(_MARKERS)], label=policy)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _few_ticks(axes.xaxis, frame[x])
    _few_ticks(axes.yaxis, frame[y])
    axes.set_xlabel(_axis(x))
    axes.set_ylabel(_axis(y))
    axes.set_title("area from assumed constants" if "area_mm2" in (x, y) else "", fontsize="medium")
    axes.legend(frameon=False, fontsize="small")
    _plain(axes)
    return figure


def _title(results: Result | Mapping[str, Result]) -> str:
    if isinstance(results, Mapping):
        machines = dict.fromkeys(result.hardware.name for result in results.values())
        return "Energy by part: " + ", ".join(machines)
    return results.title


def _axis(column: str) -> str:
    for suffix, unit in (("_mm2", "mm²"), ("_pj", "pJ"), ("_bytes", "bytes"), ("_hz", "Hz")):
        if column.endswith(suffix):
            return f"{column.removesuffix(suffix).replace('_', ' ')} ({unit})"
    return {"seconds": "time (s)"}.get(column, column.replace("_", " "))


def _few_ticks(axis: Axis, values: pd.Series[float]) -> None:
    """Ticks at 1, 2 (3) and 5 of a decade where a logarithmic axis spans little; plain numbers where they are short."""
    from matplotlib.ticker import LogFormatterSciNotation, LogLocator, NullFormatter, StrMethodFormatter

    if values.max() < 100 * values.min():
        subs = (1.0, 2.0, 3.0, 5.0) if values.max() < 10 * values.min() else (1.0, 2.0, 5.0)
        axis.set_major_locator(LogLocator(subs=subs, numticks=12))
        axis.set_minor_formatter(NullFormatter())
        short = values.max() < 1e5
        axis.set_major_formatter(
            StrMethodFormatter("{x:g}")
            if short
            else LogFormatterSciNotation(labelOnlyBase=False, minor_thresholds=(9, 9))
        )


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)
