"""report.html of a run folder: what report.md says, as one file that can be mailed, with pictures that answer.

The page is put together from the parts of `pareto.html`; ``page.js`` beside this file draws what a run adds. Whatever a
file of the run may hold (names of layers, warnings, settings) goes into the page's data, never into its HTML.
"""

from __future__ import annotations

import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from waveq._files import write_text
from waveq.codesign.certainty import MEMBERSHIP, band_of, certainty_sentences, store_beside
from waveq.codesign.frames import read_frame
from waveq.codesign.origins import changed_since
from waveq.codesign.pictures import learning_data, readable
from waveq.codesign.placement import DESCRIBED, SENSE, STORE, TABLE, own_bits, place
from waveq.codesign.report import (
    BITS_ARE,
    ENUMERATED,
    MEASURED,
    OWN_LABEL,
    RESULT_HEAD,
    bring_up_to_date,
    how_enumerated,
    how_made,
    layer_table,
    placement_sentence,
    read_sensitivity,
    result_rows,
    search_sentence,
)
from waveq.codesign.search import DESCRIBED as SEARCHED
from waveq.codesign.search import FOUND
from waveq.codesign.space import SENSITIVITY, read_table
from waveq.codesign.training_gap import training_gap
from waveq.method.operand_names import input_name
from waveq.train.trained_run import TrainedRun

__all__ = ["PAGE", "page_data", "write_page"]

PAGE = "report.html"
_CURVE_POINTS = 240  # a picture has no room to show more
_STAGES = {"float": "float network", "search": "search", "wave": "final training"}
_AFTER = (
    ("Policy, layer by layer", "table", "layers"),
    ("Bits while they are learned", "lines", "bits"),
    ("Accuracy while training", "lines", "accuracy"),
    ("Energy of the learned policy, by layer and part", "bars", "energy"),
    ("Sensitivity", "bars", "sensitivity"),
    ("How it was made", "", "made"),
)


def write_page(path: Path) -> Path:
    """Write RUN/report.html; steps that were not run are named with the command that runs them.

    Returns:
        The path of the page.

    Raises:
        ValueError: no finished run; a damaged file.
    """
    from pareto.html import page_part, page_text

    run = TrainedRun(path)
    bring_up_to_date(run)
    data = page_data(run)
    head = [_section("", "table", "results"), _section("" if "cloud" in data else "Frontier", "", "frontier")]
    if "cloud" in data:
        sections, drawing = ["cloud.html", "policy.html", "table.html"], ["policy.js", "cloud.js", "table.js"]
    else:
        sections, drawing = ["policy.html"], ["policy.js"]
    body = [*head, *map(page_part, sections), *(_section(*given) for given in _AFTER)]
    scripts = [*map(page_part, drawing), (files("waveq.codesign") / "page.js").read_text(encoding="utf-8")]
    target = path / PAGE
    write_text(target, page_text(data, title=f"{run.config.model} on {run.config.dataset}", body=body, scripts=scripts))
    return target


def _section(heading: str, kind: str, name: str) -> str:
    """Sentences of this name, and a picture or a table of this kind below; `page.js` fills in what the data have."""
    title = f"<h2>{heading}</h2>\n" if heading else ""
    host = f'<div class="{"scroll" if kind == "table" else "chart"}" data-{kind}="{name}"></div>\n' if kind else ""
    return f'<section>\n{title}{host}<div data-prose="{name}"></div>\n</section>'


def page_data(run: TrainedRun) -> dict[str, Any]:
    """What the page shows, as JSON values.

    Returns:
        What `pareto.html.cloud_data` gives where policies were measured, else layers, labels and policy of the run's
        own; prose (sentences), tables, bars and lines by the name of their section; file, the policy file that the page
        fills in, and fields, where in it the bits of each column belong.
    """
    data, place_sentences = _policies(run)
    energy, sensitivity = _energy(run), _sensitivity(run)
    bits, accuracy = _bits_curves(run), _accuracy_curves(run)
    policy, path = run.policy, shlex.quote(str(run.path))
    prose = {
        "results": [BITS_ARE, *(f"Warning: {warning}" for warning in run.result["warnings"])],
        "frontier": place_sentences,
        "layers": [*filter(None, [search_sentence(run)]), f"Before training: {run.result['forecast']}"],
        "bits": [] if bits else ["No bits were learned in this run."],
        "accuracy": [] if accuracy else ["No accuracies were taken while training."],
        "energy": [] if energy else [f"Not scored yet: waveq score {path} --breakdown"],
        "sensitivity": [
            "One layer at a time with fewer or more bits, all others as learned; lines are standard errors."
        ]
        if sensitivity
        else [f"Not measured yet: waveq sensitivity {path}"],
        "made": list(how_made(run)),
    }
    head, rows = layer_table(run)
    fields = {name: ["bits", name] for name in policy}
    fields |= {input_name(name): ["activation_bits", name] for name in policy.activation_bits}
    return {
        **data,
        "fields": [fields[name] for name in data["layers"]],
        "file": {
            **policy.to_json(),
            "betas": {},
            "scales": {},
            "provenance": {},
        },  # those are of the learned bits alone
        "prose": prose,
        "tables": {"results": {"head": RESULT_HEAD, "rows": result_rows(run)}, "layers": {"head": head, "rows": rows}},
        "bars": {name: chart for name, chart in (("energy", energy), ("sensitivity", sensitivity)) if chart},
        "lines": {name: chart for name, chart in (("bits", bits), ("accuracy", accuracy)) if chart},
    }


def _policies(run: TrainedRun) -> tuple[dict[str, Any], list[str]]:
    """The cloud of all measured policies with sentences on it; without any, the run's own policy alone."""
    from pareto import frontier
    from pareto.html import cloud_data

    path = shlex.quote(str(run.path))
    source = next((run.path / name for name in (TABLE, FOUND) if (run.path / name).exists()), None)
    if source is None:
        own = {"label": OWN_LABEL, "values": {}, "bits": list(run.policy.values())}
        hint = f"Not enumerated yet: waveq enumerate {path} (or, for deep networks, waveq search {path})"
        return {"layers": list(run.policy), "labels": {}, "policy": own}, [hint]
    frame = read_table(source, numbers=(*run.policy, *MEASURED), policy=run.policy)
    bits = own_bits(run.policy, frame.columns)
    front = frontier(frame, sense=SENSE)
    store = store_beside(run.path, DESCRIBED if source.name == TABLE else SEARCHED, STORE)
    placement = place(frame, front, bits, store=store)
    sure = placement.certainty
    member = None if sure is None else sure.membership
    table, senses, _ = readable(frame if member is None else frame.assign(**{MEMBERSHIP: member}), SENSE)
    band = band_of(readable(placement.front, SENSE)[0], next(name for name in senses if name != "accuracy"))
    try:
        drawn: dict[str, Any] = {"sense": senses, "mark": {OWN_LABEL: bits}, "layers": list(bits)}
        data = cloud_data(table, frontier(table, sense=senses), band=band, **drawn)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    data["layer_energy"] = _layer_energy(run, DESCRIBED if source.name == TABLE else SEARCHED, list(bits))
    measured = run.read_json(DESCRIBED if source.name == TABLE else SEARCHED, {})
    placed = placement.summary() | {"training_gap": training_gap(run, measured, placement.own["accuracy"])}
    how = run.read_json(DESCRIBED, ENUMERATED) if source.name == TABLE else None
    found = f"{len(frame):,} policies, measured by the search; {len(front):,} of them are efficient."
    told = [found if how is None else how_enumerated(placed, how), placement_sentence(placed)]
    return data, [*told, *certainty_sentences(placed["certainty"])]


def _layer_energy(run: TrainedRun, described: str, columns: list[str]) -> list[dict[str, Any]] | None:
    """Microjoules of each layer by its bits, and which columns give it these; None where an older version priced."""
    found = run.read_json(described, {})
    layers = None if found is None else found.get("layer_energies")
    if layers is None:
        return None
    try:
        return [
            {
                "name": str(layer["layer"]),
                "weights": None if layer["weights"] is None else columns.index(layer["weights"]),
                "inputs": None if layer["inputs"] is None else columns.index(layer["inputs"]),
                "uj": _microjoules(layer["energy_pj"]),
            }
            for layer in layers
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{run.path / described}: damaged: layer_energies: {error}; price the policies again"
        ) from None


def _microjoules(energy: Any) -> Any:
    """Numbers, by bits or alone, in four digits."""
    if isinstance(energy, dict):
        return {bits: _microjoules(value) for bits, value in energy.items()}
    return float(f"{float(energy) / 1e6:.4g}")


def _energy(run: TrainedRun) -> dict[str, Any] | None:
    from stripes_sim.costs import PARTS

    path = run.path / "score.csv"
    if not path.exists():
        return None
    frame = read_frame(path, numbers=[f"{part}_pj" for part in PARTS])
    if "name" not in frame.columns:
        raise ValueError(f"{path}: damaged: the column 'name' is missing")
    if changed_since(run.path, "score.csv") is not None:  # it is of another policy
        return None
    series = [{"name": part.replace("_", " "), "values": _digits(frame[f"{part}_pj"] / 1e6)} for part in PARTS]
    label = "energy of the learned policy by layer and part"
    return {"label": label, "unit": "energy (µJ)", "names": _names(frame["name"]), "series": series, "stacked": True}


def _sensitivity(run: TrainedRun) -> dict[str, Any] | None:
    if not (run.path / SENSITIVITY).exists():
        return None
    frame = read_sensitivity(run)
    if changed_since(run.path, SENSITIVITY) is not None:  # it is of another policy
        return None
    names = list(dict.fromkeys(frame["layer"]))
    series = []
    for step in sorted(frame["step"].unique()):
        rows = frame[frame["step"] == step]
        changes = rows.drop_duplicates("layer").set_index("layer").reindex(names)
        words = f"{int(step):+d} bit{'' if abs(int(step)) == 1 else 's'}, mean {rows['change'].mean():+.2f}"
        errors = _digits(changes["standard_error"])
        series.append({"name": words, "values": _digits(changes["change"]), "errors": errors})
    label = "change of accuracy when one layer has fewer or more bits"
    return {"label": label, "unit": "change (points)", "names": _names(names), "series": series, "stacked": False}


def _bits_curves(run: TrainedRun) -> dict[str, Any] | None:
    metrics = run.path / ("search" if run.config.searches else "wave") / "metrics.csv"
    if run.config.bits != "learn" or not metrics.exists():
        return None
    data = learning_data(metrics)
    if data.empty:
        return None
    kept = data.iloc[_spread(len(data))]
    series = [{"name": str(name), "values": _digits(kept[name])} for name in kept.columns]
    phase = data.attrs["phase"]
    moving = phase.index[phase == 2]
    spans = [[int(moving[0]), int(moving[-1])]] if len(moving) else []
    chart = {"label": "bits of each layer over the steps", "unit": "bits (β + 1)", "spans": spans}
    return {**chart, "steps": [int(step) for step in kept.index], "series": series}


def _accuracy_curves(run: TrainedRun) -> dict[str, Any] | None:
    series = []
    for stage, words in _STAGES.items():
        metrics = run.path / stage / "metrics.csv"
        if not metrics.exists():
            continue
        rows = read_frame(metrics, wholes=["step"], gaps=["validation_accuracy"]).dropna(subset=["validation_accuracy"])
        rows = rows.iloc[_spread(len(rows))]
        if len(rows):
            steps = [int(step) for step in rows["step"]]
            series.append({"name": words, "steps": steps, "values": _digits(100 * rows["validation_accuracy"])})
    label = "accuracy on the validation images, stage by stage"
    return {"label": label, "unit": "validation accuracy (%)", "series": series} if series else None


def _spread(count: int) -> Any:
    """At most _CURVE_POINTS rows, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, _CURVE_POINTS)).round().astype(int)) if count else []


def _digits(values: pd.Series[Any]) -> list[float | None]:
    """Four digits, which is more than a picture shows; None where there is no number."""
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in values]


def _names(values: Any) -> list[str]:
    return [str(value) for value in values]
