"""Everything that decides a training run: one validated object, read from TOML or JSON.

No torch here, so that checking a recipe costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from waveq._bits import MAX_INPUT_BITS, MAX_TOTAL_BITS
from waveq._names import suggestion
from waveq._policy_file import read_policy_file
from waveq.method.layer_costs import require_costs
from waveq.method.options import Bits, Forward, Method, option_names, usual_quantizer
from waveq.train.recipe_files import read_recipe
from waveq.train.strict import expected, fits, words
from waveq.train.user_modules import import_modules, is_own, module_name

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "METHOD_FIELDS",
    "PROCESS_FIELDS",
    "RUNTIME_FIELDS",
    "TrainConfig",
    "load_recipe",
    "parse_config",
]

RUNTIME_FIELDS = frozenset(
    {
        "imports",
        "run_dir",
        "resume",
        "progress",
        "data_dir",
        "download",
        "threads",
        "max_restarts",
        "checkpoint_seconds",
        "log_every",
        "workers",
    }
)
"""Fields that change where and how a run happens, but not what comes out of it."""

PROCESS_FIELDS = frozenset({"devices", "num_nodes"})
"""Fields that may be others where a run goes on, which says what that changes."""

_OF_THE_ZOO = {
    "model": ("width",),
    "dataset": ("data_dir", "download", "input_size", "in_channels", "validation", "augment"),
}
"""What a network or data of one's own decide themselves."""
_Rate = Field(default=None, gt=0)
_SEARCH_SHARE = 0.2


class TrainConfig(BaseModel):
    """A training run: float training, WaveQ from there, and fine-tuning with fixed bits where wanted.

    None means: what the dataset, the network, or the preset says.

    Raises:
        ValueError: an unknown field, or a value out of range (pydantic's ValidationError; `parse_config` makes it
            one sentence).

    Example:
        >>> config = TrainConfig(model="simplenet5", dataset="fashion-mnist", bits=3, epochs=2)
        >>> config.folder
        PosixPath('runs/simplenet5-fashion-mnist-3-seed0')
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    imports: tuple[str, ...] = ()
    """Modules of your own that are imported first; they register quantizers, networks and data sets."""

    # what is trained, on what
    model: str = "simplenet5"
    """A network of the zoo, or PACKAGE.MODULE:FACTORY, a function that gives one."""
    width: float = Field(default=1, gt=0)
    """Factor on the hidden filters and units (WRPN's widening)."""
    dataset: str = "fashion-mnist"
    """A dataset of the zoo, or PACKAGE.MODULE:LOADERS, a function that gives loaders."""
    data_dir: Path | None = None
    """Where data are looked for; by default $WAVEQ_DATA, else `data`."""
    download: bool = False
    """Download what is not there."""
    input_size: PositiveInt | None = None
    """Side in pixels that images are brought to; by default their own, or the least that the network takes."""
    in_channels: PositiveInt | None = None
    """Channels of the images; by default their own."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training data that is held out."""
    split_seed: int = 0
    """Decides which images are held out."""
    augment: bool = True
    """Whether training images are cropped and flipped as the dataset's usual recipe does it."""
    init: Path | None = None
    """Float weights to start from (a file of `state_dict`); float training is then left out."""

    # WaveQ, as `waveq.attach` takes it: names and texts are those of `waveq.method.options.Method`
    quantizer: str = "lsq"
    """Weight quantiser; where nobody names one, that of a policy file given as `bits`, else `usual_quantizer`'s."""
    bits: Literal["learn"] | PositiveInt | dict[str, PositiveInt] | Path = "learn"
    """"learn", total bits of every layer, bits by layer, or a policy file."""
    preset: str = "recommended"
    schedule: Literal["three-phase", "search", "constant", "exponential", "rising"] | None = None
    scale: Literal["none", "max", "learned"] | None = None
    granularity: Literal["layer", "channel"] | None = None
    forward: Literal["quantized", "float"] = "quantized"
    fit_range: bool | None = None
    freezing: Annotated[float, Field(gt=0)] | Literal["off"] | None = None
    activation_bits: Literal["learn"] | PositiveInt | dict[str, Literal["learn"] | PositiveInt] | None = None
    activation_quantizer: str | None = None
    activation_signed: bool | dict[str, bool] | None = None
    skip: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    first_last: PositiveInt | None = None
    lambda_w: float | None = Field(default=None, ge=0)
    lambda_beta: float | None = Field(default=None, ge=0)
    start_bits: float | dict[str, float] | None = None
    beta_lr: float | None = _Rate
    target: dict[str, float] | None = None
    layer_costs: dict[str, float | dict[int, float] | dict[int, dict[int, float]]] | None = None

    # how it is trained
    pretrain_epochs: int = Field(default=0, ge=0)
    """Epochs of float training."""
    epochs: int = Field(default=10, ge=0)
    """Epochs with WaveQ: those of the search, where there is one, and those of the training that follows."""
    rewind: bool | None = None
    """Whether bits are learned in a short search, and the float weights then trained with them; by default that is so
    with preset "recommended", and not with those of the paper and its code."""
    search_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of `epochs` that the search has; by default a fifth."""
    finetune_epochs: int = Field(default=0, ge=0)
    """Epochs with the bits fixed, afterwards."""
    distill: bool = False
    """Whether the float network teaches the quantised one (`waveq.distillation_loss`), in all stages with WaveQ but the
    search, whose price of a bit is meant for cross-entropy."""
    distill_temperature: float | None = _Rate
    """By default 4."""
    distill_weight: float | None = Field(default=None, gt=0, le=1)
    """Share of the teacher's part in the loss; by default a half."""
    reestimate_bn: int = Field(default=50, ge=0)
    """Training batches that batch norm's statistics are averaged over once the weights are rounded; 0 keeps those of
    training. The running ones remember some ten steps only, and weights that rounding or a late flip moved."""
    batch_size: PositiveInt = 128
    """Images of one forward and backward pass, over all processes."""
    accumulate: PositiveInt = 1
    """Passes whose gradients are averaged into one step."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = Field(default=0.01, gt=0)
    """Rate at the start of the WaveQ stage."""
    pretrain_lr: float | None = _Rate
    """Rate at the start of float training; by default `lr`."""
    finetune_lr: float | None = _Rate
    """Rate at the start of fine-tuning; by default a tenth of `lr`."""
    lr_schedule: Literal["constant", "cosine"] = "cosine"
    """Within a stage: constant, or half a cosine down to a hundredth of the rate."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=1e-4, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient of all weights together."""
    seed: int = Field(default=0, ge=0)
    """Decides initial weights, order of the data, crops and dropout."""
    precision: Literal["32", "bf16", "64"] = "32"
    """float32; bf16: autocast of the forward pass; float64."""
    checkpoint_activations: bool = False
    """Whether the blocks of the network keep their inputs alone and are computed anew going back: less memory, the same
    numbers."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: PositiveInt = 1
    """Processes of a machine, one for each device, joined by DDP (gloo on the CPU, NCCL on GPUs). Those that torchrun,
    SLURM or Kubeflow have started are counted by themselves."""
    num_nodes: PositiveInt = 1
    """Machines, on which torchrun, SLURM or Kubeflow start the processes."""
    max_restarts: int = Field(default=0, ge=0)
    """How often processes that failed are started again, from the last checkpoint; torchrun has its own option."""
    sync_batch_norm: bool = False
    """Whether batch norm takes its statistics over all processes (GPUs alone); else each takes those of its images."""
    threads: PositiveInt | None = None
    """Threads that one process may use; by default torch's own choice."""
    workers: PositiveInt = 4
    """Threads that decode image files; data in memory need none."""

    # the run folder
    run_dir: Path | None = None
    """By default runs/MODEL-DATASET-BITS-seedSEED."""
    resume: bool = True
    """Go on where the run folder stopped; False refuses a folder that holds a run."""
    log_every: PositiveInt = 20
    """Steps between two rows of metrics."""
    checkpoint_seconds: float = Field(default=30, ge=0)
    """Time between two checkpoints: what a crash or a power cut can lose."""
    progress: bool = True
    """Whether a progress bar is drawn."""

    @model_validator(mode="before")
    @classmethod
    def _usual_quantizer(cls, fields: object) -> object:
        """Bits from a file are meant for the method that the file names; each preset and road has its own usual one."""
        if not isinstance(fields, dict) or "quantizer" in fields:
            return fields
        path, named = Path(str(fields.get("bits"))), None
        if path.suffix == ".json" and path.is_file():  # a missing file is said of later
            named = read_policy_file(path).get("quantizer")
        forward: Forward = "float" if fields.get("forward") == "float" else "quantized"
        return fields | {"quantizer": named or usual_quantizer(str(fields.get("preset", "recommended")), forward)}

    @field_validator("imports")
    @classmethod
    def _names_of_modules(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(module_name, value))

    @field_validator("bits", mode="before")
    @classmethod
    def _bits_as_written(cls, value: object) -> object:
        """A text is "learn" or a file's name; a path needs none of JSON's suffix."""
        if not isinstance(value, str) or value == "learn":
            return value
        if value.endswith(".json"):
            return Path(value)
        raise ValueError("'learn', a number of bits, bits by layer, or a policy file (.json) is expected")

    @field_validator("*", mode="wrap")
    @classmethod
    def _as_written(cls, value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
        found = handler(value)
        annotation = cls.model_fields[str(info.field_name)].annotation
        if not fits(value, annotation):
            raise ValueError(f"{expected(annotation)} is expected")
        return found

    @field_validator("layer_costs", mode="after")
    @classmethod
    def _costs_are_positive(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        require_costs(value)
        return value

    @model_validator(mode="after")
    def _own_decide(self) -> Self:
        for kind, fields in _OF_THE_ZOO.items():
            name = getattr(self, kind)
            for field in fields if is_own(name) else ():
                if getattr(self, field) != type(self).model_fields[field].default:
                    raise ValueError(f"{field} says nothing of {name}, which decides that itself: leave it out")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        processes = self.devices * self.num_nodes
        if self.batch_size % processes:
            devices = f"{self.devices} devices" + (
                f" on each of num_nodes {self.num_nodes}" if self.num_nodes > 1 else ""
            )
            raise ValueError(
                f"batch_size {self.batch_size} cannot be shared by {devices}; "
                f"the next one that can is {-(-self.batch_size // processes) * processes}"
            )
        for name in ("bits", "first_last", "activation_bits"):
            # before float training is done, and by name; quantizers check again
            given, most = getattr(self, name), MAX_INPUT_BITS if name == "activation_bits" else MAX_TOTAL_BITS
            for value in given.values() if isinstance(given, dict) else (given,):
                if isinstance(value, int) and value > most:
                    raise ValueError(f"{name} must be from 1 to {most}, not {value}")
        if self.learns and self.epochs == 0:
            raise ValueError("bits 'learn' needs epochs: at least 1, rather 10")
        if self.target is not None and not self.learns:
            raise ValueError("target is a budget for learned bits; preset bits have none")
        if self.rewind and not self.learns:
            raise ValueError("rewind is for learned bits; with preset bits there is no search to rewind from")
        if self.search_share is not None and not self.searches:
            raise ValueError("search_share is the length of a search; without learned bits, or rewind, there is none")
        if self.distill and self.init is None and not self.pretrain_epochs:
            raise ValueError("distill needs a float network that can teach: pretrain_epochs of at least 1, or init")
        for name in ("distill_temperature", "distill_weight"):
            if getattr(self, name) is not None and not self.distill:
                raise ValueError(f"{name} is for distill, which is off")
        return self

    @property
    def learns(self) -> bool:
        """Whether any bits are learned, of weights or inputs."""
        return self.bits == "learn" or self.learns_inputs

    @property
    def learns_inputs(self) -> bool:
        """Whether bits of inputs are learned."""
        given = self.activation_bits
        return "learn" in (given.values() if isinstance(given, dict) else (given,))

    @property
    def searches(self) -> bool:
        """Whether bits are learned in a search of their own."""
        wanted = self.preset == "recommended" if self.rewind is None else self.rewind
        return self.learns and wanted

    def parts(self, steps: int) -> tuple[int, int]:
        """Optimizer steps of the search, 0 without one, and of the training with its bits.

        Args:
            steps: of both together.

        Raises:
            ValueError: one step cannot be parted.

        Example:
            >>> TrainConfig().parts(500), TrainConfig(rewind=False).parts(500)
            ((100, 400), (0, 500))
        """
        if not self.searches:
            return 0, steps
        if steps < 2:
            raise ValueError(f"epochs: {steps} step cannot be parted into search and training (rewind=False does not)")
        share = _SEARCH_SHARE if self.search_share is None else self.search_share
        search = min(max(1, round(share * steps)), steps - 1)
        return search, steps - search

    def method(self, bits: Bits, total_steps: int | None) -> Method:
        """The options of `waveq.attach` for the first stage with WaveQ.

        Args:
            bits: "learn", or preset ones; where nothing is learned, what drives learned bits is left out.
            total_steps: the stage's optimiser steps.

        Example:
            >>> TrainConfig(lambda_w=0.3, lambda_beta=0.1).method(4, None).lambda_beta is None
            True
        """
        options = {name: getattr(self, name) for name in METHOD_FIELDS}
        if bits != "learn" and not self.learns_inputs:
            options |= {"lambda_beta": None, "target": None}
        elif self.searches and self.schedule is None:
            options["schedule"] = "search"
        return Method(**{**options, "bits": bits, "total_steps": total_steps})

    @property
    def folder(self) -> Path:
        """The run folder."""
        if self.run_dir is not None:
            return self.run_dir
        bits = self.bits if isinstance(self.bits, int | str) else "policy"
        return Path("runs") / f"{self.model}-{self.dataset}-{bits}-seed{self.seed}".replace(":", ".")

    def to_json(self) -> str:
        """All fields that are set, as JSON that `load_recipe` reads back.

        Example:
            >>> import json
            >>> config = TrainConfig(epochs=3, target={"mean_bits": 3.5})
            >>> parse_config(json.loads(config.to_json()), where="here") == config
            True
        """
        return self.model_dump_json(exclude_none=True, indent=2) + "\n"


METHOD_FIELDS = option_names(
    "TrainConfig",
    TrainConfig.model_fields,
    instead={
        "total_steps": "epochs and the length of the data",
        "scale_rule": "the exact form: the printed ones are there to compare with",
    },
)
"""The fields that are options of `waveq.attach`, under the names that it has for them."""


def parse_config(
    fields: Mapping[str, Any], *, where: str = "config", sources: Mapping[str, str] | None = None
) -> TrainConfig:
    """A config from plain fields, with errors in one sentence.

    Args:
        fields: names and values, as a TOML file or a command line gives them.
        where: what to name in an error, a file for instance.
        sources: the same by field, of those that come from elsewhere: {"lr": "--lr"}.

    Returns:
        The config; the modules that it names have been imported.

    Raises:
        ValueError: names where the field comes from, the field, the value, what was expected, and the nearest known
            field; of fields that do not fit together, where each that the sentence names comes from.

    Example:
        >>> parse_config({"epoch": 3}, where="my.toml")
        Traceback (most recent call last):
        ValueError: my.toml: no field is called 'epoch'; did you mean 'epochs'?
    """
    try:
        config = TrainConfig.model_validate(dict(fields))
    except ValidationError as error:
        field, sentence = _first_problem(error)
        at_fault = [field] if field else [name for name, value in fields.items() if _speaks_of(sentence, name, value)]
        told = dict.fromkeys((sources or {}).get(name, where) for name in at_fault)
        raise ValueError(f"{', '.join(told) or where}: {sentence}") from None
    import_modules(config.imports)
    return config


def _speaks_of(sentence: str, name: str, value: object) -> bool:
    """Whether a sentence on several fields has this one's name in it, or the text or path that it is set to."""
    words = [name, str(value)] if isinstance(value, str | Path) and len(str(value)) > 3 else [name]
    return any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", sentence) for word in words)


def _first_problem(error: ValidationError) -> tuple[str, str]:
    """The field, "" where several do not fit together, and what is wrong."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"][:1])
    return field, _sentence(problem, field)


def _sentence(problem: ErrorDetails, field: str) -> str:
    if problem["type"] == "extra_forbidden":
        return f"no field is called {field!r}{suggestion(field, TrainConfig.model_fields)}"
    message = problem["msg"].removeprefix("Value error, ")
    if not field:
        return message
    value, annotation = problem["input"], TrainConfig.model_fields[field].annotation
    # none of several kinds of value, or not of the one kind
    if (len(problem["loc"]) > 1 and not isinstance(value, dict)) or problem["type"].endswith("_type"):
        message = f"{expected(annotation)} is expected"
    return f"{field} is {value!r}: {message[0].lower()}{message[1:]}{suggestion(value, words(annotation))}"


def load_recipe(name: str | Path, *, sources: Mapping[str, str] | None = None, **changes: Any) -> TrainConfig:
    """A recipe by name, or a TOML or JSON file by path (a run folder's config.json), with some fields changed.

    Args:
        name: of the recipe or file.
        sources: what an error says that a change comes from, by field (see `parse_config`); else this call.
        changes: fields of `TrainConfig` with other values than the file's.

    Raises:
        ValueError: no such recipe or file (the message gives the nearest name), not TOML, wrong fields.

    Example:
        >>> load_recipe("resnet20-cifar10", seed=3).epochs
        96
    """
    fields, where = read_recipe(name)
    told = dict.fromkeys(changes, "load_recipe") | dict(sources or {})
    return parse_config({**fields, **changes}, where=where, sources=told)
