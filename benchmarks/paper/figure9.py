"""Figure 9: lambda_w and lambda_beta over the run: the figure's own numbers, and the three presets."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.paper._figure import COLOURS, options, save
from waveq.method.presets import PRESETS
from waveq.method.schedules import Schedule, exponential, three_phase

STEPS = 700


def schedules() -> dict[str, Schedule]:
    """Name -> schedule over STEPS steps, strengths normalised to 1 and 0.05."""
    strengths = {"lambda_w": 1.0, "lambda_beta": 0.05}
    found = {"figure 9: rise 200, fall 500, s 10": three_phase(STEPS, rise=200, fall=500, sharpness=10, **strengths)}
    for name, preset in PRESETS.items():
        rise, fall = (share * STEPS for share in preset.phases)
        found[f"preset {name}"] = three_phase(
            STEPS, rise=rise, fall=fall, wave_rise=preset.wave_rise * STEPS, **strengths
        )
    found["exponential, from scratch"] = exponential(STEPS, lambda_w=1.0)
    return found


def main(argv: list[str]) -> int:
    """One panel a schedule."""
    args = options("figure9", __doc__).parse_args(argv)
    found = schedules()
    figure = Figure(figsize=(7, 9), layout="constrained")
    rows = []
    for panel, (name, schedule) in zip(figure.subplots(len(found), 1, sharex=True), found.items(), strict=True):
        steps = range(STEPS + 1)
        strong = [schedule(step) for step in steps]
        panel.plot(steps, [w for w, _ in strong], color=COLOURS[0], label="lambda_w")
        panel.plot(steps, [20 * b for _, b in strong], color=COLOURS[3], linestyle="--", label="lambda_beta x 20")
        panel.set_title(name, fontsize=9)
        rows += [
            {"schedule": name, "step": s, "lambda_w": w, "lambda_beta": b}
            for s, (w, b) in zip(steps, strong, strict=True)
        ]
    figure.axes[0].legend(fontsize=8)
    figure.axes[-1].set_xlabel("optimiser step")
    save("figure9", figure, pd.DataFrame(rows), args.out)
    return 0
