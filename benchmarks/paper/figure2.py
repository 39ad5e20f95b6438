"""Figure 2: the wave over weights and bits: the surface, its cuts at whole bits, at ternary, and along beta."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from benchmarks.paper._figure import COLOURS, options, save
from waveq.functional import Grid, grid_levels, wave


def profile(u: torch.Tensor, beta: float, grid: Grid) -> np.ndarray:
    """R1 along the weights at one beta."""
    return wave(u, torch.tensor(beta, dtype=u.dtype), grid=grid).numpy()


def main(argv: list[str]) -> int:
    """Draw both grids, one row each."""
    args = options("figure2", __doc__).parse_args(argv)
    u = torch.linspace(-1.05, 1.05, 1201, dtype=torch.float64)
    betas = torch.linspace(1, 4.5, 281, dtype=torch.float64)
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    axes = figure.subplots(2, 3)
    rows = []
    for line, grid in zip(axes, Grid, strict=True):
        surface = wave(u[None, :], betas[:, None], grid=grid).numpy()
        shown = line[0].pcolormesh(u.numpy(), betas.numpy(), surface, cmap="cividis", rasterized=True)
        line[0].set(title=f"R1, {grid}", xlabel="u", ylabel="beta")
        figure.colorbar(shown, ax=line[0])
        for colour, bits in zip(COLOURS, (2, 3, 4), strict=False):
            values = profile(u, bits - 1.0, grid)
            line[1].plot(u.numpy(), values, color=colour, label=f"{bits} total bits")
            levels = grid_levels(bits, grid)
            line[1].plot(levels, np.zeros(len(levels)), "o", color=colour, markersize=3)
            rows += [
                {"grid": str(grid), "beta": bits - 1.0, "u": a, "R1": b}
                for a, b in zip(u.tolist(), values, strict=True)
            ]
        line[1].set(title="at whole bits; dots: levels of the quantiser", xlabel="u")
        line[1].legend()
        for colour, weight in zip(COLOURS, (0.2, 0.45, 0.7), strict=False):
            line[2].plot(
                betas,
                wave(torch.tensor(weight, dtype=torch.float64), betas, grid=grid),
                color=colour,
                label=f"u = {weight}",
            )
        line[2].set(title="along beta", xlabel="beta")
        line[2].legend()
    save("figure2", figure, pd.DataFrame(rows), args.out)
    return 0
