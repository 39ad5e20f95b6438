"""``waveq sensitivity``: what one bit less, or more, in one layer does."""

from __future__ import annotations

from typing import Annotated

import typer

from waveq.cli.common import AsJson, Imports, Part, TuningEpochs, TuningRate, aligned, emit, say
from waveq.cli.grouped import GroupedCommand
from waveq.cli.own_run import OwnData, OwnModel, OwnPolicy, RunOrNone, finished_run
from waveq.cli.parsing import changed_protocol, parse_integers

__all__ = ["register", "sensitivity"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "sensitivity",
        epilog="Example: waveq sensitivity runs/demo",
        short_help="What one bit less, or more, in one layer does.",
        cls=GroupedCommand,
    )(sensitivity)


def sensitivity(
    run: RunOrNone = None,
    model: OwnModel = None,
    data: OwnData = None,
    policy: OwnPolicy = None,
    part: Part = None,
    finetune_epochs: TuningEpochs = None,
    finetune_lr: TuningRate = None,
    steps: Annotated[str, typer.Option(help="Changes of one layer's bits.")] = "-1,1",
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Change one layer's bits at a time and measure the accuracy again; standard errors by paired bootstrap.

    Accuracies are measured as the run's enumeration did it, unless told otherwise.
    """
    from pareto import plot_sensitivity
    from waveq.codesign.pictures import save_figure
    from waveq.codesign.space import SENSITIVITY, run_protocol, run_sensitivity
    from waveq.train.lock import alone_in_runs
    from waveq.train.trained_run import TrainedRun

    run = finished_run(run, model, data, policy, verb="sensitivity", imports=imports)
    trained = TrainedRun(run)
    protocol = changed_protocol(run_protocol(trained), part, finetune_epochs, finetune_lr)
    with alone_in_runs(run):
        table = run_sensitivity(trained, protocol=protocol, steps=parse_integers("--steps", steps))
        save_figure(plot_sensitivity(table), run / "sensitivity.png")
    rows = [
        (
            str(row["layer"]),
            f"{row['bits']} -> {row['changed_bits']}",
            f"{row['change']:+.2f}",
            f"{row['standard_error']:.2f}",
        )
        for row in table.to_dict("records")
    ]
    means = [f"mean over layers of {step:+d} bit: {part['change'].mean():+.2f}" for step, part in table.groupby("step")]
    text = "\n".join([aligned(("layer", "bits", "points", "std. error"), rows), *means])
    say(f"written to {run}: {SENSITIVITY}, sensitivity.png")
    emit(text, {"run": str(run), "sensitivity": table.to_dict("records")}, as_json=as_json)
