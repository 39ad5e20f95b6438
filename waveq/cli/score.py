"""``waveq score``: what a policy costs on an accelerator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from waveq.cli.common import AsJson, Hardware, Imports, Run, emit, say
from waveq.cli.parsing import check_numbers
from waveq.train.user_modules import import_modules

__all__ = ["register", "score"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "score",
        epilog="Example: waveq score runs/demo --breakdown    or: waveq score 4 --model resnet18",
        short_help="Cycles and energy of a policy, layer by layer.",
    )(score)


def score(
    policy: Annotated[str, typer.Argument(help="A run folder, a policy file, or one number of bits for all layers.")],
    model: Annotated[str | None, typer.Option(help="Network of the zoo that a policy file or number is for.")] = None,
    input_size: Annotated[int | None, typer.Option(help="Side of its images in pixels.")] = None,
    in_channels: Annotated[int | None, typer.Option(help="Channels of its images.")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Its classes.")] = None,
    workload: Annotated[
        Path | None, typer.Option(help="Layer shapes from a CSV or JSON file instead of --model.")
    ] = None,
    hardware: Hardware = "stripes",
    activation_bits: Annotated[
        int | None, typer.Option(help="Bits of all activations (default: the policy's, 16).")
    ] = None,
    default_bits: Annotated[int | None, typer.Option(help="Bits of layers that the policy leaves out.")] = None,
    batch: Annotated[int, typer.Option(help="Images of one run of the accelerator.")] = 1,
    breakdown: Annotated[bool, typer.Option("--breakdown", help="Energy by part, and a picture of it.")] = False,
    imports: Imports = None,
    run: Run = None,
    as_json: AsJson = False,
) -> None:
    """Cycles and energy of a policy on a bit-serial accelerator, with the saving against 16 and 8 bits."""
    from stripes_sim import load_hardware
    from waveq.cli.workload import Sizes, priced_policy
    from waveq.codesign.pipeline import save_score
    from waveq.codesign.score import result_data

    check_numbers({"activation-bits": activation_bits, "default-bits": default_bits}, most=16)
    check_numbers({"batch": batch})
    import_modules(imports)
    machine = load_hardware(hardware)
    priced = priced_policy(policy, model, workload, Sizes(input_size, in_channels, num_classes))
    streamed = priced.activation_bits if activation_bits is None else activation_bits
    result = machine.run(priced.layers, priced.weight_bits, streamed, batch=batch, default_bits=default_bits)
    folder = run or priced.folder("score")
    say(f"written to {folder}: {', '.join(save_score(result, folder, breakdown=breakdown))}")
    emit(result.table(breakdown=breakdown), {**result_data(result), "run": str(folder)}, as_json=as_json)
