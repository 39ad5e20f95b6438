"""``waveq train``: float training, learned bits, final network, in one run folder."""

from __future__ import annotations

import inspect
import math
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from waveq.cli.common import NETWORKS, AsJson, DataDir, Imports, Quiet, Run, aligned, emit, resumable, say, say_progress
from waveq.cli.grouped import GroupedCommand
from waveq.method.options import option_help, option_names
from waveq.train.result import share_sentence
from waveq.train.saying import say_nothing
from waveq.train.user_modules import import_modules, is_own, named_or_own, user_object

if TYPE_CHECKING:
    from waveq.train.config import TrainConfig
    from waveq.train.result import TrainResult

__all__ = ["register", "result_text", "train"]

_EXAMPLE = "Example: waveq train --recipe digits --target mean_bits=3 --run runs/mine"


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "train", epilog=_EXAMPLE, short_help="Learn a policy: float network, bits, final network.", cls=GroupedCommand
    )(train)


_WHAT, _BITS, _METHOD, _STEPS = "What is trained", "Bits", "Method", "Steps"
_RECIPES = (
    "alexnet-imagenet, digits, fashion-mnist, mobilenet-v2-imagenet, resnet18-imagenet, resnet20-cifar10, "
    "simplenet5-cifar10, svhn8-svhn or vgg11-cifar10"
)
_CHOICES = {
    "quantizer": "dorefa, wrpn, midrise, pact, lsq, lqnets, dsq or ttq (default lsq), or one of yours",
    "activation_quantizer": "dorefa, range, pact, lsq, lqnets or dsq",
}
"""Written out, so that help need not import the methods; a test holds them to the registry."""


def _option_of(field: str, value: object) -> str:
    """The option that has set a field."""
    words = {"run_dir": "run", "imports": "import"}.get(field, field.replace("_", "-"))
    return f"--no-{words}" if value is False else f"--{words}"


def _option(name: str, group: str) -> Any:
    told, choices = option_help(name), _CHOICES.get(name)
    return typer.Option(help=told if choices is None else f"{told.rstrip('.')}: {choices}.", rich_help_panel=group)


def train(
    recipe: Annotated[
        str | None,
        typer.Option(
            help=f"A shipped recipe, {_RECIPES}; or a TOML or JSON file (RUN/config.json).", rich_help_panel=_WHAT
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help=f"{NETWORKS}; or PACKAGE.MODULE:FACTORY, a function that gives yours.", rich_help_panel=_WHAT
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "--data",
            help="digits, fashion-mnist, cifar10, svhn or imagenet (see: waveq data); or PACKAGE.MODULE:LOADERS, a "
            "function that gives yours: train, validation and test loaders, or a LightningDataModule.",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Float weights to start from: a file, or a run folder.", rich_help_panel=_WHAT)
    ] = None,
    pretrain_epochs: Annotated[
        int | None, typer.Option(help="Epochs of float training.", rich_help_panel=_WHAT)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs with WaveQ, the search for bits included.", rich_help_panel=_WHAT)
    ] = None,
    finetune_epochs: Annotated[
        int | None, typer.Option(help="Epochs with the bits fixed, afterwards.", rich_help_panel=_WHAT)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Initial weights, order of the data, crops.", rich_help_panel=_WHAT)
    ] = None,
    bits: Annotated[
        str | None, typer.Option(help='"learn", one number for all layers, or a policy file.', rich_help_panel=_BITS)
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Budget of learned bits: mean_bits=3.5, or a share of the 8-bit cost: bitops=0.3, energy_pj=0.4",
            rich_help_panel=_BITS,
        ),
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(
            help="Weigh every layer's bits by their cost on this accelerator; see: waveq hardware",
            rich_help_panel=_BITS,
        ),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="The cost that --hardware weighs by: energy_pj, cycles, compute_cycles or weight_bytes (default: the "
            "target's, else energy_pj).",
            rich_help_panel=_BITS,
        ),
    ] = None,
    first_last: Annotated[int | None, _option("first_last", _BITS)] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(help="Layer or pattern left in floating point; repeatable.", rich_help_panel=_BITS),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Embedding, stacked experts or pattern quantised as well; repeatable.", rich_help_panel=_BITS
        ),
    ] = None,
    start_bits: Annotated[float | None, _option("start_bits", _BITS)] = None,
    rewind: Annotated[
        bool | None,
        typer.Option(
            "--rewind/--no-rewind",
            help="Learn bits in a short search, then train the float weights with them (default with preset "
            "recommended); or both in one run.",
            rich_help_panel=_BITS,
        ),
    ] = None,
    search_share: Annotated[
        float | None, typer.Option(help="The search's share of --epochs (default 0.2).", rich_help_panel=_BITS)
    ] = None,
    activation_bits: Annotated[str | None, _option("activation_bits", _BITS)] = None,
    preset: Annotated[str | None, _option("preset", _METHOD)] = None,
    quantizer: Annotated[str | None, _option("quantizer", _METHOD)] = None,
    scale: Annotated[str | None, _option("scale", _METHOD)] = None,
    granularity: Annotated[str | None, _option("granularity", _METHOD)] = None,
    schedule: Annotated[str | None, _option("schedule", _METHOD)] = None,
    forward: Annotated[str | None, _option("forward", _METHOD)] = None,
    freezing: Annotated[str | None, _option("freezing", _METHOD)] = None,
    activation_quantizer: Annotated[str | None, _option("activation_quantizer", _METHOD)] = None,
    lambda_w: Annotated[float | None, _option("lambda_w", _METHOD)] = None,
    lambda_beta: Annotated[float | None, _option("lambda_beta", _METHOD)] = None,
    distill: Annotated[
        bool | None,
        typer.Option("--distill", help="Let the float network teach the quantised one.", rich_help_panel=_METHOD),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate of the WaveQ stage.", rich_help_panel=_STEPS)] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images of a step, over all processes.", rich_help_panel=_STEPS)
    ] = None,
    precision: Annotated[str | None, typer.Option(help="32, bf16 or 64.", rich_help_panel=_STEPS)] = None,
    devices: Annotated[
        int | None, typer.Option(help="Processes (DDP) of a machine, one for each device.", rich_help_panel=_STEPS)
    ] = None,
    num_nodes: Annotated[
        int | None,
        typer.Option(help="Machines; torchrun, SLURM or Kubeflow start the processes on them.", rich_help_panel=_STEPS),
    ] = None,
    max_restarts: Annotated[
        int | None,
        typer.Option(
            help="How often a failed process is started again, from the last checkpoint.", rich_help_panel=_STEPS
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of one process.", rich_help_panel=_STEPS)] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other field of the recipe, as NAME=VALUE; repeatable.", rich_help_panel=_STEPS),
    ] = None,
    run: Run = None,
    resume: Annotated[bool, typer.Option(help="Go on where the run folder stopped; --no-resume refuses one.")] = True,
    data_dir: DataDir = None,
    download: Annotated[bool | None, typer.Option("--download", help="Download what is not there.")] = None,
    imports: Imports = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Train a float network, learn the bits of its layers, and write network and policy to a run folder.

    The same command goes on where it stopped. Without --recipe, the shipped recipe for the network and the data set is
    taken where there is one.
    """
    given = dict(locals())
    import_modules(imports)  # before anything that they register is looked up
    from waveq.train.config import TrainConfig

    budget = None if target is None else _budget(target)
    given |= {"target": budget, "run_dir": run}
    changes = {name: given[name] for name in TrainConfig.model_fields if given.get(name) not in (None, [])}
    silent = quiet or as_json
    others = _settings(setting or [])
    sources = {name: _option_of(name, value) for name, value in changes.items()} | dict.fromkeys(others, "--set")
    changes |= others | {"resume": resume, "progress": not silent}
    config = _config(recipe, _typed(changes), sources)
    shares = [name for name in budget or {} if name not in ("mean_bits", "bitops")]
    if hardware is not None and "bitops" in (config.target or {}):
        raise ValueError("--hardware contradicts the target bitops, which counts multiplications on no accelerator")
    if hardware is not None:
        from stripes_sim import load_hardware
        from waveq.codesign.pipeline import weigh_by_cost

        config = weigh_by_cost(config, load_hardware(hardware), objective or (shares or ["energy_pj"])[0])
    elif shares and config.layer_costs is None:
        raise ValueError(
            f"--target {target} is a share of what 8 bits cost: say on which accelerator, --hardware stripes"
        )
    from waveq.train.ranks import find_ranks
    from waveq.train.run import train as train_run

    with resumable(f"Everything is in {config.folder}, and the same command goes on from there."):
        result = train_run(config, say=say_nothing if silent else say_progress)
    if find_ranks(config).leads:  # of several processes one speaks
        emit(result_text(result), result.to_dict(), as_json=as_json)


option_names(
    "waveq train",
    inspect.signature(train).parameters,
    instead={
        "total_steps": "--epochs",
        "layer_costs": "--hardware",
        "activation_signed": "--set activation_signed=true",
        "fit_range": "--set fit_range=true",
        "beta_lr": "--set beta_lr=0.1",
        "scale_rule": "the training config has none",
    },
)


def _config(recipe: str | None, changes: dict[str, Any], sources: dict[str, str]) -> TrainConfig:
    from waveq.train.config import load_recipe, parse_config

    name = recipe or _shipped_recipe(changes.get("model"), changes.get("dataset"))
    if name is not None:
        return load_recipe(name, sources=sources, **changes)
    config = parse_config(changes, where="waveq train", sources=sources)
    if not (config.pretrain_epochs or config.init):
        say("no shipped recipe fits: defaults, and no float training before (--pretrain-epochs, --init)")
    return config


def _shipped_recipe(model: str | None, dataset: str | None) -> str | None:
    """The only recipe that fits what was said of network and data; the defaults' one when nothing was said."""
    from waveq.train.config import TrainConfig, load_recipe
    from waveq.train.recipe_files import recipe_names
    from waveq.zoo import network
    from waveq.zoo.datasets.data import source

    want_model = None if model is None else model if is_own(model) else named_or_own(model, network).name
    want_data = None if dataset is None else dataset if is_own(dataset) else named_or_own(dataset, source).name
    for name in filter(is_own, filter(None, (want_model, want_data))):
        user_object(name)  # before anything is said of recipes
    if want_model is None and want_data is None:
        want_model, want_data = TrainConfig().model, TrainConfig().dataset
    fitting = []
    for name in recipe_names():
        found = load_recipe(name)
        if want_model in (None, found.model) and want_data in (None, found.dataset):
            fitting.append(name)
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 1:
        raise ValueError(f"several recipes fit: {', '.join(fitting)}; choose one with --recipe, or give --model too")
    if want_model is None or want_data is None:
        raise ValueError("no shipped recipe fits; give both --model and --dataset")
    return None


def _budget(text: str) -> dict[str, float]:
    """A target, NAME=NUMBER; what it may be is known before hours of float training."""
    from stripes_sim.cost import OBJECTIVES
    from waveq._names import check_choice

    name, sign, number = (part.strip() for part in text.partition("="))
    try:
        limit = float(number) if sign else math.nan
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise ValueError(f"--target must be NAME=NUMBER, such as mean_bits=3.5, not {text!r}")
    check_choice("--target", name, ("mean_bits", "bitops", *OBJECTIVES))
    least, most = (1, 9) if name == "mean_bits" else (0, 1)
    if not (least <= limit <= most and limit > 0):
        what = (
            "total bits, from 1 to 9"
            if name == "mean_bits"
            else "a share of the cost at 8 bits, more than 0 and at most 1"
        )
        raise ValueError(f"--target {name} must be {what}, but it is {number}")
    return {name: limit}


def _settings(pairs: list[str]) -> dict[str, str]:
    fields = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise ValueError(f"--set must be NAME=VALUE, such as momentum=0.95, not {pair!r}")
        fields[name.strip().replace("-", "_")] = value.strip()
    return fields


def _typed(changes: dict[str, Any]) -> dict[str, Any]:
    """Numbers where a field takes numbers: a command line has texts alone."""
    from waveq.train.config import TrainConfig
    from waveq.train.strict import as_typed

    known = TrainConfig.model_fields
    return {
        name: as_typed(value, known[name].annotation) if isinstance(value, str) and name in known else value
        for name, value in changes.items()
    }


def result_text(result: TrainResult) -> str:
    """Accuracies, bits and warnings of a run, for people."""
    rows = [
        ("float", f"{100 * result.float_validation_accuracy:.2f}", f"{100 * result.float_test_accuracy:.2f}"),
        *_search_row(result),
        *_row("rounded once, not trained", result.rounded_once_validation_accuracy, result.rounded_once_test_accuracy),
        *_row("trained, not yet rounded", result.unrounded_validation_accuracy, result.unrounded_test_accuracy),
        (
            f"{result.mean_bits:.2f} bits (mean of layers)",
            f"{100 * result.validation_accuracy:.2f}",
            f"{100 * result.test_accuracy:.2f}",
        ),
    ]
    bits = _bits_table(result)
    if "search" in result.steps:
        bits += f"\n\n{share_sentence(result.steps['search'], result.steps['wave'])}"
    table = aligned(("accuracy %", "validation", "test"), rows)
    notes = "".join(f"\nwarning: {warning}" for warning in result.warnings)
    return (
        f"{bits}\n\n{table}{notes}\n\nwritten to {result.run_dir}; next: waveq score {shlex.quote(str(result.run_dir))}"
    )


def _bits_table(result: TrainResult) -> str:
    """Bits by layer, of the inputs too where any are quantised."""
    if not result.input_bits:
        return aligned(("layer", "bits"), [(name, str(width)) for name, width in result.bits.items()])
    rows = [(name, str(width), str(result.input_bits.get(name, "float"))) for name, width in result.bits.items()]
    return aligned(("layer", "bits", "inputs"), rows)


def _search_row(result: TrainResult) -> list[tuple[str, str, str]]:
    found = result.search_validation_accuracy
    return [] if found is None else [("at the end of the search", f"{100 * found:.2f}", "")]


def _row(name: str, validation: float | None, test: float | None) -> list[tuple[str, str, str]]:
    """A row of the table, where there is one."""
    if validation is None or test is None:
        return []
    return [(name, f"{100 * validation:.2f}", f"{100 * test:.2f}")]
