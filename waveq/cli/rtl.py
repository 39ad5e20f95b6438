"""``waveq rtl``: one layer of a learned policy on the weight-serial tile, in Verilog."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from waveq.cli.common import AsJson, FinishedRun, Hardware, Imports, emit
from waveq.cli.parsing import check_numbers
from waveq.train.user_modules import import_modules

__all__ = ["register", "rtl"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "rtl",
        epilog="Example: waveq rtl runs/demo --layer conv2 --simulate",
        short_help="The weight-serial tile in Verilog, with a testbench for one layer.",
    )(rtl)


def rtl(
    run: FinishedRun,
    layer: Annotated[str | None, typer.Option(help="A layer that the run's policy gives bits to.")] = None,
    hardware: Hardware = "stripes",
    image: Annotated[int, typer.Option(help="Test image that the layer's inputs are taken from.")] = 0,
    output_rows: Annotated[
        int | None,
        typer.Option(help="Only so many rows of a convolution's output: large layers take long to simulate."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to (default: RUN/rtl-LAYER).")] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Run the testbench with Icarus Verilog.")] = False,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Write the weight-serial tile in Verilog, with a testbench for one layer of a run's policy.

    The testbench runs the layer on its integer weights and on what it meets in a test image, and compares every output
    with NumPy's and the cycles with those of `waveq score`.
    """
    from stripes_sim import load_hardware
    from stripes_sim.rtl import simulate as run_testbench
    from waveq.codesign.rtl import run_rtl
    from waveq.train.lock import alone_in_runs
    from waveq.train.trained_run import TrainedRun

    check_numbers({"image": image}, least=0)
    check_numbers({"output-rows": output_rows})
    import_modules(imports)
    machine = load_hardware(hardware)
    trained = TrainedRun(run)
    if layer is None:
        raise ValueError(f"--layer says which: {', '.join(trained.policy)}")
    folder = out or run / f"rtl-{layer}"
    with alone_in_runs(run if out is None else folder):
        made = run_rtl(trained, layer, machine, folder, image=image, output_rows=output_rows)
    data = dataclasses.asdict(made)
    text = (
        f"written to {made.folder}: {', '.join(made.files)}\n"
        f"{layer}: {made.cycles:,} cycles, {made.tiles} of {machine.tiles} tiles with work, "
        f"{made.accumulator_bits}-bit accumulators\n"
    )
    if simulate:
        found = run_testbench(made.folder)
        data["simulated"] = dataclasses.asdict(found)
        right = found.outputs - found.wrong
        text += f"simulated: {right:,} of {found.outputs:,} outputs equal NumPy's, {found.cycles:,} cycles"
    else:
        text += f"simulate with: cd {made.folder} && iverilog -g2012 -s testbench -o layer.vvp *.v && vvp layer.vvp"
    emit(text, data, as_json=as_json)
    if simulate and not found.passed:
        raise RuntimeError(f"the testbench in {made.folder} failed: {found.text}")
