"""The whole pipeline as one function: train, learn bits, price, enumerate, place, measure sensitivity, report.

design = codesign(model, (train_loader, val_loader, test_loader), pretrain_epochs=5, run_dir="runs/mine")
design = codesign(load_recipe("digits"), hardware="stripes")
print(design.score); design.placement.efficient; design.report
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waveq._files import write_json, write_text
from waveq._names import check_choice
from waveq.codesign.frames import write_frame
from waveq.codesign.origins import record
from waveq.codesign.placement import Placement, place_run
from waveq.codesign.protocol import Protocol, require_choices
from waveq.codesign.score import result_data, score_run, trace_config, training_costs
from waveq.codesign.search import search_run
from waveq.codesign.space import CHOICES, enumerate_run, run_sensitivity
from waveq.train.config import TrainConfig, parse_config
from waveq.train.saying import Say, say_nothing
from waveq.train.trained_run import TrainedRun

if TYPE_CHECKING:
    import pandas as pd

    from stripes_sim import Accelerator, Result
    from waveq.train.result import TrainResult

__all__ = ["CoDesign", "codesign", "record_score", "save_score", "weigh_by_cost"]

_MOST_ENUMERATED, _SEARCHED = 10_000, 300


@dataclass(frozen=True, kw_only=True)
class CoDesign:
    """Everything that came out; all of it is in the run folder too."""

    run: TrainedRun
    training: TrainResult
    score: Result
    """Cycles and energy of the learned policy, layer by layer."""
    placement: Placement
    """Where it lies among all policies."""
    sensitivity: pd.DataFrame
    report: Path
    """report.md, with pictures beside it."""
    page: Path
    """report.html, one file."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each stage in this call; a resumed stage counts what was left of it."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "run": str(self.run.path),
            "training": self.training.to_dict(),
            "score": result_data(self.score),
            "placement": self.placement.summary(),
            "sensitivity": self.sensitivity.to_dict("records"),
            "report": str(self.report),
            "page": str(self.page),
            "seconds": self.seconds,
        }


def codesign(
    model: Any,
    data: Any = None,
    *,
    hardware: str | Path = "stripes",
    choices: Sequence[int] = CHOICES,
    protocol: Protocol | None = None,
    weigh: str | None = "energy_pj",
    evaluations: int | None = None,
    engine: str = "serial",
    say: Say | None = None,
    **fields: Any,
) -> CoDesign:
    """Train, learn bits, price them, evaluate the design space, place the policy, and write a report.

    Calling it again with the same arguments goes on where it stopped: training from its checkpoint, the enumeration
    after the policies that it has.

    Args:
        model: your network: a torch module, which begins with the weights that it has, a function or class that gives
            one, its name, "PACKAGE.MODULE:FACTORY", or one of the zoo. Or the whole training run, a TrainConfig.
        data: your train, validation and test loaders in a tuple or mapping, a LightningDataModule, a function that
            gives them, its name, "PACKAGE.MODULE:LOADERS", or one of the zoo; none with a TrainConfig.
        hardware: an accelerator by name or TOML file.
        choices: bits that every layer may take in the enumerated space.
        protocol: how the accuracy of every policy is measured; by default rounding without training.
        weigh: the cost that weighs each layer's bits while they are learned ("energy_pj", "cycles"), or None.
        evaluations: how many policies are measured, in a search for the frontier (`waveq search`); None measures all
            where there are at most 10,000, and else 300.
        engine: see `pareto.run_campaign`.
        say: receives a line at the beginning of each stage; by default nothing is said.
        fields: of `waveq.train.TrainConfig`, such as epochs and run_dir; none with one.

    Raises:
        TypeError: no model; a TrainConfig with data or fields beside it.
        ValueError: wrong arguments, missing data, a run folder of another config.
        waveq.train.TrainingInterrupted: Ctrl-C or SIGTERM during training; the same call goes on.
    """
    from pareto.engines import ENGINES
    from stripes_sim import load_hardware
    from waveq.codesign.page import write_page
    from waveq.codesign.report import write_report
    from waveq.train.lock import alone_in
    from waveq.train.run import train

    config = _config(model, data, fields)
    speak = say or say_nothing
    machine = load_hardware(hardware)
    require_choices(config, choices)
    if evaluations is not None and evaluations < 1:
        raise ValueError(f"evaluations must be at least 1, not {evaluations}")
    check_choice("engine", engine, tuple(ENGINES))
    watch = _Watch(speak)
    with watch("train", "float network, learned bits, fine-tuning"):
        training = train(weigh_by_cost(config, machine, weigh), say=speak)
    run = TrainedRun(config.folder)
    with alone_in(run.path):
        with watch("score", f"cycles and energy on {machine.name}"):
            score = score_run(run, machine)
            record_score(run.path, save_score(score, run.path, breakdown=True))
        common: dict[str, Any] = {"choices": choices, "protocol": protocol, "engine": engine}
        common["progress"] = config.progress
        if evaluations is None and len(choices) ** len(run.policy) <= _MOST_ENUMERATED:
            with watch("enumerate", "every policy of the design space"):
                frame = enumerate_run(run, machine, **common)
            with watch("frontier", "the best accuracy for every energy"):
                placement = place_run(run, frame)
        else:
            with watch("search", "policies that are likely to lie on the frontier"):
                searched = search_run(run, machine, evaluations=evaluations or _SEARCHED, **common)
                assert searched[2] is not None  # its objective is energy
                placement = searched[2]
        with watch("sensitivity", "one layer at a time, one bit less and one more"):
            sensitivity = run_sensitivity(run, protocol=protocol)
        with watch("report", "pictures, report.md and report.html"):
            report, page = write_report(run.path), write_page(run.path)
    return CoDesign(
        run=run,
        training=training,
        score=score,
        placement=placement,
        sensitivity=sensitivity,
        report=report,
        page=page,
        seconds=watch.seconds,
    )


def _config(model: Any, data: Any, fields: Mapping[str, Any]) -> TrainConfig:
    if not isinstance(model, TrainConfig):
        from waveq.train.given import own_config

        if data is None:
            raise TypeError(
                "data are missing: train, validation and test loaders, a function that gives them, or a name"
            )
        return own_config(model, data, where="codesign", **fields)
    if data is not None or fields:
        given = "data" if data is not None else next(iter(fields))
        raise TypeError(f"a TrainConfig says everything of a run: leave {given} out")
    return model


def weigh_by_cost(config: TrainConfig, hardware: Accelerator, objective: str | None) -> TrainConfig:
    """The config with what every layer costs by bits on the accelerator; None leaves all layers alike.

    Raises:
        ValueError: an objective that the accelerator's cost table does not have.
    """
    if objective is None or not config.learns or "bitops" in (config.target or {}):
        return config
    costs = training_costs(trace_config(config), hardware, objective, inputs=config.learns_inputs)
    return parse_config(
        {**config.model_dump(exclude_none=True), "layer_costs": costs}, where=f"costs on {hardware.name}"
    )


def save_score(
    result: Result, folder: Path, *, breakdown: bool, roofline: bool = False, ceilings: Sequence[int] = ()
) -> list[str]:
    """Write a score's table, rows and totals, and the pictures asked for; returns the names of the files.

    ``ceilings`` are weight bits that the roofline shows beside the policy's.
    """
    write_frame(folder / "score.csv", result.frame)
    write_text(folder / "score.txt", result.table(breakdown=breakdown) + "\n")
    write_json(folder / "score.json", result_data(result), default=float)
    names = ["score.txt", "score.csv", "score.json"]
    if breakdown:
        from stripes_sim import plot_breakdown
        from waveq.codesign.pictures import save_figure

        save_figure(plot_breakdown(result), folder / "breakdown.png")
        names.append("breakdown.png")
    if roofline:
        from stripes_sim import plot_roofline
        from waveq.codesign.pictures import save_figure

        save_figure(plot_roofline(result, bits=ceilings), folder / "roofline.png")
        names.append("roofline.png")
    return names


def record_score(folder: Path, names: Sequence[str]) -> None:
    """Remember that these files of `save_score` are of the run's own policy, as it is now."""
    for name in names:
        record(folder, name, ["policy.json"])


class _Watch:
    """Says which stage begins, and keeps how long it took."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str, words: str) -> Iterator[None]:
        self._say(f"{name}: {words}")
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)
