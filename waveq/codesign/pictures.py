"""Pictures of a run: how the bits were learned, and pareto's frontier in units that people read.

matplotlib is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from waveq._files import whole
from waveq.codesign.frames import read_frame
from waveq.method.learning_plot import draw_bits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["frontier_figure", "learning_data", "readable", "save_figure", "save_learning", "scaled_band"]

_MICROJOULE = "Energy (µJ)"


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
    band: pd.DataFrame | None = None,
) -> Figure:
    """`pareto.plot` of a table of policies, with energy in microjoule on the axis; arguments and errors are its own.

    Budgets and the band are in the unit of the table's column.
    """
    from pareto import frontier, plot

    table, names, limits = readable(frame, sense, budgets)
    return plot(
        table,
        frontier(table, sense=names),
        mark=mark,
        budgets=limits,
        layers=layers,
        band=scaled_band(band, frame, sense),
    )


def scaled_band(band: pd.DataFrame | None, frame: pd.DataFrame, sense: Mapping[str, str]) -> pd.DataFrame | None:
    """A band with its x as `readable` has it."""
    if band is None:
        return None
    shown = readable(frame.head(0), sense, [1.0])[2][0]
    return band.assign(x=band["x"] * shown)


def readable(
    frame: pd.DataFrame, sense: Mapping[str, str], budgets: Sequence[float] = ()
) -> tuple[pd.DataFrame, dict[str, str], list[float]]:
    """Table, senses and budgets with energy in microjoule, as pictures and pages show it.

    Example:
        >>> table, sense, _ = readable(pd.DataFrame({"energy_pj": [2e6]}), {"energy_pj": "min"})
        >>> table.to_dict("list"), sense
        ({'Energy (µJ)': [2.0]}, {'Energy (µJ)': 'min'})
    """
    from pareto.plotdata import axes_of

    if "energy_pj" not in frame.columns:
        return frame, dict(sense), list(budgets)
    table = frame.assign(energy_pj=frame["energy_pj"] / 1e6).rename(columns={"energy_pj": _MICROJOULE})
    if "energy_pj" not in sense:
        return table, dict(sense), list(budgets)
    names = {_MICROJOULE if name == "energy_pj" else name: direction for name, direction in sense.items()}
    in_energy = len(sense) > 1 and axes_of(frame, sense, None, None)[0] == "energy_pj"
    return table, names, [budget / 1e6 if in_energy else budget for budget in budgets]


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
    save_figure(draw_bits(data, data.attrs["phase"]), path)
    return True
