"""``waveq score``: what a policy costs on an accelerator."""

from __future__ import annotations

from typing import Annotated

import typer

from waveq.cli.common import AsJson, Hardware, Imports, Run, emit, say
from waveq.cli.parsing import check_numbers
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
    Network,
    NumClasses,
    WorkloadFile,
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
        "or: waveq score 4 --llm llama-7b --phase decode",
        short_help="Cycles and energy of a policy, layer by layer.",
    )(score)


def score(
    policy: Annotated[str, typer.Argument(help="A run folder, a policy file, or one number of bits for all layers.")],
    model: ModelName = None,
    input_size: InputSize = None,
    in_channels: InChannels = None,
    num_classes: NumClasses = None,
    input_shape: InputShape = None,
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
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Energy by part, and a picture of it.")] = False,
    imports: Imports = None,
    run: Run = None,
    as_json: AsJson = False,
) -> None:
    """Cycles and energy of a policy on a bit-serial accelerator, with the saving against 16 and 8 bits."""
    from stripes_sim import load_hardware
    from waveq.codesign.pipeline import save_score
    from waveq.codesign.score import result_data
    from waveq.train.lock import alone_in_runs

    check_numbers({"default-bits": default_bits, "cache-bits": cache_bits}, most=16)
    check_numbers({"batch": batch})
    import_modules(imports)
    machine = load_hardware(hardware)
    streamed = None if activation_bits is None else read_activation_bits(activation_bits)
    # sequences of a language model are part of its workload: they share weights and have a cache each
    sequences, batch = (batch, 1) if llm is not None else (None, batch)
    network = Network(
        model, workload, input_size, in_channels, num_classes, input_shape, llm, phase, context, group_size, sequences
    )
    priced = priced_policy(policy, network)
    inputs = priced.activation_bits if streamed is None else streamed
    result = machine.run(
        priced.layers, priced.weight_bits, inputs, batch=batch, default_bits=default_bits, cache_bits=cache_bits
    )
    folder = run or priced.folder("score")
    with alone_in_runs(folder):
        names = save_score(result, folder, breakdown=breakdown)
    say(f"written to {folder}: {', '.join(names)}")
    text, data = result.table(breakdown=breakdown), {**result_data(result), "run": str(folder)}
    if llm is not None:
        data["tokens_per_s"] = network.new_tokens / result.seconds
        text += f"\n{data['tokens_per_s']:,.4g} tokens per second, most cycles wait for: {result.bound}"
    emit(text, data, as_json=as_json)
