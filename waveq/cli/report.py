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
        short_help="report.md, pictures and report.html, one file to mail, from a run folder.",
    )(report)


def report(run: Annotated[Path, typer.Argument(help="Run folder.")], as_json: AsJson = False) -> None:
    """Draw the pictures of a run folder again and write its report.md, and report.html: all of it in one file.

    The page needs no network and nothing beside it: choose a policy, set a budget, take the policy as JSON.
    """
    from waveq.codesign.page import write_page
    from waveq.codesign.report import write_report
    from waveq.train.lock import alone_in_runs

    with alone_in_runs(run):
        path, page = write_report(run), write_page(run)
    emit(f"written: {path}, {page}", {"report": str(path), "page": str(page)}, as_json=as_json)
