"""The run that a verb works on: a finished one, or one that is made of a trained network and data of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from waveq.cli.common import say

__all__ = ["OwnData", "OwnModel", "OwnPolicy", "RunOrNone", "finished_run"]

_BITS, _INSTEAD = "8", "Instead of a finished run"
_SOURCES = {"model": "--model", "dataset": "--data", "bits": "--policy", "run_dir": "RUN"}
RunOrNone = Annotated[
    Path | None,
    typer.Argument(metavar="RUN", help="Folder of a finished run (waveq train, waveq demo); or one for --model."),
]
OwnModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="A trained network: PACKAGE.MODULE:FACTORY, a function that gives it.",
        rich_help_panel=_INSTEAD,
    ),
]
OwnData = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Of --model: PACKAGE.MODULE:LOADERS, or a data set by name; see: waveq data",
        rich_help_panel=_INSTEAD,
    ),
]
OwnPolicy = Annotated[
    str | None,
    typer.Option(
        "--policy",
        help=f"Of --model: its policy, a file or a number of bits (default {_BITS}).",
        rich_help_panel=_INSTEAD,
    ),
]


def finished_run(
    run: Path | None, model: str | None, data: str | None, policy: str | None, *, verb: str, imports: list[str] | None
) -> Path:
    """The folder of the run, made first where a network and data are given: nothing is trained then.

    Raises:
        ValueError: neither a run nor a network with data; a network of the zoo, whose weights would be random.
    """
    from waveq.train.user_modules import import_modules, is_own

    import_modules(imports)
    if model is None:
        for option, value in (("--data", data), ("--policy", policy)):
            if value is not None:
                raise ValueError(f"{option} is for --model: a finished run has its own, leave it out")
        if run is None:
            raise ValueError(
                f"waveq {verb} measures accuracy, which needs a trained network and data: a run folder, or --model "
                "PACKAGE.MODULE:FACTORY with --data PACKAGE.MODULE:LOADERS"
            )
        return run
    if data is None:
        raise ValueError(
            f"--data is missing: waveq {verb} measures accuracy, say on what, --data PACKAGE.MODULE:LOADERS"
        )
    if not is_own(model):
        raise ValueError(
            f"--model {model}: a network of the zoo begins with random weights; train it first (waveq train --model "
            f"{model} --data {data}) and give the run folder, or name a function that gives a trained one"
        )
    return _made(run, model, data, policy or _BITS)


def _made(run: Path | None, model: str, data: str, policy: str) -> Path:
    from waveq.train.config import parse_config
    from waveq.train.run import train

    bits = int(policy) if policy.isdecimal() else policy
    fields = {"model": model, "dataset": data, "bits": bits, "epochs": 0, "run_dir": run, "progress": False}
    config = parse_config(
        {name: value for name, value in fields.items() if value is not None}, where="--model, --data", sources=_SOURCES
    )
    found = train(config, say=lambda _line: None)
    say(
        f"{model}: {100 * found.float_validation_accuracy:.2f} % on the validation part of {data}, in floating point; "
        f"run folder {found.run_dir}"
    )
    return found.run_dir
