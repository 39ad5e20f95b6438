"""``waveq codesign``: bits and machine together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from waveq.cli.common import (
    Address,
    AsJson,
    Bits,
    Engine,
    FinishedRun,
    Hardware,
    Part,
    Quiet,
    TuningEpochs,
    TuningRate,
    Workers,
    aligned,
    emit,
    resumable,
    say,
    warnings_as_lines,
)
from waveq.cli.grouped import GroupedCommand
from waveq.cli.parsing import changed_protocol, check_numbers, for_engine, parse_bits, parse_grid

__all__ = ["codesign", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "codesign",
        epilog="Example: waveq codesign runs/demo --grid tiles=4,8,16 --grid weight_buffer_bytes=262144,1048576",
        short_help="Bits and machine together: one frontier of both.",
        cls=GroupedCommand,
    )(codesign)


def codesign(
    run: FinishedRun,
    grid: Annotated[
        list[str], typer.Option(help="Hardware parameter and its values, such as tiles=4,8,16; repeatable.")
    ],
    hardware: Hardware = "stripes",
    how: Annotated[
        str | None,
        typer.Option(
            help='Where policies come from: "allocate" (one table of losses, policies for each machine from it), '
            '"learn" (bits trained at each machine\'s prices), or "both" (default: allocate).'
        ),
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Policies with accuracies measured elsewhere; nothing is measured then.")
    ] = None,
    bits: Bits = "2,3,4,5,8",
    budget: Annotated[
        list[float] | None,
        typer.Option(help="Share of the 8-bit energy that bits are learned within (default 0.3 and 0.45); repeatable."),
    ] = None,
    points: Annotated[int, typer.Option(help="Policies allocated for each machine and cost.")] = 8,
    uniform: Annotated[int, typer.Option(help="Bits of the uniform policy that designs are compared at.")] = 4,
    part: Part = None,
    finetune_epochs: TuningEpochs = None,
    finetune_lr: TuningRate = None,
    engine: Engine = "serial",
    workers: Workers = None,
    address: Address = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure policies, price them on every machine of a grid, and say what designing both saves at equal accuracy.

    Compared are four designs within one envelope: uniform bits or the best ones, on the given machine or on the best
    one, all at least as accurate, as quick and as small as uniform bits on the given machine. The same command goes on
    where it stopped.
    """
    from waveq.codesign.machine_policies import measure_policies
    from waveq.codesign.machines import FOLDER, design_machines
    from waveq.codesign.machines_report import design_rows, savings_sentence, write_machines
    from waveq.codesign.space import read_table, run_protocol
    from waveq.train.lock import alone_in_runs
    from waveq.train.trained_run import TrainedRun

    check_numbers({"workers": workers, "points": points})
    check_numbers({"uniform": uniform}, most=9)
    measures = {
        "how": how,
        "budget": budget,
        "part": part,
        "finetune-epochs": finetune_epochs,
        "finetune-lr": finetune_lr,
    }
    if table is not None and (given := [option for option, value in measures.items() if value is not None]):
        raise ValueError(f"--{given[0]} is for measuring, and --table has the accuracies")
    if budget is not None and how not in ("learn", "both"):
        raise ValueError("--budget is for bits that are learned: leave it out, or add --how learn or --how both")
    for share in budget or ():
        if not 0 < share <= 1:
            raise ValueError(
                f"--budget must be a share of the cost at 8 bits, more than 0 and at most 1, not {share:g}"
            )
    trained = TrainedRun(run)
    asked = parse_grid(grid)
    silent = quiet or as_json
    hint = f"What was measured is in {run}; the same command goes on from there."
    with alone_in_runs(run), resumable(hint), warnings_as_lines():
        if table is None:
            protocol = changed_protocol(run_protocol(trained), part, finetune_epochs, finetune_lr)
            measured = measure_policies(
                trained,
                asked,
                hardware=hardware,
                how=how or "allocate",
                choices=sorted({*parse_bits(bits), uniform}),
                budgets=tuple(budget or (0.3, 0.45)),
                points=points,
                protocol=protocol,
                say=None if silent else say,
                engine=engine,
                progress=not silent,
                **for_engine(engine, workers, address),
            )
            measuring = f"{protocol}, {protocol.part} images"
        else:
            measured = read_table(table, numbers=[*trained.policy, "accuracy"], policy=trained.policy)
            measuring = f"taken from {table.name}"
        found = design_machines(trained, measured, asked, hardware=hardware, uniform=uniform)
        told = {"hardware": hardware, "grid": asked, "how": how, "uniform": uniform, "how_measured": measuring}
        names = write_machines(trained, found, told=told)
    say(f"written to {run / FOLDER}: {', '.join(names)}")
    head = ("design", "machine", "bits", "accuracy %", "energy µJ", "cycles", "area mm2")
    text = f"{aligned(head, design_rows(found), left=3)}\n\n{savings_sentence(found)}"
    data = {"designs": found.designs, "envelope": found.envelope, "savings": found.savings(), "run": str(run / FOLDER)}
    emit(text, {**data, "rows": len(found.frame), "frontier": len(found.front)}, as_json=as_json)
