"""What a picture shows, as a plain frame: drawing (matplotlib, the page) only reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pareto._check import nearest, objective_columns
from pareto.frontier import is_efficient

__all__ = ["Axes", "axes_of", "layer_columns", "plot_data"]

Axes = tuple[str, str]


def plot_data(
    frame: pd.DataFrame,
    front: pd.DataFrame,
    *,
    mark: Mapping[str, Mapping[str, Any]] | None = None,
    budgets: Sequence[float] = (),
    sense: Mapping[str, str] | None = None,
    x: str | None = None,
    y: str | None = None,
    layers: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Everything that `plot` draws (figure 4), one row per point.

    Args:
        frame: all policies; front: the efficient ones, from `frontier`.
        mark: label -> policy. A policy maps layers to bits and is looked up among the rows of `frame`, or
            maps both objective columns to values.
        budgets: limits on x; each gets the best front point within it.
        sense: objective -> "max"/"min"; default: what `frontier` was called with.
        x, y: columns to draw; default: y is the first maximised objective (else the last), x the first other
            one.
        layers: the columns that hold bits, which is how uniform policies are found; default: the layers of
            the marked policies, else the uint8 columns.

    Returns:
        kind ("policy", "front", "uniform", "mark", "budget", "budget best"), label, x, y, row (index label in
        `frame` or `front`, None where there is none), efficient (whether it lies on the front of `frame` in x
        and y).

    Raises:
        ValueError: unknown columns, a policy that is not in the frame or matches rows with different values,
            no front point within a budget.

    >>> from pareto import frontier
    >>> frame = pd.DataFrame({"conv": [2, 3, 3], "fc": [2, 2, 3]})
    >>> frame = frame.assign(accuracy=[70, 90, 91], energy_pj=[4, 5, 6])
    >>> front = frontier(frame, sense={"accuracy": "max", "energy_pj": "min"})
    >>> data = plot_data(frame, front, mark={"ours": {"conv": 3, "fc": 2}})
    >>> data[data["kind"].isin(["uniform", "mark"])][["kind", "label", "x", "y"]].values.tolist()
    [['uniform', '2 bits', 4.0, 70.0], ['uniform', '3 bits', 6.0, 91.0], ['mark', 'ours', 5.0, 90.0]]
    """
    mark = {} if mark is None else mark
    senses = _senses(front, sense)
    axes = axes_of(frame, senses, x, y)
    layer_names = layer_columns(frame, mark, axes, layers)
    drawn = front.sort_values(list(axes), kind="stable")
    parts = [_rows("policy", "", frame, axes), _rows("front", "", drawn, axes)]
    for bits, position in _uniform_rows(frame, layer_names):
        parts.append(_rows("uniform", f"{bits} bits", frame.iloc[[position]], axes))
    for label, policy in mark.items():
        parts.append(_marked(label, policy, frame, axes))
    for budget in budgets:
        parts.append(_budget(float(budget), drawn, senses, axes))
    data = pd.concat(parts, ignore_index=True)
    data["efficient"] = _on_front(data, senses[axes[0]], senses[axes[1]])
    data.attrs.update(x=axes[0], y=axes[1], sense=dict(senses), layers=layer_names)
    return data


def _senses(front: pd.DataFrame, sense: Mapping[str, str] | None) -> dict[str, str]:
    given = front.attrs.get("sense") if sense is None else sense
    if not given:
        raise ValueError(
            "front does not say which objectives it is for: pass the result of pareto.frontier, or "
            "sense={'accuracy': 'max', 'energy_pj': 'min'}"
        )
    columns, senses = objective_columns(front, given)
    return dict(zip(columns, senses, strict=True))


def axes_of(frame: pd.DataFrame, senses: Mapping[str, str], x: str | None, y: str | None) -> Axes:
    """The two columns to draw; ValueError when they are not among the objectives."""
    for argument, name in (("x", x), ("y", y)):
        if name is not None and name not in senses:
            raise ValueError(f"{argument}={name!r} is not an objective{nearest(name, senses)}")
    for name in senses:
        if name not in frame.columns:
            raise ValueError(f"frame lacks the objective {name!r}{nearest(name, frame.columns)}")
    if len(senses) < 2:
        raise ValueError(f"a frontier picture needs two objectives, sense has {list(senses)}")
    best_first = [name for name in senses if senses[name] == "max"] + list(senses)[::-1]
    upright: str = y if y is not None else next(name for name in best_first if name != x)
    across: str = x if x is not None else next(name for name in senses if name != upright)
    if across == upright:
        raise ValueError(f"x and y are both {x!r}")
    return across, upright


def layer_columns(
    frame: pd.DataFrame,
    mark: Mapping[str, Mapping[str, Any]],
    axes: Axes,
    layers: Sequence[str] | None,
) -> list[str]:
    """The columns of `frame` that hold bits per layer."""
    if layers is not None:
        for name in layers:
            if name not in frame.columns:
                raise ValueError(f"layers names {name!r}, which the frame lacks{nearest(name, frame.columns)}")
        return list(layers)
    if "layers" in frame.attrs and all(name in frame.columns for name in frame.attrs["layers"]):
        return list(frame.attrs["layers"])
    for policy in mark.values():
        if not set(axes) <= set(policy):
            return [name for name in policy if name in frame.columns]
    return [name for name in frame.columns if frame[name].dtype == np.uint8 and name not in axes]


def _uniform_rows(frame: pd.DataFrame, layers: Sequence[str]) -> list[tuple[int, int]]:
    """(bits, position) of the rows that give every layer the same bits, fewest bits first."""
    if not layers:
        return []
    bits = frame[list(layers)].to_numpy()
    rows = np.flatnonzero((bits == bits[:, :1]).all(axis=1))
    return sorted((int(bits[row, 0]), int(row)) for row in rows)


def _marked(label: str, policy: Mapping[str, Any], frame: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    x, y = axes
    if not isinstance(policy, Mapping):
        raise TypeError(f"mark[{label!r}] must be a mapping, got {type(policy).__name__}")
    if x in policy and y in policy:
        part = _rows("mark", label, pd.DataFrame({x: [policy[x]], y: [policy[y]]}), axes)
        part["row"] = None
        return part
    for name in policy:
        if name not in frame.columns:
            raise ValueError(f"mark[{label!r}] names layer {name!r}, not a column{nearest(name, frame.columns)}")
    found = np.ones(len(frame), dtype=np.bool_)
    for name, bits in policy.items():
        found &= frame[name].to_numpy() == bits
    rows = np.flatnonzero(found)
    if not rows.size:
        raise ValueError(
            f"mark[{label!r}] is not among the {len(frame)} policies of the frame; "
            f"give its objective values instead, such as {{{x!r}: ..., {y!r}: ...}}"
        )
    if len(frame.iloc[rows][[x, y]].drop_duplicates()) > 1:
        raise ValueError(f"mark[{label!r}] matches {len(rows)} rows with different values: name all its layers")
    return _rows("mark", label, frame.iloc[rows[:1]], axes)


def _budget(budget: float, front: pd.DataFrame, senses: Mapping[str, str], axes: Axes) -> pd.DataFrame:
    x, y = axes
    within = front[front[x] <= budget] if senses[x] == "min" else front[front[x] >= budget]
    if within.empty:
        spread = f"{front[x].min():g}..{front[x].max():g}"
        raise ValueError(f"budget {budget:g}: no front point has {x!r} within it; the front spans {spread}")
    values = within[y].to_numpy()
    best = int(values.argmax() if senses[y] == "max" else values.argmin())
    line = pd.DataFrame({"kind": ["budget"], "label": [f"{budget:g}"], "x": [budget], "y": [np.nan]})
    return pd.concat([line.assign(row=None), _rows("budget best", f"{budget:g}", within.iloc[[best]], axes)])


def _rows(kind: str, label: str, rows: pd.DataFrame, axes: Axes) -> pd.DataFrame:
    x, y = axes
    return pd.DataFrame(
        {
            "kind": kind,
            "label": label,
            "x": rows[x].to_numpy(dtype=np.float64),
            "y": rows[y].to_numpy(dtype=np.float64),
            "row": pd.Series(list(rows.index), dtype=object),
        }
    )


def _on_front(data: pd.DataFrame, sense_x: str, sense_y: str) -> npt.NDArray[np.bool_]:
    """Whether no policy of the frame dominates each drawn point (a marked point may lie beyond them)."""
    points = data[["x", "y"]].to_numpy()
    known = ~np.isnan(points).any(axis=1)
    policies = (data["kind"] == "policy").to_numpy()
    efficient = np.zeros(len(data), dtype=np.bool_)
    efficient[policies] = is_efficient(points[policies], sense=(sense_x, sense_y))
    costs = points * np.array([1.0 if sense_x == "min" else -1.0, 1.0 if sense_y == "min" else -1.0])
    front = costs[efficient]
    for row in np.flatnonzero(known & ~policies):
        # compared, not subtracted: infinities are values like any other
        efficient[row] = not ((front <= costs[row]).all(axis=1) & (front < costs[row]).any(axis=1)).any()
    return efficient
