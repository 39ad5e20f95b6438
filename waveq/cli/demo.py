"""``waveq demo``: everything in one command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from waveq.cli.common import AsJson, Hardware, Quiet, emit, resumable, say_progress
from waveq.cli.parsing import parse_bits

if TYPE_CHECKING:
    from waveq.codesign.deployed import Deployed
    from waveq.codesign.pipeline import CoDesign

__all__ = ["demo", "demo_text", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "demo",
        epilog="Example: waveq demo --run runs/demo",
        short_help="The whole pipeline on handwritten digits, a few minutes.",
    )(demo)


def demo(
    run: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Initial weights and order of the data.")] = 0,
    bits: Annotated[str, typer.Option(help="Bits that every layer may take in the enumerated space.")] = "2,3,4,8",
    hardware: Hardware = "stripes",
    finetune_epochs: Annotated[int, typer.Option(help="Epochs that every policy is trained; 0 only rounds.")] = 2,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a small network on handwritten digits, learn its bits, price them, evaluate every other policy, export it.

    The data come with waveq. The last step, RUN/model.onnx in ONNX Runtime, needs waveq[export].
    After Ctrl-C the same command goes on where it stopped.
    """
    from waveq.codesign.pipeline import codesign
    from waveq.codesign.protocol import Protocol
    from waveq.train.config import load_recipe
    from waveq.train.saying import say_nothing

    silent = quiet or as_json
    # A third of the training images is held out: a tenth would be 143, too few to tell policies apart.
    changes = {"run_dir": run, "seed": seed, "validation": 0.3, "threads": 1, "progress": not silent}
    config = load_recipe("digits", sources={"run_dir": "--run", "seed": "--seed"}, **changes)
    with resumable(f"Everything so far is in {run}; the same command goes on from there."):
        design = codesign(
            config,
            hardware=hardware,
            choices=parse_bits(bits),
            protocol=Protocol(finetune_epochs=finetune_epochs),
            say=say_nothing if silent else say_progress,
        )
        if not silent:
            say_progress("export: integers in ONNX, run by ONNX Runtime")
        deployed = _deployed(design)
    data = deployed if isinstance(deployed, str) else deployed.to_dict()
    page = f"all of it as one page, to open in a browser or to mail: {design.page}"
    emit(f"{demo_text(design)}\n{deployed}\n{page}", {**design.to_dict(), "onnx": data}, as_json=as_json)


def _deployed(design: CoDesign) -> Deployed | str:
    """The network in ONNX Runtime, or a sentence that says why not: what came before is not lost by it."""
    from waveq.codesign.deployed import deploy

    try:
        return deploy(design.run)
    except (ImportError, ValueError) as error:
        return f"model.onnx was left out: {error}"


def demo_text(design: CoDesign) -> str:
    """What the demo prints of the pipeline."""
    from waveq.cli.train import result_text
    from waveq.codesign.certainty import certainty_sentences
    from waveq.codesign.report import placement_sentence

    placed = design.placement.summary()
    total = sum(design.seconds.values())
    return "\n".join(
        [
            "",
            result_text(design.training).rsplit("\n\n", 1)[0],
            "",
            str(design.score),
            "",
            f"{placed['policies']:,} policies evaluated, {placed['frontier']} efficient. {placement_sentence(placed)}",
            *certainty_sentences(placed["certainty"]),
            f"report and pictures: {design.report} ({total:.0f} s)",
        ]
    )
