"""``waveq sweep``: many training runs, in processes or on a Ray cluster."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from waveq.cli.common import (
    RUNNING,
    AsJson,
    DataDir,
    Engine,
    Imports,
    Quiet,
    Run,
    aligned,
    cell,
    emit,
    resumable,
    say,
    warnings_as_lines,
)
from waveq.cli.grouped import GroupedCommand
from waveq.cli.parsing import check_numbers, for_engine
from waveq.train.user_modules import import_modules

if TYPE_CHECKING:
    from waveq.codesign.sweep import SweepStatus
    from waveq.codesign.sweep_grid import SweepGrid

__all__ = ["register", "sweep"]

_EXAMPLE = "Example: waveq sweep --recipe digits --grid seed=0,1 --grid target.mean_bits=3,4 --run runs/sweep"
_SHOWN = ("accuracy", "mean_bits", "energy_pj", "cycles", "area_mm2")


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "sweep",
        epilog=_EXAMPLE,
        short_help="Many training runs: budgets, presets, seeds, machines.",
        cls=GroupedCommand,
    )(sweep)


def sweep(
    source: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A TOML file: recipe, hardware, [set], [grid].")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="A shipped recipe, or a TOML or JSON file.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A field of every run, as NAME=VALUE; repeatable.")
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            help="An axis and its values: a field of a run (seed=0,1), a part of one (target.mean_bits=3,4), "
            "hardware=NAME,NAME, or a parameter of the machine (tiles=4,8); repeatable."
        ),
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(help="The machine that prices bits (default: none while they are learned, stripes afterwards)."),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Say how far the sweep in --run has come, and end.")] = False,
    export: Annotated[Path | None, typer.Option(help="Write the results that are there as .csv, too.")] = None,
    engine: Engine = "serial",
    workers: Annotated[
        int | None,
        typer.Option(help="Runs at once (default: one a core, or what Ray holds).", rich_help_panel=RUNNING),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster; auto finds one.", rich_help_panel=RUNNING)
    ] = None,
    cpus: Annotated[
        float | None, typer.Option(help="Cores of one run, for Ray (default 1).", rich_help_panel=RUNNING)
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(help="GPUs of one run, for Ray; 0.5 lets two runs share one.", rich_help_panel=RUNNING),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed", help="Train runs again that failed; else they stay out.", rich_help_panel=RUNNING
        ),
    ] = False,
    data_dir: DataDir = None,
    imports: Imports = None,
    run: Run = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train every combination of a grid, each as `waveq train` does, and keep all results in one store.

    The same command goes on where it stopped, after kill -9 too; a second one beside it shares the work, and one with
    another grid adds to what is in the folder. Runs that fail are kept with their reasons, and end it with code 1.
    """
    import_modules(imports)
    from waveq.codesign.frames import write_frame
    from waveq.codesign.sweep import run_sweep, sweep_status, sweep_table

    check_numbers({"workers": workers})
    if export is not None and export.suffix != ".csv":
        raise ValueError(f"--export must end in .csv, not {str(export)!r}")
    given = [source, recipe, setting, grid, hardware]
    if status or (export is not None and not any(given)):
        if run is None or any(given):
            raise ValueError("--status and --export alone read the sweep of --run, and take no settings")
        found, folder = sweep_status(run), run
    else:
        options = _engine_options(engine, workers, address, cpus, gpus)
        if not any(given):
            raise ValueError(
                "say what is swept: --grid AXIS=VALUE,VALUE such as seed=0,1, --recipe NAME, or a TOML file"
            )
        wanted = _grid(source, recipe, setting or [], grid or [], hardware, data_dir, imports)
        folder = run or Path("runs") / f"sweep-{wanted.base.get('model', 'simplenet5')}"
        hint = f"What was trained is in {folder}; the same command goes on from there."
        with resumable(hint), warnings_as_lines():
            found = run_sweep(
                wanted,
                folder,
                engine=engine,
                retry_failed=retry_failed,
                progress=not (quiet or as_json),
                **options,
            )
    table = sweep_table(folder) if found.done.any() else None
    if export is not None and table is not None:
        write_frame(export, table)
        say(f"written to {export}")
    results = [] if table is None else table.to_dict("records")
    emit(_text(found, folder, table), {**found.to_dict(), "run": str(folder), "results": results}, as_json=as_json)
    if found.reasons and not status:
        raise typer.Exit(1)


def _grid(
    source: Path | None,
    recipe: str | None,
    settings: list[str],
    axes: list[str],
    hardware: str | None,
    data_dir: Path | None,
    imports: list[str] | None,
) -> SweepGrid:
    """The file's, with what the command line says over it."""
    from waveq.codesign.sweep_grid import SweepGrid, read_sweep
    from waveq.train.recipe_files import read_recipe

    told: dict[str, Any] = {"recipe": None, "hardware": None, "set": {}, "grid": {}}
    told = told if source is None else read_sweep(source)
    name = recipe or told["recipe"]
    layers = [] if name is None else [read_recipe(name)]
    layers += [
        (told["set"], f"{source}, set"),
        ({field: _typed(field, value) for field, value in map(_pair, settings)}, "--set"),
        ({"data_dir": str(data_dir)} if data_dir else {}, "--data-dir"),
        ({"imports": imports} if imports else {}, "--import"),
    ]
    base = {field: value for fields, _ in layers for field, value in fields.items()}
    sources = {field: where for fields, where in layers for field in fields}
    varied = {axis: [_typed(axis, value.strip()) for value in values.split(",")] for axis, values in map(_axis, axes)}
    return SweepGrid(base=base, axes=told["grid"] | varied, hardware=hardware or told["hardware"], sources=sources)


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign:
        raise ValueError(f"--set must be NAME=VALUE, such as epochs=12, not {text!r}")
    return name.strip().replace("-", "_"), value.strip()


def _axis(text: str) -> tuple[str, str]:
    name, sign, values = text.partition("=")
    if not sign or not values:
        raise ValueError(f"--grid must be AXIS=VALUE,VALUE such as seed=0,1 or tiles=4,8, not {text!r}")
    return name.strip().replace("-", "_"), values


def _typed(name: str, text: str) -> Any:
    """A number or truth value where the field, or a machine's parameter, takes one."""
    from waveq.train.config import TrainConfig
    from waveq.train.strict import as_typed

    field = TrainConfig.model_fields.get(name)
    return as_typed(text, bool | int | float if field is None else field.annotation)


def _engine_options(
    engine: str, workers: int | None, address: str | None, cpus: float | None, gpus: float | None
) -> dict[str, Any]:
    shares = {name: value for name, value in (("num_cpus", cpus), ("num_gpus", gpus)) if value is not None}
    if shares and engine != "ray":
        raise ValueError("--cpus and --gpus need --engine ray")
    return for_engine(engine, workers, address) | ({"resources": shares} if shares else {})


def _text(found: SweepStatus, folder: Path, table: Any) -> str:
    lines = []
    if table is not None:
        axes = list(table.columns[: list(table.columns).index("accuracy")])
        shown = table.sort_values("accuracy", ascending=False).head(20)[[*axes, *_SHOWN]]
        rows = [[cell(value, digits=4) for value in row] for row in shown.to_numpy(dtype=object).tolist()]
        lines += [aligned([*axes, *_SHOWN], rows, left=0), ""]
    waiting = len(found.points) - int(found.done.sum()) - len(found.reasons)
    left = "" if found.seconds_left is None else f", some {_duration(found.seconds_left)} at the pace so far"
    lines.append(
        f"{int(found.done.sum())} of {len(found.points)} runs done, {len(found.reasons)} failed, {waiting} to go"
        f"{f' ({found.begun} begun)' if found.begun else ''}{left}; in {folder}"
    )
    lines += [f"failed: {found.points[place]}: {why}" for place, why in list(found.reasons.items())[:20]]
    if not waiting and table is not None:
        quoted = shlex.quote(str(folder))
        lines.append(f"next: waveq sweep --run {quoted} --export sweep.csv; waveq frontier sweep.csv")
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
