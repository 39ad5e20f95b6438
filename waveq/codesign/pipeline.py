"""The whole pipeline as one function: train, learn bits, price, enumerate, place, measure sensitivity, report.

design = codesign(load_recipe("digits"), hardware="stripes")
print(design.score); design.placement.efficient; design.report
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waveq._files import write_json, write_text
from waveq.codesign.frames import write_frame
from waveq.codesign.origins import record
from waveq.codesign.placement import Placement, place_run
from waveq.codesign.protocol import Protocol
from waveq.codesign.score import result_data, score_run, trace_config, training_costs
from waveq.codesign.space import CHOICES, enumerate_run, run_sensitivity
from waveq.train.config import TrainConfig, parse_config
from waveq.train.trained_run import TrainedRun

if TYPE_CHECKING:
    import pandas as pd

    from stripes_sim import Accelerator, Result
    from waveq.train.result import TrainResult

__all__ = ["CoDesign", "codesign", "record_score", "save_score", "weigh_by_cost"]

Say = Callable[[str], None]


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
    config: TrainConfig,
    *,
    hardware: str | Path = "stripes",
    choices: Sequence[int] = CHOICES,
    protocol: Protocol | None = None,
    weigh: str | None = "energy_pj",
    engine: str = "serial",
    say: Say | None = None,
) -> CoDesign:
    """Train, learn bits, price them, evaluate the whole design space, place the policy, and write a report.

    Calling it again with the same arguments goes on where it stopped: training from its checkpoint, the enumeration
    after the policies that it has.

    Args:
        config: the training run; its run folder receives everything.
        hardware: an accelerator by name or TOML file.
        choices: bits that every layer may take in the enumerated space.
        protocol: how the accuracy of every policy is measured; by default rounding without training.
        weigh: the cost that weighs each layer's bits while they are learned ("energy_pj", "cycles"), or None.
        engine: see `pareto.run_campaign`.
        say: receives a line at the beginning of each stage; by default nothing is said.

    Raises:
        ValueError: wrong arguments, missing data, a run folder of another config.
        waveq.train.TrainingInterrupted: Ctrl-C or SIGTERM during training; the same call goes on.
    """
    from stripes_sim import load_hardware
    from waveq.codesign.page import write_page
    from waveq.codesign.report import write_report
    from waveq.train.lock import alone_in
    from waveq.train.run import train

    speak = say or _silent
    machine = load_hardware(hardware)
    watch = _Watch(speak)
    with watch("train", "float network, learned bits, fine-tuning"):
        training = train(weigh_by_cost(config, machine, weigh), say=speak)
    run = TrainedRun(config.folder)
    with alone_in(run.path):
        with watch("score", f"cycles and energy on {machine.name}"):
            score = score_run(run, machine)
            record_score(run.path, save_score(score, run.path, breakdown=True))
        with watch("enumerate", "every policy of the design space"):
            frame = enumerate_run(
                run, machine, choices=choices, protocol=protocol, engine=engine, progress=config.progress
            )
        with watch("frontier", "the best accuracy for every energy"):
            placement = place_run(run, frame)
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


def weigh_by_cost(config: TrainConfig, hardware: Accelerator, objective: str | None) -> TrainConfig:
    """The config with what every layer costs by bits on the accelerator; None leaves all layers alike.

    Raises:
        ValueError: an objective that the accelerator's cost table does not have.
    """
    if objective is None or not config.learns or "bitops" in (config.target or {}):
        return config
    costs = training_costs(trace_config(config), hardware, objective, inputs=config.learns_inputs)
    return parse_config({**config.model_dump(exclude_none=True), "layer_costs": costs})


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


def _silent(_line: str) -> None:
    """Say nothing."""
