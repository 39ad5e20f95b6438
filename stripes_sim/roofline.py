"""The roofline of a run: what each layer reaches, under what the array gives at its bits and what DRAM lets through.

A layer with M multiply-accumulates that moves D bytes to and from DRAM in t seconds is a point at

    intensity = M / D  (MAC/byte),    reached = M / t  (MAC/s)

below both roofs of Williams et al. (Roofline, CACM 2009): intensity times the DRAM's bandwidth, and the peak of the
array, which on a bit-serial machine is another one for every pair of bits. On-chip buffers are a third limit that the
picture has no line for: a point that neither roof explains names the level that it waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stripes_sim.bits import resolve_bits
from stripes_sim.costs import LEVELS
from stripes_sim.dataflows import dataflow_named
from stripes_sim.parameters import Parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from stripes_sim.result import Result

__all__ = ["peak_macs_per_s", "plot_roofline", "roofline"]

_COLOURS = dict(zip(LEVELS, ("#0072B2", "#E69F00", "#009E73", "#D55E00"), strict=True))
_MARKERS = dict(zip(LEVELS, "osD^", strict=True))
_MANY = 2**20  # multiply-accumulates over which a lane's cycles are averaged


def peak_macs_per_s(hardware: Parameters, weight_bits: int, activation_bits: int = 16) -> float:
    """Multiply-accumulates per second of a full array, no memory in the way.

    Args:
        hardware: the machine.
        weight_bits, activation_bits: 1 to 16.

    >>> from stripes_sim import Stripes
    >>> peak_macs_per_s(Stripes(), 4) / peak_macs_per_s(Stripes(), 16)
    4.0
    """
    weights = resolve_bits(["peak"], weight_bits, argument="weight_bits")
    inputs = resolve_bits(["peak"], activation_bits, argument="activation_bits")
    cycles = dataflow_named(hardware.serial).lane_cycles(hardware, np.array([float(_MANY)]), weights, inputs)
    return float(hardware.lane_count * _MANY / cycles[0] * hardware.clock_hz)


def roofline(result: Result) -> pd.DataFrame:
    """The points: one row for each layer that multiplies.

    Returns:
        ``name``, ``weight_bits``, ``activation_bits``, ``macs_per_byte`` (infinite where nothing moves to or from
        DRAM), ``macs_per_s``, ``array_macs_per_s`` and ``dram_macs_per_s`` (the two roofs above the point), ``bound``
        (the level that the layer waits for). On a machine that looks at values the array's roof is that of the layer's.

    >>> from stripes_sim import LayerShape, Stripes
    >>> fc = LayerShape(name="fc", kind="linear", in_channels=512, out_channels=256)
    >>> found = roofline(Stripes().run([fc], 4)).iloc[0]
    >>> found["bound"], round(float(found["macs_per_byte"]), 2)
    ('DRAM', 1.95)
    """
    frame, hw, measured = result.frame, result.hardware, result.costs.array.cycles_per_mac
    multiplies = (frame["macs"] > 0).to_numpy()
    frame = frame[multiplies].reset_index(drop=True)
    with np.errstate(divide="ignore"):
        intensity = frame["macs"].to_numpy() / frame["dram_bytes"].to_numpy()
    return pd.DataFrame(
        {
            "name": frame["name"],
            "weight_bits": frame["weight_bits"],
            "activation_bits": frame["activation_bits"],
            "macs_per_byte": intensity,
            "macs_per_s": frame["macs"] / frame["cycles"] * hw.clock_hz,
            "array_macs_per_s": [
                peak_macs_per_s(hw, *bits)
                for bits in zip(frame["weight_bits"].tolist(), frame["activation_bits"].tolist(), strict=True)
            ]
            if measured is None
            else hw.lane_count / measured[multiplies, 0] * hw.clock_hz,
            "dram_macs_per_s": intensity * hw.dram_bytes_per_s,
            "bound": frame["bound"],
        }
    )


def plot_roofline(result: Result, *, bits: Sequence[int] = (), title: str | None = None) -> Figure:
    """Layers as points below the DRAM's slope and one ceiling for each number of weight bits.

    Args:
        result: one run.
        bits: further weight bits, 1 to 16, whose ceiling is drawn (at the activation bits of most layers).
        title: default names the machine and bits.

    Returns:
        A matplotlib figure. Colour and marker of a point are the level that the layer waits for; layers that move
        nothing to or from DRAM stand at the right edge.

    Raises:
        ValueError: no layer that multiplies, bits out of range, or a run on values, where each layer has its own roof.
    """
    from matplotlib.figure import Figure

    points, hw = roofline(result), result.hardware
    if result.costs.array.cycles_per_mac is not None:
        raise ValueError(
            f"the array of {hw.name} has another roof for the values of every layer, which one picture cannot show: "
            "stripes_sim.roofline(result) has them"
        )
    if points.empty:
        raise ValueError("no layer of this workload multiplies: there is nothing to draw below a roof")
    inputs = int(points["activation_bits"].mode()[0])
    pairs = {*zip(points["weight_bits"].tolist(), points["activation_bits"].tolist(), strict=True)}
    ceilings: dict[float, list[str]] = {}
    for pair in sorted(pairs | {(number, inputs) for number in bits}):
        label = f"{pair[0]}-bit weights" + (f", {pair[1]}-bit inputs" if pair[1] != inputs else "")
        ceilings.setdefault(peak_macs_per_s(hw, *pair), []).append(label)
    finite = points["macs_per_byte"].replace(np.inf, np.nan)
    ridge = max(ceilings) / hw.dram_bytes_per_s
    left, right = np.nanmin([ridge, finite.min()]) / 10, np.nanmax([ridge, finite.max()]) * 6

    figure = Figure(figsize=(8.6, 5.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.plot([left, ridge], [left * hw.dram_bytes_per_s, max(ceilings)], color="0.25", linewidth=1.4, zorder=1)
    for peak, labels in ceilings.items():
        axes.plot([peak / hw.dram_bytes_per_s, right], [peak, peak], color="0.25", linewidth=1.1, zorder=1)
        axes.annotate(
            " = ".join(labels),
            (right, peak),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize="x-small",
            annotation_clip=False,
        )
    _draw_points(axes, points.assign(x=finite.fillna(right / 1.3)))
    axes.set_xlim(left, right)
    axes.set_ylim(min(points["macs_per_s"].min() / 3, left * hw.dram_bytes_per_s * 4), max(ceilings) * 2.2)
    axes.set_xlabel(f"MAC per byte of DRAM traffic (slope: {hw.dram.upper()}, {hw.dram_bytes_per_s / 1e9:g} GB/s)")
    axes.set_ylabel("MAC/s")
    axes.set_title(result.title if title is None else title, fontsize="medium", wrap=True)
    axes.legend(frameon=False, fontsize="small", title="layer waits for", loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_points(axes: Axes, points: pd.DataFrame) -> None:
    for level in LEVELS:
        part = points[points["bound"] == level]
        if part.empty:
            continue
        axes.scatter(
            part["x"],
            part["macs_per_s"],
            s=34,
            color=_COLOURS[level],
            marker=_MARKERS[level],
            edgecolor="white",
            linewidth=0.5,
            zorder=3,
            label=level,
        )
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": "x-small", "color": "0.2", "zorder": 4}
    named: list[tuple[float, float]] = []
    for label, x, y, on_slope in _labels(points):
        # above the slope nothing else is drawn; all other points have room below the ceilings, one name under the other
        beside: dict[str, Any] = {"ha": "right", "va": "bottom"} if on_slope else {"ha": "center", "va": "top"}
        close = sum(abs(np.log10(x / u)) < 0.4 and abs(np.log10(y / v)) < 0.1 for u, v in named)
        axes.annotate(label, (x, y), xytext=(-5, 1) if on_slope else (0, -6 - 9 * close), **beside, **style)
        if not on_slope:
            named.append((x, y))


def _labels(points: pd.DataFrame) -> list[tuple[str, float, float, bool]]:
    """One name for all layers that would cover each other: the first one's, with its weight bits and how many more."""
    together: list[list[int]] = []
    places = np.log10(points[["x", "macs_per_s"]].to_numpy())
    bits = points["weight_bits"].to_numpy()
    for row in range(len(points)):
        for rows in together:
            if bits[row] == bits[rows[0]] and np.abs(places[row] - places[rows[0]]).max() < 0.04:
                rows.append(row)
                break
        else:
            together.append([row])
    found = []
    for rows in together:
        first = points.iloc[rows[0]]
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        label = f"{first['name']} ({first['weight_bits']} bit){more}"
        found.append((label, float(first["x"]), float(first["macs_per_s"]), first["bound"] == "DRAM"))
    return found
