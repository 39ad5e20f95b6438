"""``waveq frontier``: the policies that no other one beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from waveq.cli.common import AsJson, aligned, cell, emit
from waveq.cli.parsing import parse_sense

if TYPE_CHECKING:
    import pandas as pd

    from waveq.codesign.certainty import Certainty
    from waveq.policy import Policy

_COST = "mean_bits"  # of a campaign
_OF_A_TABLE, _OF_A_CAMPAIGN = "accuracy=max,energy_pj=min", f"accuracy=max,{_COST}=min"
__all__ = ["efficient_of", "front_table", "frontier", "register"]


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "frontier",
        epilog="Example: waveq frontier runs/demo    "
        "or: waveq frontier runs/demo/policies.csv --sense accuracy=max,cycles=min",
        short_help="The efficient policies, a picture, where a policy lies.",
    )(frontier)


def frontier(
    source: Annotated[
        Path, typer.Argument(help="A run folder, a .csv or .parquet of policies, or a campaign's .sqlite.")
    ],
    sense: Annotated[
        str | None,
        typer.Option(help=f"Objectives, each max or min (default: {_OF_A_TABLE}; of a campaign {_OF_A_CAMPAIGN})."),
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file to mark (default: the run's own).")] = None,
    budget: Annotated[list[float] | None, typer.Option(help="Limit on the x axis to mark; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for all that is written (default: the source's).")] = None,
    html: Annotated[bool, typer.Option("--html", help="Also a page, one file, whose points show their bits.")] = False,
    as_json: AsJson = False,
) -> None:
    """The policies that no other one beats, as a table and a picture, with the learned policy marked."""
    from waveq._files import whole
    from waveq.codesign.certainty import band_of, certainty_sentences
    from waveq.codesign.frames import write_frame
    from waveq.codesign.pictures import frontier_figure, readable, save_figure, scaled_band
    from waveq.codesign.placement import FRONT, PLACED, SENSE, TABLE, own_bits, place_run
    from waveq.codesign.report import OWN_LABEL, placement_sentence
    from waveq.codesign.space import read_table
    from waveq.codesign.tables import is_campaign
    from waveq.policy import Policy
    from waveq.train.lock import alone_in_runs
    from waveq.train.trained_run import TrainedRun

    if source.suffix == ".json":
        raise ValueError(
            f"{source} is no table of policies; give a run folder, .csv, .parquet or .sqlite, and mark a policy with "
            f"--policy {source}"
        )
    is_run = source.is_dir()
    if is_run:
        TrainedRun(source)  # or says that it is none
    table = source / TABLE if is_run else source
    folder = out or (source if is_run else source.parent)
    chosen = parse_sense(sense or (_OF_A_CAMPAIGN if is_campaign(table) else _OF_A_TABLE))
    places = is_run and policy is None and chosen == SENSE
    names = [FRONT, "frontier.png", *(["frontier.html"] if html else []), *([PLACED] if places else [])]
    _keep_inputs([table, *([policy] if policy else [])], [folder / name for name in names])
    own = Policy.load(policy) if policy else Policy.load(source / "policy.json") if is_run else None
    frame = read_table(table, costs=list(chosen), policy=own or _policy_beside(table))
    front = efficient_of(table, frame, chosen)
    bits = None if own is None else own_bits(own, frame.columns)
    mark = {} if bits is None else {OWN_LABEL if policy is None else policy.stem: bits}
    drawn: dict[str, Any] = {"sense": chosen, "mark": mark, "budgets": budget or ()}
    drawn["layers"] = None if bits is None else list(bits)
    _check_drawn(table, frame, front, drawn)
    lines = [front_table(front), f"{len(front)} of {len(frame):,} policies are efficient"]
    data: dict[str, Any] = {"policies": len(frame), "frontier": front.to_dict("records"), "sense": chosen}
    band = None
    with alone_in_runs(folder):
        if places:
            placement = place_run(TrainedRun(source), frame, folder)
            placed, band = placement.summary(), band_of(placement.front, "energy_pj")
            lines[0] = front_table(placement.front)
            lines += [placement_sentence(placed), *certainty_sentences(placed["certainty"])]
            data |= {"placement": placed, "frontier": placement.front.to_dict("records")}
        else:
            sure = _certainty(table, frame, front, chosen)
            told = front if sure is None or sure.front is None else sure.front
            write_frame(folder / FRONT, told)
            if sure is not None:
                lines[0], band = front_table(told), band_of(told, _COST)
                lines += certainty_sentences(sure.told)
                data |= {"certainty": sure.told, "frontier": told.to_dict("records")}
        save_figure(frontier_figure(frame, **drawn, band=band), folder / "frontier.png")
        if html:
            from pareto import plot_html

            shown, senses, limits = readable(frame, chosen, budget or ())
            drawn |= {"sense": senses, "budgets": limits, "band": scaled_band(band, frame, chosen)}
            with whole(folder / "frontier.html") as draft:
                plot_html(shown, shown.loc[front.index], draft, title=f"Policies of {source.name}", **drawn)
    lines.append(f"written to {folder}: {', '.join(names)}")
    emit("\n".join(lines), data, as_json=as_json)


def _certainty(path: Path, frame: pd.DataFrame, front: pd.DataFrame, sense: Mapping[str, str]) -> Certainty | None:
    """How sure the frontier of a campaign is; None for other tables, which do not know of images."""
    from waveq.codesign.certainty import certainty_of
    from waveq.codesign.tables import is_campaign

    if not is_campaign(path) or sense != {"accuracy": "max", _COST: "min"}:
        return None
    return certainty_of(path, frame, front, list(frame.attrs["layers"]), _COST, None)


def _policy_beside(table: Path) -> Policy | None:
    """The policy of the run folder that the table lies in, which tells the columns of bits."""
    from waveq.policy import Policy

    path = table.parent / "policy.json"
    return Policy.load(path) if path.exists() and (table.parent / "config.json").exists() else None


def _keep_inputs(inputs: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Refuse to write onto a file that is read, by whatever name."""
    read = {path.resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in read:
            raise ValueError(f"{path} is read, and would be written too; name another folder for results with --out")


def _check_drawn(path: Path, frame: pd.DataFrame, front: pd.DataFrame, drawn: Mapping[str, Any]) -> None:
    """What the picture shows is there, in the units of the table; nothing is written before.

    Raises:
        ValueError: a budget that no policy keeps, a marked policy that is not in the table.
    """
    from pareto.plotdata import plot_data

    try:
        plot_data(frame, front, **drawn)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def efficient_of(path: Path, frame: pd.DataFrame, sense: Mapping[str, str]) -> pd.DataFrame:
    """The efficient rows of a table; what is wrong with it is told with the file's name.

    Raises:
        ValueError: a column that is missing, or no numbers in it.
    """
    from pareto import frontier as efficient_rows

    try:
        return efficient_rows(frame, sense=sense)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def front_table(front: pd.DataFrame, *, longest: int = 30) -> str:
    """The last rows of a frontier as text."""
    rows = [[cell(value) for value in row] for row in front.tail(longest).to_numpy(dtype=object).tolist()]
    more = f"... {len(front) - longest} more in the file\n" if len(front) > longest else ""
    return more + aligned([str(column) for column in front.columns], rows, left=0)
