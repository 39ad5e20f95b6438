"""How the bits were learned, drawn: lines over the steps of a run.

Colours are Okabe and Ito's, which colour-blind readers can tell apart. matplotlib is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_bits", "plot_learning"]

_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_LINES = ("-", "--", "-.", ":")
_MOST_STYLES = len(_COLOURS) * len(_LINES)
_NEEDED = ("step", "phase", "layer", "beta")


def plot_learning(history: pd.DataFrame) -> Figure:
    """Total bits (beta + 1) of every layer over the steps, the steps shaded in which they are learned.

    Args:
        history: what ``wq.history()`` gives, or rows of it; columns ``step``, ``phase``, ``layer`` and ``beta``.

    Returns:
        A figure to save (``.savefig("learning.png")``) or to show in a notebook.

    Raises:
        ValueError: a column is missing, there is no row, or a layer has two rows for one step.
        ModuleNotFoundError: matplotlib is not installed.

    Example:
        >>> import pandas as pd
        >>> rows = {"step": [0, 9, 0, 9], "phase": [1, 2, 1, 2], "layer": ["a", "a", "b", "b"]}
        >>> rows["beta"] = [7.0, 3.0, 7.0, 2.5]
        >>> [line.get_ydata().tolist() for line in plot_learning(pd.DataFrame(rows)).axes[0].lines]
        [[8.0, 4.0], [8.0, 3.5]]
    """
    missing = [name for name in _NEEDED if name not in history.columns]
    if missing:
        raise ValueError(f"history lacks the column {missing[0]!r}; give what wq.history() returns")
    if history.empty:
        raise ValueError("history has no rows; give what wq.history() returns")
    twice = history.duplicated(["step", "layer"])
    if twice.any():
        row = history[twice].iloc[0]
        raise ValueError(f"history has two rows for layer {row['layer']!r} at step {row['step']}: give one run's")
    names = history["layer"].drop_duplicates()
    bits = (history.pivot_table(index="step", columns="layer", values="beta") + 1)[list(names)]
    return draw_bits(bits, history.drop_duplicates("step").set_index("step")["phase"].sort_index())


def draw_bits(bits: pd.DataFrame, phase: pd.Series) -> Figure:
    """Lines of the bits over the steps.

    Args:
        bits: total bits, real; index step, one column a layer.
        phase: 1, 2 or 3 at the same steps; 2 is shaded.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    figure, axes = _figure()
    many = len(bits.columns) > _MOST_STYLES
    for number, name in enumerate(bits.columns):
        style = {"color": _by_depth(number, len(bits.columns)), "linewidth": 0.8} if many else _own_style(number)
        # a run without a step is a point, not a line
        axes.plot(bits.index, bits[name], label=name, marker="o" if len(bits) == 1 else None, **style)
    _shade_phases(axes, phase)
    axes.set_xlabel("Step")
    axes.set_ylabel("Bits (β + 1)")
    axes.set_ylim(min(1.5, float(bits.min().min()) - 0.3), float(bits.max().max()) + 0.7)
    if len(bits) == 1:
        axes.set_xticks(bits.index)
    if many:
        _tell_depth(figure, axes, list(bits.columns))
    elif len(bits.columns) <= 12:
        axes.legend(fontsize=9, framealpha=0.92)
    else:  # among the lines it would cover them
        columns = -(-len(bits.columns) // 30)
        figure.set_figwidth(6.4 + 2.0 * columns)
        figure.legend(loc="outside right upper", ncols=columns, fontsize=6, frameon=False)
    return figure


def _own_style(number: int) -> dict[str, Any]:
    """Of one of few layers, which a legend can tell apart."""
    line = _LINES[number // len(_COLOURS) % len(_LINES)]
    return {"color": _COLOURS[number % len(_COLOURS)], "linestyle": line, "linewidth": 1.6}


def _by_depth(number: int, count: int) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](number / (count - 1))


def _tell_depth(figure: Figure, axes: Axes, names: Sequence[str]) -> None:
    """A scale of colours from the first layer to the last, where a legend of all would be longer than the picture."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = figure.colorbar(ScalarMappable(Normalize(1, len(names)), "viridis"), ax=axes, label="layer")
    scale.set_ticks([1, len(names)], labels=[f"1: {names[0]}", f"{len(names)}: {names[-1]}"], fontsize=7)


def _shade_phases(axes: Axes, phase: pd.Series) -> None:
    learned = phase.index[phase == 2]
    if len(learned):
        axes.axvspan(learned[0], learned[-1], color="0.92", zorder=0, label="bits are learned")


def _figure() -> tuple[Figure, Axes]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ModuleNotFoundError("pictures need matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes
