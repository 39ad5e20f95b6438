"""RUN/codesign: the frontier of bits and machines as tables, a picture, a page, and the four designs compared."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pandas as pd

from waveq._files import write_json, write_text
from waveq.codesign.campaign import versions
from waveq.codesign.frames import write_frame
from waveq.codesign.machines import DESIGNS, FOLDER, SENSE, MachineDesigns
from waveq.codesign.pictures import readable, save_figure
from waveq.train.trained_run import TrainedRun

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DESIGN_WORDS", "design_rows", "machines_figure", "savings_sentence", "write_machines"]

DESIGN_WORDS = {
    "neither": "uniform bits, the given machine",
    "machine": "uniform bits, the best machine",
    "bits": "the best bits, the given machine",
    "both": "the best bits and machine",
}
_HEAD = ("design", "machine", "bits", "accuracy %", "energy µJ", "cycles", "area mm²")
_ORIGIN_COLOURS = {"allocated": "#0072B2", "learned": "#D55E00"}


def design_rows(found: MachineDesigns) -> list[tuple[str, ...]]:
    """The four designs, in the columns of a table."""
    return [(DESIGN_WORDS[name], *_cells(found, found.designs[name])) for name in DESIGNS]


def _cells(found: MachineDesigns, row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        ", ".join(f"{name} {row[name]}" for name in found.parameters),
        "/".join(str(row[name]) for name in found.layers),
        f"{row['accuracy']:.2f}",
        f"{row['energy_pj'] / 1e6:.4g}",
        f"{row['cycles']:,.0f}",
        f"{row['area_mm2']:.4g}",
    )


def savings_sentence(found: MachineDesigns) -> str:
    """What designing both saves, in words."""
    share = {name: f"{100 * value:.1f} %" for name, value in found.savings().items()}
    floor = found.envelope
    return (
        f"With at least {floor['accuracy']:.2f} % accuracy, at most {floor['cycles']:,.0f} cycles and "
        f"{floor['area_mm2']:.4g} mm² (what uniform bits reach and need on the given machine), designing both takes "
        f"{share['machine']} less energy than the best machine for uniform bits, and {share['bits']} less than the "
        "best bits for the given machine."
    )


def write_machines(run: TrainedRun, found: MachineDesigns, *, told: Mapping[str, Any]) -> list[str]:
    """Write RUN/codesign; returns the names of the files.

    Args:
        run: the run.
        found: what came out.
        told: how it was asked for, plain values for codesign.json.
    """
    folder = run.path / FOLDER
    write_frame(folder / "machines.csv", found.frame)
    write_frame(folder / "frontier.csv", found.front)
    summary = {"envelope": dict(found.envelope), "designs": dict(found.designs), "savings": found.savings()}
    write_json(folder / "codesign.json", {**summary, **told, "versions": versions()}, default=_plain)
    save_figure(machines_figure(found), folder / "codesign.png")
    write_text(folder / "codesign.html", _page(run, found, told))
    return ["machines.csv", "frontier.csv", "codesign.json", "codesign.png", "codesign.html"]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else str(value)


def machines_figure(found: MachineDesigns) -> Figure:
    """Accuracy against energy: a thin line for the frontier of every machine, a thick one for that of all together, and
    the four designs; policies below the line of their machine are left out."""
    from matplotlib.figure import Figure

    from pareto import frontier

    figure = Figure(figsize=(8.0, 5.2), layout="constrained")
    axes = figure.add_subplot()
    sense = {"energy_pj": "min", "accuracy": "max"}
    for number, (_, rows) in enumerate(found.frame.groupby(list(found.parameters), sort=False)):
        front = frontier(rows, sense=sense)
        label = "one machine's frontier" if number == 0 else None
        axes.step(
            front["energy_pj"] / 1e6, front["accuracy"], where="post", color="#B0B0B0", linewidth=0.9, label=label
        )
    best = frontier(found.frame, sense=sense)
    axes.step(best["energy_pj"] / 1e6, best["accuracy"], where="post", color="black", linewidth=1.8, label="of all")
    for origin, colour in _ORIGIN_COLOURS.items():
        rows = best[best["origin"] == origin]
        if len(rows):
            axes.plot(
                rows["energy_pj"] / 1e6, rows["accuracy"], "o", color=colour, markersize=5, label=f"bits {origin}"
            )
    for (name, row), marker in zip(found.designs.items(), "sDP*", strict=True):
        energy = row["energy_pj"] / 1e6
        axes.plot(energy, row["accuracy"], marker, markersize=11, markerfacecolor="none", label=DESIGN_WORDS[name])
    axes.set(xlabel="Energy (µJ)", ylabel="Accuracy (%)", xscale="log")
    axes.legend(fontsize="small", loc="lower right")
    return figure


def _page(run: TrainedRun, found: MachineDesigns, told: Mapping[str, Any]) -> str:
    from pareto import frontier
    from pareto.html import cloud_data, page_part, page_text

    shown, sense, _ = readable(_worth_showing(found).drop(columns="origin"), SENSE)
    front = frontier(shown, sense=sense)
    marks = {
        DESIGN_WORDS[name]: {key: row[key] for key in (*found.parameters, *found.layers)}
        for name, row in reversed(list(found.designs.items()))  # the page begins with the first: both
    }
    energy = next(name for name in sense if name.startswith("Energy"))
    data = cloud_data(shown, front, sense=sense, x=energy, y="accuracy", mark=marks, layers=list(found.layers))
    count = len(found.frame.groupby(list(found.parameters)))
    policies = len(found.frame) // count
    prose = {
        "designs": [savings_sentence(found), f"How accuracies were measured: {told['how_measured']}."],
        "machines": [
            f"{policies:,} policies on {count:,} machines; shown are those that no other policy on the same machine "
            f"beats, and uniform ones. {len(found.front):,} are efficient in accuracy, energy, cycles and area."
        ],
    }
    tables = {"designs": {"head": _HEAD, "rows": design_rows(found)}}
    body = [
        '<section>\n<div class="scroll" data-table="designs"></div>\n<div data-prose="designs"></div>\n</section>',
        '<section>\n<div data-prose="machines"></div>\n</section>',
        *map(page_part, ("cloud.html", "policy.html", "table.html")),
    ]
    scripts = [*map(page_part, ("policy.js", "cloud.js", "table.js"))]
    scripts.append((files("waveq.codesign") / "page.js").read_text(encoding="utf-8"))
    title = f"Bits and machines: {run.config.model} on {run.config.dataset}"
    return page_text({**data, "prose": prose, "tables": tables}, title=title, body=body, scripts=scripts)


def _worth_showing(found: MachineDesigns) -> pd.DataFrame:
    """Each machine's own frontier, and what is marked: a page of all policies on all machines would be megabytes."""
    from pareto import is_efficient

    bits = found.frame[list(found.layers)].to_numpy()
    keep = pd.Series((bits == bits[:, :1]).all(axis=1), index=found.frame.index)
    for _, rows in found.frame.groupby(list(found.parameters), sort=False):
        costs = rows[list(SENSE)]
        keep.loc[rows.index[is_efficient(costs, sense=SENSE)]] = True
    for row in found.designs.values():
        same = found.frame[[*found.parameters, *found.layers]] == [row[n] for n in (*found.parameters, *found.layers)]
        keep |= same.all(axis=1)
    return found.frame[keep].reset_index(drop=True)
