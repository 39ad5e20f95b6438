"""Pictures of a run: how the bits were learned, and pareto's frontier in units that people read.

Colours are Okabe and Ito's, which colour-blind readers can tell apart. matplotlib is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from waveq._files import whole
from waveq.codesign.frames import read_frame

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["frontier_figure", "learning_data", "save_figure", "save_learning"]

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_MICROJOULE = "Energy (µJ)"
_LINES = ("-", "--", "-.", ":")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure that appears whole or not at all; small files, no date inside, so that equal is equal."""
    with whole(path) as draft:
        figure.savefig(draft, dpi=110, metadata={"Software": None})


def frontier_figure(
    frame: pd.DataFrame,
    *,
    sense: Mapping[str, str],
    mark: Mapping[str, Mapping[str, Any]],
    budgets: Sequence[float] = (),
    layers: Sequence[str] | None = None,
) -> Figure:
    """`pareto.plot` of a table of policies, with energy in microjoule on the axis; arguments and errors are its own.

    Budgets are in the unit of the table's column.
    """
    from pareto import frontier, plot
    from pareto.plotdata import axes_of

    if "energy_pj" not in sense or "energy_pj" not in frame.columns:
        return plot(frame, frontier(frame, sense=sense), mark=mark, budgets=budgets, layers=layers)
    across, _ = axes_of(frame, sense, None, None)
    readable = frame.assign(energy_pj=frame["energy_pj"] / 1e6).rename(columns={"energy_pj": _MICROJOULE})
    names = {_MICROJOULE if name == "energy_pj" else name: direction for name, direction in sense.items()}
    limits = [budget / 1e6 if across == "energy_pj" else budget for budget in budgets]
    return plot(readable, frontier(readable, sense=names), mark=mark, budgets=limits, layers=layers)


def learning_data(metrics: Path) -> pd.DataFrame:
    """Total bits (beta + 1) of every layer by step, from a stage's metrics.csv; index step, one column a layer."""
    frame = read_frame(metrics, wholes=("step",), gaps=("phase",), prefixes=("beta/",))
    betas = [column for column in frame.columns if column.startswith("beta/")]
    rows = frame.dropna(subset=betas).drop_duplicates("step", keep="last").set_index("step")
    data = (rows[betas] + 1.0).rename(columns=lambda column: column.removeprefix("beta/"))
    data.attrs["phase"] = rows["phase"]
    return data


def save_learning(metrics: Path, path: Path) -> bool:
    """Lines of the bits over the steps, the three phases shaded; False where nothing was learned."""
    data = learning_data(metrics)
    if data.empty:
        return False
    figure, axes = _figure()
    for number, name in enumerate(data.columns):
        axes.plot(
            data.index,
            data[name],
            color=_COLOURS[number % len(_COLOURS)],
            linestyle=_LINES[number // len(_COLOURS) % len(_LINES)],
            linewidth=1.6,
            label=name,
        )
    _shade_phases(axes, data.attrs["phase"])
    axes.set_xlabel("Step")
    axes.set_ylabel("Bits (β + 1)")
    axes.set_ylim(1.5, float(data.to_numpy().max()) + 0.7)
    if len(data.columns) <= 12:
        axes.legend(fontsize=9, framealpha=0.92)
    save_figure(figure, path)
    return True


def _shade_phases(axes: Axes, phase: Any) -> None:
    learned = phase.index[phase == 2]
    if len(learned):
        axes.axvspan(learned[0], learned[-1], color="0.92", zorder=0, label="bits are learned")


def _figure(width: float = 6.4) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes
