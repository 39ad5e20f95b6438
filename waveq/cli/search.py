"""``waveq search``: good policies of networks whose policies are too many to enumerate."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from waveq.cli.common import (
    Address,
    AsJson,
    Bits,
    Engine,
    Hardware,
    Imports,
    Part,
    Quiet,
    RetryFailed,
    TuningEpochs,
    TuningRate,
    Workers,
    emit,
    resumable,
    warnings_as_lines,
)
from waveq.cli.frontier import front_table
from waveq.cli.grouped import GroupedCommand
from waveq.cli.own_run import OwnData, OwnModel, OwnPolicy, RunOrNone, finished_run
from waveq.cli.parsing import changed_protocol, check_numbers, for_engine, parse_bits

__all__ = ["register", "search"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "search",
        epilog="Example: waveq search runs/demo --evaluations 50    then: waveq frontier runs/demo/search.csv",
        short_help="Good policies of a network that is too large to enumerate; resumable.",
        cls=GroupedCommand,
    )(search)


def search(
    run: RunOrNone = None,
    evaluations: Annotated[int, typer.Option(help="Policies measured in the end, earlier ones included.")] = 300,
    bits: Bits = "2,3,4,5,8",
    objective: Annotated[
        str, typer.Option(help="What is traded against accuracy: energy_pj, cycles or weight_bytes.")
    ] = "energy_pj",
    floor: Annotated[
        float | None, typer.Option(help="Accuracy (percent) below which a policy is of no interest (default: none).")
    ] = None,
    model: OwnModel = None,
    data: OwnData = None,
    policy: OwnPolicy = None,
    hardware: Hardware = "stripes",
    part: Part = None,
    finetune_epochs: TuningEpochs = None,
    finetune_lr: TuningRate = None,
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    store: Annotated[Path | None, typer.Option(help="SQLite file of the accuracies (default: in the run).")] = None,
    retry_failed: RetryFailed = False,
    engine: Engine = "serial",
    workers: Workers = None,
    address: Address = None,
    imports: Imports = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure the policies that are most likely to lie on the frontier; the same command goes on where it stopped.

    A policy's cost is known beforehand. Its accuracy is guessed from what is measured (a Gaussian process over the
    layers' bits), and the policies that are expected to add most to the frontier are measured next. The run's own comes
    first.
    """
    from stripes_sim import load_hardware
    from waveq.codesign.certainty import band_of, certainty_sentences
    from waveq.codesign.pictures import frontier_figure, save_figure
    from waveq.codesign.placement import STORE, own_bits
    from waveq.codesign.report import OWN_LABEL, placement_sentence
    from waveq.codesign.search import FOUND, search_run
    from waveq.codesign.space import run_protocol
    from waveq.train.lock import alone_in_runs
    from waveq.train.trained_run import TrainedRun

    check_numbers({"evaluations": evaluations, "workers": workers})
    if floor is not None and not 0 <= floor <= 100:
        raise ValueError(f"--floor must be a percentage from 0 to 100, but it is {floor:g}")
    run = finished_run(run, model, data, policy, verb="search", imports=imports)
    trained = TrainedRun(run)
    hint = f"What was evaluated is in {store or run / STORE}; the same command goes on from there."
    with alone_in_runs(run), resumable(hint), warnings_as_lines():
        frame, front, placement = search_run(
            trained,
            load_hardware(hardware),
            choices=parse_bits(bits),
            objective=objective,
            evaluations=evaluations,
            protocol=changed_protocol(run_protocol(trained), part, finetune_epochs, finetune_lr),
            floor=floor,
            seed=seed,
            store=store,
            retry_failed=retry_failed,
            engine=engine,
            progress=not (quiet or as_json),
            **for_engine(engine, workers, address),
        )
        sense = {"accuracy": "max", objective: "min"}
        own = own_bits(trained.policy, frame.columns)
        band = None if placement is None else band_of(placement.front, objective)
        figure = frontier_figure(frame, sense=sense, mark={OWN_LABEL: own}, layers=list(own), band=band)
        save_figure(figure, run / "search.png")
    lines = [front_table(front), f"{len(front)} of {len(frame):,} measured policies are efficient"]
    told: dict[str, Any] = {
        "run": str(run),
        "policies": len(frame),
        "frontier": front.to_dict("records"),
        "sense": sense,
    }
    if placement is not None:
        placed = placement.summary()
        lines += [placement_sentence(placed), *certainty_sentences(placed["certainty"])]
        told["placement"] = placed
    if len(frame) > evaluations:
        more = f"--evaluations {len(frame) + evaluations}"
        lines.append(f"nothing was measured: {store or run / STORE} held as many before; {more} adds {evaluations}")
    table = run / FOUND
    lines.append(f"written to {table} and {run / 'search.png'}; next: waveq frontier {shlex.quote(str(table))}")
    emit("\n".join(lines), told, as_json=as_json)
