"""``waveq export``: the final network of a run as a file that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from waveq.cli.common import AsJson, FinishedRun, Imports, emit
from waveq.train.user_modules import import_modules

__all__ = ["export", "register"]

_SAMPLES = 64
_TARGETS = "onnx, torchao (need waveq[export]), qonnx (needs qonnx too), hf (needs waveq[hf]), c or npz."


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "export",
        epilog="Example: waveq export runs/demo --to onnx    or: waveq export runs/demo --to npz --path net.npz",
        short_help="The final network with integer weights: ONNX, QONNX, Hugging Face, torchao, C, or a NumPy archive.",
    )(export)


def export(
    run: FinishedRun,
    to: Annotated[str, typer.Option(help=_TARGETS)] = "onnx",
    path: Annotated[
        Path | None, typer.Option(help="The file, or folder of hf (default: RUN/model.<its ending>).")
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="Of ONNX; default: the first with the smallest integer types for all layers.")
    ] = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Write the final network of a run with its weights as integers.

    What was exported is compared with torch on test images first; the file appears whole and right, or not at all.
    """
    import dataclasses

    from waveq._names import check_choice
    from waveq.exporting.door import SUFFIXES
    from waveq.exporting.door import export as export_network
    from waveq.train.lock import alone_in_runs
    from waveq.train.trained_run import TrainedRun

    check_choice("--to", to, tuple(SUFFIXES))
    ending = "" if path is None else path.suffix.removeprefix(".")
    if ending in SUFFIXES.values() and not SUFFIXES[to].endswith(ending):
        raise ValueError(f"--path {path} ends like another target's file; --to {to} writes .{SUFFIXES[to]}")
    import_modules(imports)
    trained = TrainedRun(run)
    images, _ = next(iter(trained.images("test")))
    target: Any = to
    file = path or run / f"model.{SUFFIXES[to]}"
    with alone_in_runs(file.parent):
        made = export_network(
            trained.final_network(), trained.policy, to=target, path=file, sample=images[:_SAMPLES], opset=opset
        )
    emit(str(made), dataclasses.asdict(made), as_json=as_json)
