"""``waveq score``: what a policy costs on an accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from waveq.cli.common import AsJson, Hardware, Imports, Run, emit, say
from waveq.cli.grouped import GroupedCommand
from waveq.cli.parsing import check_numbers, parse_bits
from waveq.cli.workload import (
    ActivationBits,
    CacheBits,
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
    captured,
    named_network,
    priced_policy,
    read_activation_bits,
)
from waveq.train.user_modules import import_modules

__all__ = ["register", "score"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "score",
        epilog="Example: waveq score runs/demo --breakdown    or: waveq score 4 --model resnet18    "
        "or: waveq score 4 --llm llama-7b --phase decode    "
        "or: waveq score runs/demo --hardware pragmatic --activations validation",
        short_help="Cycles and energy of a policy, layer by layer.",
        cls=GroupedCommand,
    )(score)


def score(
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
    cache_bits: CacheBits = None,
    hardware: Hardware = "stripes",
    activation_bits: ActivationBits = None,
    default_bits: DefaultBits = None,
    batch: Annotated[int, typer.Option(help="Images of one run of the accelerator.")] = 1,
    activations: Annotated[
        str | None,
        typer.Option(
            help="Price what real inputs need, for --hardware whose cycles depend on values (dynamic_stripes, loom, "
            "pragmatic, laconic): validation, test or train images of a run; of --model the same "
            "of its --data, a .npy file, samples first, or inputs, if its factory gives them."
        ),
    ] = None,
    images: Annotated[int, typer.Option(help="Of --activations: so many of them, from the first on.")] = 8,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Energy by part, and a picture of it.")] = False,
    roofline: Annotated[
        bool, typer.Option("--roofline", help="A picture of the layers below the roofs of array and DRAM.")
    ] = False,
    ceilings: Annotated[
        str | None, typer.Option(help="With --roofline: weight bits whose roof is drawn beside the policy's, as 2,8.")
    ] = None,
    export: Annotated[
        list[str] | None,
        typer.Option(help="Also for another simulator: timeloop, zigzag, scalesim or accelergy; repeatable."),
    ] = None,
    imports: Imports = None,
    run: Run = None,
    as_json: AsJson = False,
) -> None:
    """Cycles and energy of a policy on a bit-serial accelerator, with the saving against 16 and 8 bits."""
    given = dict(locals())
    from stripes_sim import load_hardware
    from stripes_sim.dataflows import Sensed, dataflow_named
    from stripes_sim.exports import FORMATS, export_workload
    from waveq._names import check_choice
    from waveq.codesign.pipeline import record_score, save_score
    from waveq.codesign.score import result_data
    from waveq.train.lock import alone_in_runs

    check_numbers({"default-bits": default_bits, "cache-bits": cache_bits}, most=16)
    check_numbers({"batch": batch, "images": images})
    if ceilings is not None and not roofline:
        raise ValueError("--ceilings says nothing without --roofline: leave it out or add it")
    roofs = () if ceilings is None else parse_bits(ceilings, "--ceilings", most=16)
    for target in export or ():
        check_choice("--export", target, tuple(FORMATS))
    import_modules(imports)
    machine = load_hardware(hardware)
    streamed = None if activation_bits is None else read_activation_bits(activation_bits)
    network, batch = named_network(given)
    priced = priced_policy(policy, network)
    inputs = priced.activation_bits if streamed is None else streamed
    values: dict[str, Any] = {}
    if activations is not None:
        from stripes_sim.dataflows import Sensed, dataflow_named

        if not isinstance(dataflow_named(machine.serial), Sensed):
            raise ValueError(
                f"--activations says nothing on {hardware}, whose cycles do not depend on values: leave it out, or "
                "take --hardware dynamic_stripes, loom, pragmatic or laconic"
            )
        found = captured(priced, activations, images, inputs, default_bits)
        values = {"activations": found.activations, "weights": found.weights}
        say(f"{found} of {activations}")
    result = machine.run(
        priced.layers,
        priced.weight_bits,
        inputs,
        batch=batch,
        default_bits=default_bits,
        cache_bits=cache_bits,
        **values,
    )
    folder = run or priced.folder("score")
    with alone_in_runs(folder):
        written = save_score(result, folder, breakdown=breakdown, roofline=roofline, ceilings=roofs)
        if Path(policy).resolve() == folder.resolve():  # else they are of another policy than the run's
            record_score(folder, written)
        say(f"written to {folder}: {', '.join(written)}")
        for target in export or ():
            exported = export_workload(result, folder / target, to=target)
            left = f" (without {', '.join(exported.left_out)}: no products)" if exported.left_out else ""
            say(f"written to {exported.folder}: {len(exported.files)} files{left}")
    text, told = result.table(breakdown=breakdown), {**result_data(result), "run": str(folder)}
    if activations is not None:
        told["values"] = {"of": activations, "samples": found.samples}
    if llm is not None:
        told["tokens_per_s"] = network.new_tokens / result.seconds
        text += f"\n{told['tokens_per_s']:,.4g} tokens per second, most cycles wait for: {result.bound}"
    emit(text, told, as_json=as_json)
