"""Pictures of a run that are not pareto's: energy by part, and how the bits were learned.

Colours are Okabe and Ito's, each part has its own hatch besides. matplotlib is imported inside the functions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from stripes_sim import Result

__all__ = ["breakdown_data", "learning_data", "save_breakdown", "save_figure", "save_learning"]

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_HATCHES = ("", "//", "..", "xx", "--")
_LINES = ("-", "--", "-.", ":")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure that appears whole or not at all; small files, no date inside, so that equal is equal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    figure.savefig(draft, format=path.suffix[1:], dpi=110, metadata={"Software": None})
    draft.replace(path)


def breakdown_data(result: Result) -> pd.DataFrame:
    """Energy in microjoule, one row a layer and one column a part; the parts add up to the result's energy."""
    from stripes_sim.simulate import PARTS

    frame = result.frame
    parts = {part.replace("_", " ").replace("dram", "DRAM"): frame[f"{part}_pj"].to_numpy() / 1e6 for part in PARTS}
    bits = [f"{name} ({width})" for name, width in zip(frame["name"], frame["weight_bits"], strict=True)]
    return pd.DataFrame(parts, index=bits)


def save_breakdown(result: Result, path: Path) -> None:
    """Stacked bars: what each layer spends, and on what."""
    data = breakdown_data(result)
    figure, axes = _figure(width=max(6.4, 0.3 * len(data) + 2.0))
    below = pd.Series(0.0, index=data.index)
    for number, part in enumerate(data.columns):
        axes.bar(
            range(len(data)),
            data[part],
            bottom=below,
            label=part,
            color=_COLOURS[number % len(_COLOURS)],
            hatch=_HATCHES[number % len(_HATCHES)],
            edgecolor="black",
            linewidth=0.6,
        )
        below = below + data[part]
    axes.set_xticks(range(len(data)), list(data.index), rotation=90 if len(data) > 6 else 0)
    axes.set_xlabel("Layer (its weight bits)")
    axes.set_ylabel("Energy (µJ)")
    axes.set_title(f"{result.hardware.name}: {result.energy_pj / 1e6:.3g} µJ", fontsize=10)
    axes.legend(fontsize=9, framealpha=0.92)
    save_figure(figure, path)


def learning_data(metrics: Path) -> pd.DataFrame:
    """Total bits (beta + 1) of every layer by step, from a stage's metrics.csv; index step, one column a layer."""
    frame = pd.read_csv(metrics)
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
