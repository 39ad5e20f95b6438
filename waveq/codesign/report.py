"""report.md of a run folder: what was run, what came out, and the pictures, from the files that the steps left."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from waveq._files import write_text
from waveq._reading import read_text
from waveq.codesign.campaign import versions
from waveq.codesign.certainty import band_of, certainty_sentences, gap_words
from waveq.codesign.frames import read_frame
from waveq.codesign.origins import changed_since, recorded
from waveq.codesign.pictures import frontier_figure, save_figure, save_learning
from waveq.codesign.placement import DESCRIBED, FRONT, PLACED, SENSE, TABLE, own_bits, place_run
from waveq.codesign.space import SENSITIVITY, read_table
from waveq.codesign.training_gap import gap_sentence
from waveq.train.result import share_sentence
from waveq.train.trained_run import TrainedRun

__all__ = [
    "BITS_ARE",
    "ENUMERATED",
    "MEASURED",
    "OWN_LABEL",
    "RESULT_HEAD",
    "bring_up_to_date",
    "draw_pictures",
    "how_enumerated",
    "how_made",
    "layer_table",
    "markdown_table",
    "placement_sentence",
    "read_sensitivity",
    "report_text",
    "result_rows",
    "search_sentence",
    "versions",
    "write_report",
]

OWN_LABEL = "WaveQ (learned)"
MEASURED = ("accuracy", "energy_pj", "cycles")
_IMAGES = range(1, 1 << 40)
_PLACED = {
    "policies": int,
    "frontier": int,
    "efficient": bool,
    "accuracy_gap": float,
    "energy_gap_pj": float,
    "own": dict.fromkeys(MEASURED, float),
}
ENUMERATED = {
    **dict.fromkeys(("how", "hardware", "quantizer", "granularity"), str),
    "scale": str | None,
    "data": {"images": _IMAGES},
    "protocol": {"part": str},
}
RESULT_HEAD = ("network", "mean bits", "validation %", "test %")
BITS_ARE = (
    "Bits are total stored bits, sign included; the mean counts every layer once. The test images were read once, for "
    "this table; everything below is measured on other images unless it says so."
)


def write_report(path: Path) -> Path:
    """Draw the pictures and write RUN/report.md; steps that were not run are named with the command that runs them.

    The frontier is found again where the table of policies has changed since.

    Returns:
        The path of the report.

    Raises:
        ValueError: no finished run; a damaged file; a table of policies that is not the one that was enumerated.
    """
    run = TrainedRun(path)
    bring_up_to_date(run)
    target = path / "report.md"
    write_text(target, report_text(run, draw_pictures(run)))
    return target


def bring_up_to_date(run: TrainedRun) -> None:
    """Find the frontier again where the table, or the policy, has changed since it was found.

    Raises:
        ValueError: the table is not what `waveq enumerate` wrote, or its description is of another one.
    """
    if not (run.path / TABLE).exists():
        return
    frame = read_table(run.path / TABLE, numbers=(*run.policy, *MEASURED), policy=run.policy)
    changed = changed_since(run.path, TABLE)
    if changed is not None:
        what = "is not the table" if changed == TABLE else f"was made with another {changed}, not the one"
        raise ValueError(
            f"{run.path / TABLE} {what} that waveq enumerate left in this folder; make it again with: waveq enumerate "
            f"{shlex.quote(str(run.path))}"
        )
    if any(changed_since(run.path, name) for name in (FRONT, PLACED)):
        place_run(run, frame)


def report_text(run: TrainedRun, pictures: set[str]) -> str:
    """The report in Markdown, with links to those pictures.

    Raises:
        ValueError: a damaged file.
    """
    parts = (_learned, _cost, _place, _sensitivity)
    sections = [_head(run), *(part(run, pictures) for part in parts), _provenance(run)]
    return "\n\n".join(section for section in sections if section) + "\n"


def draw_pictures(run: TrainedRun) -> set[str]:
    """Draw what the run folder has data for, and return the names of the files."""
    drawn = set()
    metrics = run.path / ("search" if run.config.searches else "wave") / "metrics.csv"
    if run.config.bits == "learn" and metrics.exists() and save_learning(metrics, run.path / "learning.png"):
        drawn.add("learning.png")
    if (run.path / "breakdown.png").exists() and changed_since(run.path, "breakdown.png") is None:
        drawn.add("breakdown.png")
    if (run.path / TABLE).exists():
        _draw_frontier(run)
        drawn.add("frontier.png")
    if (run.path / SENSITIVITY).exists() and changed_since(run.path, SENSITIVITY) is None:
        from pareto import plot_sensitivity

        table = read_sensitivity(run)
        save_figure(
            plot_sensitivity(table, title="One layer at a time, all others as learned"), run.path / "sensitivity.png"
        )
        drawn.add("sensitivity.png")
    return drawn


def _draw_frontier(run: TrainedRun) -> None:
    frame = read_table(run.path / TABLE)
    own = own_bits(run.policy, frame.columns)
    front = run.path / FRONT
    band = band_of(read_frame(front), "energy_pj") if front.exists() else None
    figure = frontier_figure(frame, sense=SENSE, mark={OWN_LABEL: own}, layers=list(own), band=band)
    save_figure(figure, run.path / "frontier.png")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown, numbers flush right.

    Example:
        >>> print(markdown_table(("layer", "bits"), [("conv1", 3)]))
        | layer | bits |
        |---|---:|
        | conv1 | 3 |
    """
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    r"""A cell that stays one, whatever a layer is called: neither a new column or row nor HTML."""
    text = html.escape(str(value), quote=False).replace("\\", "\\\\").replace("|", "\\|").replace("`", "\\`")
    return " ".join(text.split())


def result_rows(run: TrainedRun) -> list[tuple[str, str, str, str]]:
    """Bits and accuracies of the float network and of the trained one, in the columns of RESULT_HEAD."""
    result = run.result
    return [
        ("float", "32", _percent(result["float_validation_accuracy"]), _percent(result["float_test_accuracy"])),
        (
            "this policy, trained",
            f"{result['mean_bits']:.2f}",
            _percent(result["validation_accuracy"]),
            _percent(result["test_accuracy"]),
        ),
    ]


def _head(run: TrainedRun) -> str:
    table = markdown_table(RESULT_HEAD, result_rows(run))
    return f"# {run.config.model} on {run.config.dataset}\n\n{table}\n\n{BITS_ARE}"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def layer_table(run: TrainedRun) -> tuple[tuple[str, ...], list[tuple[str | int, ...]]]:
    """Head and rows of what was learned, layer by layer."""
    policy = run.policy
    betas = policy.provenance.get("search", {}).get("betas", policy.betas)
    rows = [
        (
            name,
            bits,
            f"{betas[name]:.2f}" if name in betas else "",
            f"{policy.weight_counts.get(name, 0):,}",
            *((policy.activation_bits.get(name, "float"),) if policy.activation_bits else ()),
        )
        for name, bits in policy.items()
    ]
    return ("layer", "bits", "β", "weights", *(("bits of inputs",) if policy.activation_bits else ())), rows


def search_sentence(run: TrainedRun) -> str | None:
    """How the run was parted, and where its search ended; None without one."""
    steps = run.result.get("steps", {})
    if "search" not in steps:
        return None
    sentence = share_sentence(steps["search"], steps["wave"])
    before = _percent(run.result["search_validation_accuracy"])
    return f"{sentence[0].upper()}{sentence[1:]}. At the end of the search: {before} % of the validation images."


def _learned(run: TrainedRun, pictures: set[str]) -> str:
    lines = ["## Policy", markdown_table(*layer_table(run))]
    parted = search_sentence(run)
    lines += [] if parted is None else [parted]
    lines += [f"Warning: {warning}" for warning in run.result["warnings"]]
    lines.append(f"Before training: {run.result['forecast']}")
    if "learning.png" in pictures:
        lines.append("![bits of every layer while they are learned](learning.png)")
    return "\n\n".join(lines)


def _cost(run: TrainedRun, pictures: set[str]) -> str:
    path = run.path / "score.txt"
    again = f"`waveq score {shlex.quote(str(run.path))} --breakdown`"
    if not path.exists():
        return f"## Cost\n\nNot scored yet: {again}"
    changed = changed_since(run.path, "score.txt")
    if changed is not None:
        return f"## Cost\n\nNot shown: {changed} is not the one of the run's score. Again with: {again}"
    lines = ["## Cost", f"```text\n{read_text(path).rstrip()}\n```"]
    if "breakdown.png" in pictures:
        lines.append("![energy by layer and part](breakdown.png)")
    return "\n\n".join(lines)


def _place(run: TrainedRun, pictures: set[str]) -> str:
    if not (run.path / TABLE).exists():
        return f"## Frontier\n\nNot enumerated yet: `waveq enumerate {shlex.quote(str(run.path))}`"
    placed, how = run.read_json(PLACED, _PLACED), run.read_json(DESCRIBED, ENUMERATED)
    if placed is None or how is None:
        return f"## Frontier\n\nNot placed yet: `waveq frontier {shlex.quote(str(run.path))}`"
    frame = read_table(run.path / TABLE, numbers=(*run.policy, *MEASURED), policy=run.policy)
    names = list(own_bits(run.policy, frame.columns))
    what = how_enumerated(placed, how)
    sure = " ".join(certainty_sentences(placed.get("certainty")))
    lines = ["## Frontier", what, placement_sentence(placed), sure, _compared(frame, names, placed["own"])]
    if "frontier.png" in pictures:
        lines.append("![accuracy against energy of all policies](frontier.png)")
    lines.append(f"All policies: [{TABLE}]({TABLE}); the efficient ones: [{FRONT}]({FRONT}).")
    return "\n\n".join(lines)


def how_enumerated(placed: dict[str, Any], how: dict[str, Any]) -> str:
    """How many policies were measured, how, and how exact one accuracy is; from frontier.json and enumeration.json."""
    scale = f"{how['scale']}{' by channel' if how['granularity'] == 'channel' else ''}"
    failed = how.get("failed", 0)
    whole = f", and {failed:,} that failed and are left out" if failed else ", every one evaluated"
    return (
        f"{placed['policies']:,} policies{whole}: {how['how']} ({how['quantizer']}, scale "
        f"{scale}), accuracy on the {how['data']['images']:,} {how['protocol']['part']} images, cost on "
        f"{how['hardware']}. {placed['frontier']} of them are efficient. "
        f"{_noise(placed['own']['accuracy'], how['data']['images'])}"
    )


def _noise(percent: float, images: int) -> str:
    """How far one accuracy can be off by the choice of images; binomial, and at least as if one image were wrong."""
    share = min(max(percent / 100, 1 / images), 1 - 1 / images)
    points = 100 * (share * (1 - share) / images) ** 0.5
    return f"The standard error of one accuracy is {points:.2f} points; the best of many is partly the luckiest."


def placement_sentence(placed: dict[str, Any]) -> str:
    """Whether the policy is on the frontier, how far from it otherwise, and whether training did far better."""
    return f"{_placed_sentence(placed)}{gap_sentence(placed.get('training_gap'))}"


def _placed_sentence(placed: dict[str, Any]) -> str:
    if placed["efficient"]:
        return "The learned policy lies on the frontier: no policy is better in one and not worse in the other."
    better, cheaper = placed["accuracy_gap"], placed["energy_gap_pj"]
    less = f"{cheaper / 1e6:.4g} µJ less ({100 * cheaper / placed['own']['energy_pj']:.1f} %)"
    if not better:
        return f"The learned policy is not on the frontier: another one is as accurate and needs {less}."
    points = f"{better:.2f}" if better >= 0.005 else f"{better:.1g}"
    more = f"at its energy another one has {points} points more accuracy{gap_words(placed.get('certainty'))}"
    at_its_accuracy = f"; at its accuracy another one needs {less}" if cheaper else ""
    return f"The learned policy is not on the frontier: {more}{at_its_accuracy}."


def _compared(frame: pd.DataFrame, names: list[str], own: dict[str, float]) -> str:
    bits = frame[names].to_numpy()
    uniform = frame[(bits == bits[:, :1]).all(axis=1)].sort_values(names[0])
    rows = [(f"uniform {row[names[0]]}", *_figures(row)) for row in uniform.to_dict("records")]
    return markdown_table(("policy", "accuracy %", "energy µJ", "cycles"), [("learned", *_figures(own)), *rows])


def _figures(row: Any) -> tuple[str, str, str]:
    return f"{row['accuracy']:.2f}", f"{row['energy_pj'] / 1e6:.4g}", f"{row['cycles']:,.0f}"


def _sensitivity(run: TrainedRun, pictures: set[str]) -> str:
    path = run.path / SENSITIVITY
    again = f"`waveq sensitivity {shlex.quote(str(run.path))}`"
    if not path.exists():
        return f"## Sensitivity\n\nNot measured yet: {again}"
    table = read_sensitivity(run)
    changed = changed_since(run.path, SENSITIVITY)
    if changed is not None:
        return f"## Sensitivity\n\nNot shown: {changed} is not the one of its measurement. Again with: {again}"
    rows = [
        (
            row["layer"],
            f"{row['bits']} → {row['changed_bits']}",
            f"{row['change']:+.2f}",
            "" if pd.isna(row["standard_error"]) else f"{row['standard_error']:.2f}",
        )
        for row in table.to_dict("records")
    ]
    how = recorded(run.path, SENSITIVITY).get("how", "")
    lines = [
        "## Sensitivity",
        f"Measured by {how}.",
        markdown_table(("layer", "bits", "change, points", "standard error"), rows),
    ]
    for step, part in table.groupby("step"):
        lines.append(f"Mean over layers of {step:+d} bit: {part['change'].mean():+.2f} points.")
    if "sensitivity.png" in pictures:
        lines.append("![change of accuracy by layer](sensitivity.png)")
    return "\n\n".join(lines)


def read_sensitivity(run: TrainedRun) -> pd.DataFrame:
    """RUN/sensitivity.csv.

    Raises:
        ValueError: it is damaged.
    """
    wholes = ("step", "bits", "changed_bits")
    return read_frame(run.path / SENSITIVITY, numbers=("change",), wholes=wholes, gaps=("standard_error",))


def how_made(run: TrainedRun) -> tuple[str, str]:
    """Two sentences: the run's settings, and the versions of what it was made with."""
    config = json.loads(run.config.to_json())
    config.pop("layer_costs", None)  # long, and in config.json
    named = ", ".join(f"{name} {value}" for name, value in config.items())
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"Settings: {named}.", f"Versions: {packages}."


def _provenance(run: TrainedRun) -> str:
    return "\n\n".join(["## How it was made", *how_made(run)])
