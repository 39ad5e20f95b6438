"""``waveq explore``: one policy on every machine of a grid."""

from __future__ import annotations

from typing import Annotated

import typer

from waveq.cli.common import AsJson, Imports, Run, aligned, cell, emit, say
from waveq.cli.grouped import GroupedCommand
from waveq.cli.parsing import check_numbers, parse_grid, parse_sense
from waveq.cli.workload import (
    ActivationBits,
    DefaultBits,
    GroupSize,
    InChannels,
    InputShape,
    InputSize,
    Llm,
    LlmContext,
    LlmPhase,
    ModelName,
    NumClasses,
    OwnShapes,
    WorkloadFile,
    named_network,
    priced_policy,
    read_activation_bits,
)
from waveq.train.user_modules import import_modules

__all__ = ["explore", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "explore",
        epilog="Example: waveq explore runs/demo --grid tiles=1,4,16 --grid rows=8,16",
        short_help="A policy on many machines: cycles, energy, area.",
        cls=GroupedCommand,
    )(explore)


def explore(
    policy: Annotated[str, typer.Argument(help="A run folder, a policy file, or one number of bits for all layers.")],
    model: ModelName = None,
    input_size: InputSize = None,
    in_channels: InChannels = None,
    num_classes: NumClasses = None,
    input_shape: InputShape = None,
    data: OwnShapes = None,
    workload: WorkloadFile = None,
    llm: Llm = None,
    phase: LlmPhase = None,
    context: LlmContext = None,
    group_size: GroupSize = None,
    activation_bits: ActivationBits = None,
    default_bits: DefaultBits = None,
    grid: Annotated[
        list[str] | None, typer.Option(help="Hardware parameter and its values, such as tiles=1,2,4; repeatable.")
    ] = None,
    hardware: Annotated[str, typer.Option(help="The machine whose other parameters stay as they are.")] = "stripes",
    sense: Annotated[
        str, typer.Option(help="What makes a machine efficient, each max or min.")
    ] = "area_mm2=min,energy_pj=min",
    batch: Annotated[int, typer.Option(help="Images of one run of the accelerator.")] = 1,
    imports: Imports = None,
    run: Run = None,
    as_json: AsJson = False,
) -> None:
    """Score a policy on every combination of hardware parameters, and show the machines that no other one beats."""
    given = dict(locals())
    from pareto import frontier
    from stripes_sim import explore as explore_machines
    from stripes_sim import load_hardware, plot_exploration
    from stripes_sim.explore import AREA_NOTE
    from waveq.codesign.frames import write_frame
    from waveq.codesign.pictures import save_figure
    from waveq.train.lock import alone_in_runs

    check_numbers({"batch": batch})
    check_numbers({"default-bits": default_bits}, most=16)
    import_modules(imports)
    chosen = parse_sense(sense)
    streamed = None if activation_bits is None else read_activation_bits(activation_bits)
    network, batch = named_network(given)
    priced = priced_policy(policy, network)
    frame = explore_machines(
        priced.layers,
        {"policy": priced.weight_bits} if isinstance(priced.weight_bits, dict) else priced.weight_bits,
        parse_grid(grid) if grid else None,
        hardware=load_hardware(hardware),
        activation_bits=priced.activation_bits if streamed is None else streamed,
        default_bits=default_bits,
        batch=batch,
    )
    front = frontier(frame, sense=chosen, keep="first")
    folder = run or priced.folder("explore")
    swept = list(frame.columns[: list(frame.columns).index("policy")])
    x, y = (*chosen, "area_mm2", "energy_pj")[:2]
    figure = plot_exploration(frame, x=x, y=y, colour=swept[0], efficient=front if len(chosen) == 2 else None)
    with alone_in_runs(folder):
        write_frame(folder / "explore.csv", frame)
        save_figure(figure, folder / "explore.png")
    say(f"written to {folder}: explore.csv, explore.png")
    columns = [*swept, "cycles", "energy_pj", "utilisation", "area_mm2", "bound"]
    table = aligned(
        columns, [[cell(value, digits=4) for value in row] for row in front[columns].to_numpy(dtype=object).tolist()]
    )
    text = f"{len(frame)} machines, {len(front)} efficient ({sense}):\n\n{table}\n\n{AREA_NOTE}"
    told = {"machines": len(frame), "efficient": front.to_dict("records"), "note": AREA_NOTE, "run": str(folder)}
    emit(text, told, as_json=as_json)
