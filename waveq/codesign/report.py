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
from waveq.codesign.frames import read_frame
from waveq.codesign.origins import changed_since, recorded
from waveq.codesign.pictures import frontier_figure, save_figure, save_learning
from waveq.codesign.placement import FRONT, PLACED, SENSE, TABLE, own_bits, place_run
from waveq.codesign.space import DESCRIBED, SENSITIVITY, read_table
from waveq.train.result import share_sentence
from waveq.train.trained_run import TrainedRun

__all__ = ["draw_pictures", "markdown_table", "report_text", "versions", "write_report"]

_MEASURED = ("accuracy", "energy_pj", "cycles")
_IMAGES = range(1, 1 << 40)
_PLACED = {
    "policies": int,
    "frontier": int,
    "efficient": bool,
    "accuracy_gap": float,
    "energy_gap_pj": float,
    "own": dict.fromkeys(_MEASURED, float),
}
_ENUMERATED = {
    **dict.fromkeys(("how", "hardware", "quantizer", "granularity"), str),
    "scale": str | None,
    "data": {"images": _IMAGES},
    "protocol": {"part": str},
}
OWN_LABEL = "WaveQ (learned)"


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
    changed = changed_since(run.path, TABLE)
    if changed is not None:
        what = "is not the table" if changed == TABLE else f"was made with another {changed}, not the one"
        raise ValueError(
            f"{run.path / TABLE} {what} that waveq enumerate left in this folder; make it again with: waveq enumerate "
            f"{shlex.quote(str(run.path))}"
        )
    if any(changed_since(run.path, name) for name in (FRONT, PLACED)):
        place_run(run, read_table(run.path / TABLE, policy=run.policy))


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
    if (run.path / "breakdown.png").exists():
        drawn.add("breakdown.png")
    if (run.path / TABLE).exists():
        _draw_frontier(run)
        drawn.add("frontier.png")
    if (run.path / SENSITIVITY).exists() and changed_since(run.path, SENSITIVITY) is None:
        from pareto import plot_sensitivity

        table = _read_sensitivity(run)
        save_figure(
            plot_sensitivity(table, title="One layer at a time, all others as learned"), run.path / "sensitivity.png"
        )
        drawn.add("sensitivity.png")
    return drawn


def _draw_frontier(run: TrainedRun) -> None:
    frame = read_table(run.path / TABLE)
    own = own_bits(run.policy, frame.columns)
    figure = frontier_figure(frame, sense=SENSE, mark={OWN_LABEL: own}, layers=list(own))
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


def _head(run: TrainedRun) -> str:
    config, result = run.config, run.result
    rows = [
        ("float", "32", _percent(result["float_validation_accuracy"]), _percent(result["float_test_accuracy"])),
        (
            "this policy, trained",
            f"{result['mean_bits']:.2f}",
            _percent(result["validation_accuracy"]),
            _percent(result["test_accuracy"]),
        ),
    ]
    table = markdown_table(("network", "mean bits", "validation %", "test %"), rows)
    return (
        f"# {config.model} on {config.dataset}\n\n{table}\n\nBits are total stored bits, sign included; the mean "
        "counts every layer once. The test images were read once, for this table; everything below is measured on "
        "other images unless it says so."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _learned(run: TrainedRun, pictures: set[str]) -> str:
    policy, steps = run.policy, run.result.get("steps", {})
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
    head = ("layer", "bits", "β", "weights", *(("bits of inputs",) if policy.activation_bits else ()))
    lines = ["## Policy", markdown_table(head, rows)]
    if "search" in steps:
        sentence = share_sentence(steps["search"], steps["wave"])
        before = _percent(run.result["search_validation_accuracy"])
        lines.append(
            f"{sentence[0].upper()}{sentence[1:]}. At the end of the search: {before} % of the validation images."
        )
    lines += [f"Warning: {warning}" for warning in run.result["warnings"]]
    lines.append(f"Before training: {run.result['forecast']}")
    if "learning.png" in pictures:
        lines.append("![bits of every layer while they are learned](learning.png)")
    return "\n\n".join(lines)


def _cost(run: TrainedRun, pictures: set[str]) -> str:
    path = run.path / "score.txt"
    if not path.exists():
        return f"## Cost\n\nNot scored yet: `waveq score {shlex.quote(str(run.path))} --breakdown`"
    lines = ["## Cost", f"```text\n{read_text(path).rstrip()}\n```"]
    if "breakdown.png" in pictures:
        lines.append("![energy by layer and part](breakdown.png)")
    return "\n\n".join(lines)


def _place(run: TrainedRun, pictures: set[str]) -> str:
    if not (run.path / TABLE).exists():
        return f"## Frontier\n\nNot enumerated yet: `waveq enumerate {shlex.quote(str(run.path))}`"
    placed, how = run.read_json(PLACED, _PLACED), run.read_json(DESCRIBED, _ENUMERATED)
    if placed is None or how is None:
        return f"## Frontier\n\nNot placed yet: `waveq frontier {shlex.quote(str(run.path))}`"
    frame = read_table(run.path / TABLE, numbers=(*run.policy, *_MEASURED), policy=run.policy)
    names = list(own_bits(run.policy, frame.columns))
    scale = f"{how['scale']}{' by channel' if how['granularity'] == 'channel' else ''}"
    what = (
        f"{placed['policies']:,} policies, every one evaluated: {how['how']} ({how['quantizer']}, scale "
        f"{scale}), accuracy on the {how['data']['images']:,} {how['protocol']['part']} images, cost on "
        f"{how['hardware']}. {placed['frontier']} of them are efficient."
    )
    what += f" {_noise(placed['own']['accuracy'], how['data']['images'])}"
    lines = ["## Frontier", what, placement_sentence(placed), _compared(frame, names, placed["own"])]
    if "frontier.png" in pictures:
        lines.append("![accuracy against energy of all policies](frontier.png)")
    lines.append(f"All policies: [{TABLE}]({TABLE}); the efficient ones: [{FRONT}]({FRONT}).")
    return "\n\n".join(lines)


def _noise(percent: float, images: int) -> str:
    """How far one accuracy can be off by the choice of images; binomial, and at least as if one image were wrong."""
    share = min(max(percent / 100, 1 / images), 1 - 1 / images)
    points = 100 * (share * (1 - share) / images) ** 0.5
    return f"The standard error of one accuracy is {points:.2f} points; the best of many is partly the luckiest."


def placement_sentence(placed: dict[str, Any]) -> str:
    """Whether the policy is on the frontier, and how far from it otherwise."""
    if placed["efficient"]:
        return "The learned policy lies on the frontier: no policy is better in one and not worse in the other."
    return (
        f"The learned policy is not on the frontier: at its energy another one has {placed['accuracy_gap']:.2f} points "
        f"more accuracy; at its accuracy another one needs {placed['energy_gap_pj'] / 1e6:.4g} µJ less "
        f"({100 * placed['energy_gap_pj'] / placed['own']['energy_pj']:.1f} %)."
    )


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
    changed = changed_since(run.path, SENSITIVITY)
    if changed is not None:
        return f"## Sensitivity\n\nNot shown: {changed} is not the one of its measurement. Again with: {again}"
    table = _read_sensitivity(run)
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


def _read_sensitivity(run: TrainedRun) -> pd.DataFrame:
    wholes = ("step", "bits", "changed_bits")
    return read_frame(run.path / SENSITIVITY, numbers=("change",), wholes=wholes, gaps=("standard_error",))


def _provenance(run: TrainedRun) -> str:
    config = json.loads(run.config.to_json())
    config.pop("layer_costs", None)  # long, and in config.json
    settings = ", ".join(f"{name} {value}" for name, value in config.items())
    packages = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"## How it was made\n\nSettings: {settings}.\n\nVersions: {packages}."
