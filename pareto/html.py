"""Figure 4 as one file that can be mailed: a page that asks for nothing and shows the bits of each policy.

It is made of parts that lie in `pareto/page`: a skeleton, sections, and JavaScript that draws them on canvases from
data that the page holds as JSON. `waveq report` makes its page of the same parts and some of its own.
"""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd

from pareto.plotdata import plot_data
from pareto.plotting import axis_label

__all__ = ["cloud_data", "page_part", "page_text", "plot_html"]

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def plot_html(
    frame: pd.DataFrame,
    front: pd.DataFrame,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    band: pd.DataFrame | None = None,
    **selection: Any,
) -> Path:
    """Write the design space and its frontier as one HTML file that needs no network; returns its path.

    Args:
        frame, front: as for `plot`; the rows of ``front`` are rows of ``frame``.
        path: the file to write; its folder is made.
        title: written above the picture.
        band: as for `plot`.
        selection: mark, budgets, sense, x, y, layers, as for `plot_data`.

    Raises:
        ValueError, TypeError: as for `plot_data` and `cloud_data`.

    >>> import tempfile
    >>> from pareto import frontier
    >>> frame = pd.DataFrame({"conv": [2, 3], "accuracy": [70, 90], "energy_pj": [4, 5]})
    >>> front = frontier(frame, sense={"accuracy": "max", "energy_pj": "min"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot_html(frame, front, f"{folder}/front.html", layers=["conv"]).read_text(encoding="utf-8")[:15]
    '<!doctype html>'
    """
    data = cloud_data(frame, front, band=band, **selection)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    body = [page_part(name) for name in ("cloud.html", "policy.html", "table.html")]
    scripts = [page_part(name) for name in ("policy.js", "cloud.js", "table.js")]
    text = page_text(data, title="Policies and their frontier" if title is None else title, body=body, scripts=scripts)
    target.write_text(text, encoding="utf-8", newline="\n")
    return target


def page_part(name: str) -> str:
    """A file of `pareto/page`."""
    return (files("pareto") / "page" / name).read_text(encoding="utf-8")


def page_text(data: Mapping[str, Any], *, title: str, body: Sequence[str], scripts: Sequence[str]) -> str:
    """A page that holds everything it needs.

    Args:
        data: what the scripts draw; JSON values.
        title: plain text.
        body: HTML of the sections. Names of any origin belong into `data`, which the scripts write as text.
        scripts: JavaScript that runs in this order, after `canvas.js`.

    >>> page = page_text({"layers": ["</script>"]}, title="<2 bits", body=[], scripts=[])
    >>> "<title>&lt;2 bits</title>" in page, "</script>\\"]" in page
    (True, False)
    """
    # No "<" in the data: nothing that a name holds can end the element in which the data stand.
    packed = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Template(page_part("page.html")).substitute(
        title=html.escape(title).encode("ascii", "xmlcharrefreplace").decode(),
        style=page_part("page.css"),
        body="\n".join(body),
        data=packed,
        script="\n".join([page_part("canvas.js"), *scripts]),
    )


def cloud_data(
    frame: pd.DataFrame, front: pd.DataFrame, *, band: pd.DataFrame | None = None, **selection: Any
) -> dict[str, Any]:
    """What the page draws of a design space, as JSON values.

    Args:
        frame, front: as for `plot`; the rows of ``front`` are rows of ``frame``.
        band: as for `plot`.
        selection: mark, budgets, sense, x, y, layers, as for `plot_data`.

    Returns:
        layers, labels of the columns, policy (the first marked one that is a row, or None), and cloud: the values by
        column with seven digits (None where they are not finite), one base-36 digit a layer and policy as one string,
        and the rows, counted from 0, of frontier, uniform and marked policies, and the band as three lists.

    Raises:
        ValueError, TypeError: as for `plot_data`; a row of ``front`` that ``frame`` lacks; bits that are no whole
            number of 0 to 35.

    >>> from pareto import frontier
    >>> frame = pd.DataFrame({"conv": [2, 3], "fc": [8, 16], "accuracy": [70, 90], "energy_pj": [4, 5]})
    >>> front = frontier(frame, sense={"accuracy": "max", "energy_pj": "min"})
    >>> cloud_data(frame, front, layers=["conv", "fc"])["cloud"]["bits"]
    '283g'
    """
    drawn = plot_data(frame, front, **selection)
    layers = [str(name) for name in drawn.attrs["layers"]]
    senses: Mapping[str, str] = drawn.attrs["sense"]
    x, y = drawn.attrs["x"], drawn.attrs["y"]
    widths = _whole_bits(frame[drawn.attrs["layers"]])
    columns = _columns(frame, [y, x, *senses], drawn.attrs["layers"])
    cloud = {
        "x": x,
        "y": y,
        "sense": [senses[x], senses[y]],
        "stairs": len(senses) == 2,  # with more objectives the drawn two do not form a line
        "columns": columns,
        "bits": "".join(_DIGITS[width] for width in widths.ravel()),
        "front": _rows_of(drawn.loc[drawn["kind"] == "front", "row"], frame),
        "uniform": [
            [int(widths[row, 0]), row] for row in _rows_of(drawn.loc[drawn["kind"] == "uniform", "row"], frame)
        ],
        "budgets": [_short(value) for value in drawn.loc[drawn["kind"] == "budget", "x"]],
        "best": _rows_of(drawn.loc[drawn["kind"] == "budget best", "row"], frame),
        "band": None if band is None else [[_short(v) for v in band[name]] for name in ("x", "low", "high")],
        "marks": _marks(drawn[drawn["kind"] == "mark"], frame),
    }
    own = next((mark for mark in cloud["marks"] if mark["row"] is not None), None)
    policy = None
    if own is not None:
        values = {name: column[own["row"]] for name, column in columns.items()}
        policy = {"label": own["label"], "values": values, "bits": widths[own["row"]].tolist() if layers else None}
    labels = {name: axis_label(name) for name in columns}
    return {"layers": layers, "labels": labels, "policy": policy, "cloud": cloud}


def _whole_bits(table: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
    values = table.to_numpy(dtype=np.float64)
    wrong = np.argwhere(~((values >= 0) & (values < len(_DIGITS)) & (values == np.floor(values))))
    if wrong.size:
        row, column = wrong[0]
        raise ValueError(
            f"layers: column {table.columns[column]!r} has {values[row, column]:g} in row {row}; expected whole bits, "
            f"0 to {len(_DIGITS) - 1}"
        )
    return values.astype(np.int64)


def _columns(frame: pd.DataFrame, objectives: Sequence[str], layers: Sequence[str]) -> dict[str, list[float | None]]:
    """The objectives, then what else is a number and no layer."""
    others = [name for name in frame.select_dtypes("number").columns if name not in layers]
    return {str(name): [_short(value) for value in frame[name]] for name in dict.fromkeys([*objectives, *others])}


def _short(value: Any) -> float | None:
    """Seven digits, which no eye tells from more, at half the length; whole numbers as they are."""
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else float(f"{number:.7g}")


def _rows_of(labels: Iterable[Any], frame: pd.DataFrame) -> list[int]:
    """Positions of index labels in the frame; the first where a label is there twice."""
    places = dict(zip(reversed(frame.index), range(len(frame) - 1, -1, -1), strict=True))
    for label in labels:
        if label not in places:
            raise ValueError(
                f"front has the row {label!r}, which the frame lacks: pass the result of pareto.frontier(frame, ...)"
            )
    return [places[label] for label in labels]


def _marks(drawn: pd.DataFrame, frame: pd.DataFrame) -> list[dict[str, Any]]:
    marks = []
    for mark in drawn.to_dict("records"):
        row = None if mark["row"] is None else _rows_of([mark["row"]], frame)[0]
        at = {"x": _short(mark["x"]), "y": _short(mark["y"])}
        marks.append({"label": str(mark["label"]), **at, "row": row, "efficient": bool(mark["efficient"])})
    return marks
