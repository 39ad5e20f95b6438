"""``waveq enumerate``: accuracy and cost of every policy of a space."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    say,
    warnings_as_lines,
)
from waveq.cli.grouped import GroupedCommand
from waveq.cli.own_run import OwnData, OwnModel, OwnPolicy, RunOrNone, finished_run
from waveq.cli.parsing import changed_protocol, check_numbers, for_engine, parse_bits

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["enumerate_policies", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "enumerate",
        epilog="Example: waveq enumerate runs/demo --bits 2,3,4,8    "
        "or, two at a time: waveq enumerate runs/demo --bits 2,3,4,8 --engine processes --workers 2",
        short_help="Accuracy and cost of every policy of a space; resumable.",
        cls=GroupedCommand,
    )(enumerate_policies)


def enumerate_policies(
    run: RunOrNone = None,
    bits: Bits = "2,3,4,5,8",
    activation_bits: Annotated[
        str | None,
        typer.Option(help="Bits that the inputs of every layer may take too (default: they keep the run's)."),
    ] = None,
    model: OwnModel = None,
    data: OwnData = None,
    policy: OwnPolicy = None,
    hardware: Hardware = "stripes",
    part: Part = None,
    finetune_epochs: TuningEpochs = None,
    finetune_lr: TuningRate = None,
    sample: Annotated[int | None, typer.Option(help="So many policies, drawn at random, instead of all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    store: Annotated[Path | None, typer.Option(help="SQLite file of the accuracies (default: in the run).")] = None,
    engine: Engine = "serial",
    workers: Workers = None,
    address: Address = None,
    retry_failed: RetryFailed = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="The run's policies.csv may lose policies that it has.")
    ] = False,
    export: Annotated[Path | None, typer.Option(help="Write the table here too, as .csv or .parquet.")] = None,
    imports: Imports = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate and price every policy of a design space; the same command goes on where it stopped.

    Every policy is treated alike: the run's float network, rounded to the policy's bits, and trained with them for a
    few epochs where asked.
    """
    from stripes_sim import load_hardware
    from waveq.codesign.placement import STORE, TABLE
    from waveq.codesign.space import INPUTS_STORE, enumerate_run, run_protocol
    from waveq.train.lock import alone_in_runs
    from waveq.train.trained_run import TrainedRun

    check_numbers({"sample": sample, "workers": workers})
    if export is not None:
        _check_export(export)
    run = finished_run(run, model, data, policy, verb="enumerate", imports=imports)
    trained = TrainedRun(run)
    usual = STORE if activation_bits is None else INPUTS_STORE
    hint = f"What was evaluated is in {store or run / usual}; the same command goes on from there."
    with alone_in_runs(run), resumable(hint), warnings_as_lines():
        frame = enumerate_run(
            trained,
            load_hardware(hardware),
            choices=parse_bits(bits),
            input_choices=None if activation_bits is None else parse_bits(activation_bits),
            protocol=changed_protocol(run_protocol(trained), part, finetune_epochs, finetune_lr),
            sample=sample,
            seed=seed,
            store=store,
            replace=replace,
            retry_failed=retry_failed,
            engine=engine,
            progress=not (quiet or as_json),
            **for_engine(engine, workers, address),
        )
    if export is not None:
        _export(frame, export)
    best = frame.iloc[int(frame["accuracy"].to_numpy().argmax())]
    text = (
        f"{len(frame):,} policies: accuracy {frame['accuracy'].min():.2f} to {frame['accuracy'].max():.2f} %, energy "
        f"{frame['energy_pj'].min() / 1e6:.4g} to {frame['energy_pj'].max() / 1e6:.4g} µJ\n"
        f"written to {run / TABLE}; next: waveq frontier {shlex.quote(str(run))}"
    )
    emit(
        text,
        {"run": str(run), "policies": len(frame), "table": str(run / TABLE), "best": best.to_dict()},
        as_json=as_json,
    )


def _check_export(path: Path) -> None:
    """Before hours of work, not after."""
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--export must end in .csv or .parquet, not {str(path)!r}")
    if path.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError("writing Parquet needs pyarrow: pip install 'waveq[parquet]'")


def _export(frame: pd.DataFrame, path: Path) -> None:
    from waveq._files import whole
    from waveq.codesign.frames import write_frame

    if path.suffix == ".csv":
        write_frame(path, frame)
    else:
        with whole(path) as draft:
            frame.to_parquet(draft, index=False)
    say(f"written to {path}")
