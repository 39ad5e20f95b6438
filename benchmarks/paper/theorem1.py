"""Theorem 1 in numbers: as delta -> 0, the minima of E0 + delta R go to those minima of E0 that have the least R.

E0(w1, w2) = (w1^2 + 4 w2^2 - 0.7)^2 has a whole ellipse of minima, none on a level; R is the wave of 3 total bits,
mid-tread. For each delta the global minima are found by gradient descent from a grid of points; the table shows how far
the farthest of them is from the points of the ellipse with the least R.
"""

from __future__ import annotations

import math

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks.paper._figure import COLOURS, options, save
from waveq.functional import wave

BETA = torch.tensor(2.0, dtype=torch.float64)
RADIUS2 = 0.7


def task(w: Tensor) -> Tensor:
    """E0, (N,)."""
    return (w[:, 0] ** 2 + 4 * w[:, 1] ** 2 - RADIUS2) ** 2


def regulariser(w: Tensor) -> Tensor:
    """R, (N,): the wave summed over both weights."""
    return wave(w, BETA).sum(dim=1)


def polish(w: Tensor, delta: float, steps: int = 4000) -> Tensor:
    """Adam from many starting points at once."""
    w = w.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([w], lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (task(w) + delta * regulariser(w)).sum().backward()
        optimizer.step()
        schedule.step()
    return w.detach()


def least(w: Tensor, value: Tensor, tolerance: float) -> Tensor:
    """The points whose value is within the tolerance of the least."""
    return w[value <= value.min() + tolerance]


def main(argv: list[str]) -> int:
    """Table and picture for delta from 1 to 1e-4."""
    parser = options("theorem1", __doc__)
    parser.add_argument("--points", type=int, default=41, help="starting points along each weight")
    args = parser.parse_args(argv)
    angle = torch.linspace(0, 2 * math.pi, 200_001, dtype=torch.float64)
    ellipse = RADIUS2**0.5 * torch.stack([torch.cos(angle), torch.sin(angle) / 2], dim=1)
    target = least(ellipse, regulariser(ellipse), 1e-9)
    axis = torch.linspace(-1.2, 1.2, args.points, dtype=torch.float64)
    starts = torch.cartesian_prod(axis, axis)
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    panel = figure.subplots()
    panel.plot(*ellipse.T, color="0.6", label="minima of E0")
    rows = []
    deltas = (1.0, 0.3, 0.1, 1e-2, 1e-3, 1e-4)
    for colour, delta in zip(COLOURS, deltas, strict=True):
        ends = polish(starts, delta)
        minima = least(ends, task(ends) + delta * regulariser(ends), 1e-7 * delta)
        rows.append(
            {"delta": delta, "minima": len(minima), "distance": float(torch.cdist(minima, target).amin(1).max())}
        )
        panel.plot(*minima.T, "o", color=colour, markersize=4, label=f"delta = {delta:g}")
    panel.plot(*target.T, "x", color="black", markersize=9, label="least R among them")
    panel.set(xlabel="w1", ylabel="w2", aspect="equal")
    panel.legend(fontsize=7, loc="center")
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    save("theorem1", figure, table, args.out, beta=float(BETA))
    return 0
