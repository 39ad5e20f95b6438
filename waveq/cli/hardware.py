"""``waveq hardware``: what an accelerator is."""

from __future__ import annotations

from typing import Annotated

import typer

from waveq.cli.common import AsJson, emit

__all__ = ["hardware", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "hardware",
        epilog="Example: waveq hardware stripes    or: waveq hardware loom",
        short_help="Parameters of an accelerator, with units and sources.",
    )(hardware)


def hardware(
    name: Annotated[str | None, typer.Argument(help="An accelerator by name, or a TOML file.")] = None,
    as_json: AsJson = False,
) -> None:
    """The parameters of an accelerator with their units and sources; without a name, which there are."""
    from stripes_sim import hardware_names, load_machine

    if name is None:
        emit("\n".join(hardware_names()), {"hardware": hardware_names()}, as_json=as_json)
        return
    machine = load_machine(name)
    emit(str(machine), {"origin": machine.origin, "parameters": machine.rows()}, as_json=as_json)
