"""Figure 3: R0, R1 and R2 with their first and second derivatives in beta, and where each vanishes or explodes."""

from __future__ import annotations

import pandas as pd
import torch
from matplotlib.figure import Figure

from benchmarks.paper._figure import COLOURS, options, save
from waveq.functional import Grid, wave

WEIGHTS = (0.1, 0.35, 0.8)


def derivatives(order: int, weight: float, betas: torch.Tensor) -> list[torch.Tensor]:
    """R_k, dR_k/dbeta and the second derivative at one weight, by autograd in float64."""
    beta = betas.clone().requires_grad_(True)
    value = wave(torch.tensor(weight, dtype=torch.float64), beta, grid=Grid.MID_TREAD, order=order)
    (first,) = torch.autograd.grad(value.sum(), beta, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), beta)
    return [value.detach(), first.detach(), second]


def main(argv: list[str]) -> int:
    """Draw the nine panels and print the largest slope of each order in two ranges of beta."""
    args = options("figure3", __doc__).parse_args(argv)
    betas = torch.linspace(1, 5, 2001, dtype=torch.float64)
    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.subplots(3, 3, sharex=True)
    rows, slopes = [], []
    for order in (0, 1, 2):
        for colour, weight in zip(COLOURS, WEIGHTS, strict=False):
            curves = derivatives(order, weight, betas)
            for row, (curve, name) in enumerate(zip(curves, ("R", "dR/dbeta", "d2R/dbeta2"), strict=True)):
                axes[row][order].plot(betas, curve, color=colour, label=f"u = {weight}", linewidth=1)
                axes[row][order].set_title(f"{name.replace('R', f'R{order}', 1)}")
                rows += [
                    {"order": order, "u": weight, "curve": name, "beta": b, "value": v}
                    for b, v in zip(betas.tolist()[::10], curve.tolist()[::10], strict=True)
                ]
            low, high = betas < 2, betas > 4
            slopes.append(
                {
                    "order": order,
                    "u": weight,
                    "largest slope, beta 1-2": float(curves[1][low].abs().max()),
                    "largest slope, beta 4-5": float(curves[1][high].abs().max()),
                }
            )
    axes[0][2].legend()
    for panel in axes[2]:
        panel.set_xlabel("beta")
    print(pd.DataFrame(slopes).to_string(index=False, float_format=lambda x: f"{x:.4g}"))
    save("figure3", figure, pd.DataFrame(rows), args.out, slopes=slopes)
    return 0
