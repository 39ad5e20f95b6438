"""``waveq enumerate``, ``frontier`` and ``sensitivity``: where a policy lies among all policies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from waveq.cli.common import AsJson, Quiet, aligned, emit, resumable, say

if TYPE_CHECKING:
    import pandas as pd

    from waveq.codesign.protocol import Protocol

__all__ = ["enumerate_policies", "frontier", "register", "sensitivity"]

RunFolder = Annotated[Path, typer.Argument(help="Folder of a finished run (waveq train, waveq demo).")]
Hardware = Annotated[str, typer.Option(help="An accelerator by name, or a TOML file; see: waveq hardware")]
Part = Annotated[str | None, typer.Option(help="Images that policies are compared on: validation, test or train.")]
Epochs = Annotated[int | None, typer.Option(help="Fine-tune every policy for so many epochs; 0 only rounds.")]
Rate = Annotated[float | None, typer.Option(help="Learning rate of the fine-tuning.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command(
        "enumerate",
        epilog="Example: waveq enumerate runs/demo --bits 2,3,4,8",
        short_help="Accuracy and cost of every policy of a space; resumable.",
    )(enumerate_policies)
    app.command(
        "frontier",
        epilog="Example: waveq frontier runs/demo    or: waveq frontier policies.csv --sense accuracy=max,cycles=min",
        short_help="The efficient policies, a picture, where a policy lies.",
    )(frontier)
    app.command(
        "sensitivity",
        epilog="Example: waveq sensitivity runs/demo",
        short_help="What one bit less, or more, in one layer does.",
    )(sensitivity)


def enumerate_policies(
    run: RunFolder,
    bits: Annotated[str, typer.Option(help="Bits that every layer may take.")] = "2,3,4,5,8",
    hardware: Hardware = "stripes",
    part: Part = None,
    finetune_epochs: Epochs = None,
    finetune_lr: Rate = None,
    sample: Annotated[int | None, typer.Option(help="So many policies, drawn at random, instead of all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    store: Annotated[Path | None, typer.Option(help="SQLite file of the accuracies (default: in the run).")] = None,
    engine: Annotated[str, typer.Option(help="serial, processes (this machine) or ray (a cluster).")] = "serial",
    workers: Annotated[int | None, typer.Option(help="Processes, or Ray actors (default: one a core).")] = None,
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster.")] = None,
    export: Annotated[Path | None, typer.Option(help="Write the table here too, as .csv or .parquet.")] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate and price every policy of a design space; the same command goes on where it stopped.

    Every policy is treated alike: the run's float network, rounded to the policy's bits, and trained with them for a
    few epochs where asked.
    """
    from stripes_sim import load_hardware
    from waveq.codesign.space import STORE, TABLE, enumerate_run
    from waveq.train.trained_run import TrainedRun

    trained = TrainedRun(run)
    options: dict[str, Any] = {name: value for name, value in (("workers", workers), ("address", address)) if value}
    with resumable(f"What was evaluated is in {store or run / STORE}; the same command goes on from there."):
        frame = enumerate_run(
            trained,
            load_hardware(hardware),
            choices=parse_bits(bits),
            protocol=_protocol(None, part, finetune_epochs, finetune_lr),
            sample=sample,
            seed=seed,
            store=store,
            engine=engine,
            progress=not (quiet or as_json),
            **_for_engine(engine, options),
        )
    if export is not None:
        _export(frame, export)
    best = frame.iloc[int(frame["accuracy"].to_numpy().argmax())]
    text = (
        f"{len(frame):,} policies: accuracy {frame['accuracy'].min():.2f} to {frame['accuracy'].max():.2f} %, energy "
        f"{frame['energy_pj'].min() / 1e6:.4g} to {frame['energy_pj'].max() / 1e6:.4g} µJ\n"
        f"written to {run / TABLE}; next: waveq frontier {run}"
    )
    data = {"run": str(run), "policies": len(frame), "table": str(run / TABLE), "best": best.to_dict()}
    emit(text, data, as_json=as_json)


def frontier(
    source: Annotated[Path, typer.Argument(help="A run folder, or a CSV file with one row a policy.")],
    sense: Annotated[str, typer.Option(help="Objectives, each max or min.")] = "accuracy=max,energy_pj=min",
    policy: Annotated[Path | None, typer.Option(help="Policy file to mark (default: the run's own).")] = None,
    budget: Annotated[list[float] | None, typer.Option(help="Limit on the x axis to mark; repeatable.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where table and picture go (default: beside the source).")] = None,
    html: Annotated[bool, typer.Option("--html", help="Also a page whose points show their bits (plotly).")] = False,
    as_json: AsJson = False,
) -> None:
    """The policies that no other one beats, as a table and a picture, with the learned policy marked."""
    from pareto import frontier as efficient_rows
    from waveq.codesign.pictures import frontier_figure, save_figure
    from waveq.codesign.report import OWN_LABEL, placement_sentence
    from waveq.codesign.score import write_frame
    from waveq.codesign.space import FRONT, SENSE, TABLE, place_run, read_table
    from waveq.policy import Policy

    is_run = source.is_dir()
    frame = read_table(source / TABLE if is_run else source)
    chosen = parse_sense(sense)
    own = Policy.load(policy) if policy else Policy.load(source / "policy.json") if is_run else None
    front = efficient_rows(frame, sense=chosen)
    folder = out or (source if is_run else source.parent)
    write_frame(folder / FRONT, front)
    mark = {} if own is None else {OWN_LABEL if policy is None else policy.stem: dict(own)}
    layers = None if own is None else list(own)
    figure = frontier_figure(frame, sense=chosen, mark=mark, budgets=budget or (), layers=layers)
    save_figure(figure, folder / "frontier.png")
    pictures = ["frontier.png"]
    if html:
        from pareto import plot_html

        page = folder / "frontier.html"
        plot_html(frame, front, page, sense=chosen, mark=mark, budgets=budget or (), layers=layers)
        pictures.append(page.name)
    lines = [_table(front), f"{len(front)} of {len(frame):,} policies are efficient"]
    data: dict[str, Any] = {"policies": len(frame), "frontier": front.to_dict("records"), "sense": chosen}
    if is_run and policy is None and chosen == SENSE:
        from waveq.train.trained_run import TrainedRun

        placed = place_run(TrainedRun(source), frame, [name for name in own or () if name in frame.columns]).summary()
        lines.append(placement_sentence(placed))
        data["placement"] = placed
    lines.append(f"written to {folder}: {FRONT}, {', '.join(pictures)}")
    emit("\n".join(lines), data, as_json=as_json)


def sensitivity(
    run: RunFolder,
    part: Part = None,
    finetune_epochs: Epochs = None,
    finetune_lr: Rate = None,
    steps: Annotated[str, typer.Option(help="Changes of one layer's bits.")] = "-1,1",
    as_json: AsJson = False,
) -> None:
    """Change one layer's bits at a time and measure the accuracy again; standard errors by paired bootstrap.

    Accuracies are measured as the run's enumeration did it, unless told otherwise.
    """
    from pareto import plot_sensitivity
    from waveq.codesign.pictures import save_figure
    from waveq.codesign.space import SENSITIVITY, run_protocol, run_sensitivity
    from waveq.train.trained_run import TrainedRun

    trained = TrainedRun(run)
    protocol = _protocol(run_protocol(trained), part, finetune_epochs, finetune_lr)
    table = run_sensitivity(trained, protocol=protocol, steps=parse_integers("--steps", steps))
    save_figure(plot_sensitivity(table), run / "sensitivity.png")
    rows = [
        (
            str(row["layer"]),
            f"{row['bits']} -> {row['changed_bits']}",
            f"{row['change']:+.2f}",
            f"{row['standard_error']:.2f}",
        )
        for row in table.to_dict("records")
    ]
    means = [f"mean over layers of {step:+d} bit: {part['change'].mean():+.2f}" for step, part in table.groupby("step")]
    text = "\n".join([aligned(("layer", "bits", "points", "std. error"), rows), *means])
    say(f"written to {run}: {SENSITIVITY}, sensitivity.png")
    emit(text, {"run": str(run), "sensitivity": table.to_dict("records")}, as_json=as_json)


def _protocol(base: Protocol | None, part: str | None, epochs: int | None, rate: float | None) -> Protocol:
    """A protocol with what was said on the command line changed."""
    from waveq.codesign.protocol import Protocol

    given = {"part": part, "finetune_epochs": epochs, "finetune_lr": rate}
    said = {name: value for name, value in given.items() if value is not None}
    return Protocol.from_dict({**(base or Protocol()).to_dict(), **said})


def parse_bits(text: str) -> tuple[int, ...]:
    """Bit widths from "2,3,4" or "2-8", sorted.

    Example:
        >>> parse_bits("8,2-4")
        (2, 3, 4, 8)
    """
    found: set[int] = set()
    for piece in text.split(","):
        low, dash, high = piece.strip().partition("-")
        if not low.isdigit() or (dash and not high.isdigit()):
            raise ValueError(f"--bits must be numbers such as 2,3,4,8 or 2-8, not {text!r}")
        found.update(range(int(low), int(high if dash else low) + 1))
    if not found or not all(1 <= width <= 9 for width in found):
        raise ValueError(f"--bits must lie in 1..9 (total bits, sign included), not {text!r}")
    return tuple(sorted(found))


def parse_integers(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers from "-1,1"."""
    try:
        return tuple(int(piece) for piece in text.split(","))
    except ValueError:
        raise ValueError(f"{option} must be whole numbers such as -1,1, not {text!r}") from None


def parse_sense(text: str) -> dict[str, str]:
    """Objectives from "accuracy=max,energy_pj=min".

    Example:
        >>> parse_sense("accuracy=max, cycles=min")
        {'accuracy': 'max', 'cycles': 'min'}
    """
    chosen = {}
    for piece in text.split(","):
        name, sign, direction = (part.strip() for part in piece.partition("="))
        if not sign or direction not in ("max", "min") or not name:
            raise ValueError(f"--sense must be COLUMN=max or COLUMN=min, comma-separated, not {piece.strip()!r}")
        chosen[name] = direction
    return chosen


def _for_engine(engine: str, options: dict[str, Any]) -> dict[str, Any]:
    if engine == "serial" and options:
        raise ValueError(f"--{next(iter(options))} needs --engine processes or --engine ray")
    if engine == "processes" and "address" in options:
        raise ValueError("--address needs --engine ray")
    return options


def _export(frame: pd.DataFrame, path: Path) -> None:
    from waveq.codesign.score import write_frame

    if path.suffix == ".csv":
        write_frame(path, frame)
    elif path.suffix == ".parquet":
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            frame.to_parquet(path, index=False)
        except ImportError:
            raise ValueError("writing Parquet needs pyarrow: pip install 'waveq[parquet]'") from None
    else:
        raise ValueError(f"--export must end in .csv or .parquet, not {str(path)!r}")
    say(f"written to {path}")


def _table(front: pd.DataFrame, *, longest: int = 30) -> str:
    rows = [[_cell(value) for value in row] for row in front.tail(longest).to_numpy(dtype=object).tolist()]
    more = f"... {len(front) - longest} more in the file\n" if len(front) > longest else ""
    return more + aligned([str(column) for column in front.columns], rows, left=0)


def _cell(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
