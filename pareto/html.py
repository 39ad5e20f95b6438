"""Figure 4 as an interactive page: hovering over a point shows the bits of each layer. Needs plotly (extra "html")."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pareto.plotdata import plot_data
from pareto.plotting import COLOURS, MARK_COLOURS, axis_label, step_line

__all__ = ["hover_texts", "plot_html"]

_SYMBOLS = ("star", "diamond", "cross", "x", "triangle-down", "triangle-up")


def plot_html(
    frame: pd.DataFrame,
    front: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    **selection: Any,
) -> Path:
    """Write the design space and its frontier as one HTML file that needs no network; returns its path.

    Args:
        frame, front: as for `plot`.
        path: the file to write; its folder is made.
        title: written above the picture.
        selection: mark, budgets, sense, x, y, layers, as for `plot_data`.

    Raises:
        ModuleNotFoundError: plotly is not installed; the message says how to install it.
        ValueError, TypeError: as for `plot_data`.
    """
    try:
        import plotly.graph_objects as go
    except ModuleNotFoundError:
        raise ModuleNotFoundError("interactive pictures need plotly: pip install 'waveq[html]'") from None
    data = plot_data(frame, front, **selection)
    texts = hover_texts(data, frame, front)
    figure = go.Figure()
    for trace in _traces(data, texts):
        figure.add_trace(go.Scattergl(**trace) if trace.pop("many", False) else go.Scatter(**trace))
    for budget in data.loc[data["kind"] == "budget", "x"]:
        figure.add_vline(x=budget, line_dash="dash", line_color=COLOURS["budget"])
    figure.update_layout(
        title=title,
        xaxis_title=axis_label(data.attrs["x"]),
        yaxis_title=axis_label(data.attrs["y"]),
        template="simple_white",
        hoverlabel={"font": {"family": "monospace"}, "align": "left"},
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(target, include_plotlyjs=True)
    return target


def hover_texts(data: pd.DataFrame, frame: pd.DataFrame, front: pd.DataFrame) -> list[str]:
    """What hovering shows, one text for each row of `plot_data`: both objectives, then each layer with its bits.

    >>> from pareto import frontier
    >>> frame = pd.DataFrame({"conv": [2, 3], "accuracy": [70, 90], "energy_pj": [4, 5]})
    >>> front = frontier(frame, sense={"accuracy": "max", "energy_pj": "min"})
    >>> hover_texts(plot_data(frame, front, layers=["conv"]), frame, front)[0]
    'accuracy 70<br>energy_pj 4<br>conv: 2'
    """
    layers: Sequence[str] = data.attrs["layers"]
    bits = {
        name: (table[list(layers)].to_numpy(), pd.Series(range(len(table)), index=table.index))
        for name, table in (("frame", frame), ("front", front))
        if set(layers) <= set(table.columns)
    }
    texts = []
    for kind, label, x, y, row in zip(data["kind"], data["label"], data["x"], data["y"], data["row"], strict=True):
        lines = [f"<b>{label}</b>"] if label and kind != "budget" else []
        lines += [f"{data.attrs['y']} {y:g}", f"{data.attrs['x']} {x:g}"]
        source = bits.get("front" if kind in ("front", "budget best") else "frame")
        if source is not None and row is not None:
            place = np.atleast_1d(source[1].loc[row])[0]
            lines += [
                f"{html.escape(str(name))}: {width:g}" for name, width in zip(layers, source[0][place], strict=True)
            ]
        texts.append("<br>".join(lines))
    return texts


def _traces(data: pd.DataFrame, texts: list[str]) -> list[dict[str, Any]]:
    """Arguments of one scatter trace per kind of point, in drawing order."""
    hover = pd.Series(texts, index=data.index)
    looks: Mapping[str, dict[str, Any]] = {
        "policy": {"marker": {"color": COLOURS["policy"], "size": 4, "opacity": 0.35}, "many": True},
        "front": {"marker": {"color": COLOURS["front"], "size": 7}},
        "uniform": {
            "marker": {"color": "white", "size": 9, "symbol": "square", "line": {"color": "black", "width": 1.5}}
        },
        "budget best": {
            "marker": {"color": COLOURS["budget"], "size": 14, "symbol": "circle-open", "line": {"width": 2}}
        },
    }
    names = {"policy": "policies", "front": "frontier", "uniform": "uniform", "budget best": "best within budget"}
    traces: list[dict[str, Any]] = []
    for kind, look in looks.items():
        rows = data[data["kind"] == kind]
        if kind == "front" and len(data.attrs["sense"]) == 2:
            line_x, line_y = step_line(rows, data.attrs["sense"][data.attrs["x"]])
            line = {"color": COLOURS["front"], "width": 2}
            stairs = {"x": line_x, "y": line_y, "mode": "lines", "line": line}
            traces.append(stairs | {"hoverinfo": "skip", "showlegend": False})
        if not rows.empty:
            traces.append(_points(rows, hover, f"{names[kind]} ({len(rows):,})") | look)
    for number, (place, mark) in enumerate(data[data["kind"] == "mark"].iterrows()):
        colour = MARK_COLOURS[number % len(MARK_COLOURS)]
        symbol = _SYMBOLS[number % len(_SYMBOLS)]
        marker = {"color": colour, "size": 15, "symbol": symbol, "line": {"color": "black", "width": 1}}
        traces.append(_points(data.loc[[place]], hover, str(mark["label"])) | {"marker": marker})
    return traces


def _points(rows: pd.DataFrame, hover: pd.Series[str], name: str) -> dict[str, Any]:
    return {
        "x": rows["x"].tolist(),
        "y": rows["y"].tolist(),
        "mode": "markers",
        "text": hover[rows.index].tolist(),
        "hoverinfo": "text",
        "name": name,
    }
