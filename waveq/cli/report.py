"""``waveq report``: the pages of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from waveq.cli.common import AsJson, emit

__all__ = ["register", "report"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "report",
        epilog="Example: waveq report runs/demo",
        short_help="report.md and pictures from what a run folder holds.",
    )(report)


def report(run: Annotated[Path, typer.Argument(help="Run folder.")], as_json: AsJson = False) -> None:
    """Draw the pictures of a run folder again and write its report.md."""
    from waveq.codesign.report import write_report
    from waveq.train.lock import alone_in_runs

    with alone_in_runs(run):
        path = write_report(run)
    emit(f"written: {path}", {"report": str(path)}, as_json=as_json)
