"""``waveq hardware``: the parameters of an accelerator with their units."""

from __future__ import annotations

from typing import Annotated

import typer

from waveq.cli_common import AsJson, aligned, emit

__all__ = ["hardware", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command("hardware", epilog="Example: waveq hardware stripes")(hardware)


def hardware(
    name: Annotated[str, typer.Argument(help="Stripes, DaDianNao, Loom or BitFusion.")] = "stripes",
    as_json: AsJson = False,
) -> None:
    """The parameters of an accelerator, each with its unit."""
    from dataclasses import asdict

    from stripes_sim.hardware import UNITS, Accelerator, BitFusion, DaDianNao, Loom, Stripes

    known: dict[str, type[Accelerator]] = {
        kind.__name__.lower(): kind for kind in (Stripes, DaDianNao, Loom, BitFusion)
    }
    if name.lower() not in known:
        raise ValueError(f"unknown hardware {name!r} (known: {', '.join(known)})")
    machine = asdict(known[name.lower()]())
    rows = [(field, str(value), *UNITS[field]) for field, value in machine.items()]
    emit(aligned(("parameter", "value", "unit", "meaning"), rows, left=4), machine, as_json=as_json)
