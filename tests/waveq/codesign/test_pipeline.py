"""The whole pipeline: what it leaves, that its parts agree, that it resumes where it was stopped."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stripes_sim import Stripes
from tests.waveq.conftest import tiny_config
from waveq.codesign import placement, protocol
from waveq.codesign import space as design_space
from waveq.codesign.pipeline import codesign, weigh_by_cost
from waveq.policy import Policy
from waveq.train.trained_run import TrainedRun

FILES = (
    "config.json",
    "policy.json",
    "weights.pt",
    "result.json",
    "score.csv",
    "score.json",
    "score.txt",
    "breakdown.png",
    "enumeration.sqlite",
    "enumeration.json",
    "policies.csv",
    "frontier.csv",
    "frontier.json",
    "origins.json",
    "frontier.png",
    "sensitivity.csv",
    "sensitivity.png",
    "learning.png",
    "report.md",
    "report.html",
)


@pytest.mark.slow
def test_run_folder_holds_everything(designed: Any) -> None:
    folder = designed.run.path
    assert [name for name in FILES if not (folder / name).is_file()] == []


def test_every_policy_of_the_space_is_there_once(designed: Any) -> None:
    frame = designed.placement.frame
    names = list(designed.run.policy)
    rows = {tuple(row) for row in frame[names].to_numpy().tolist()}
    assert len(rows) == len(frame)
    space = {tuple(2 if bit == "0" else 4 for bit in f"{number:04b}") for number in range(16)}
    assert rows == space | {tuple(designed.run.policy.values())}


def test_costs_of_the_table_are_those_of_a_single_run(designed: Any) -> None:
    names = list(designed.run.policy)
    for row in designed.placement.frame.sample(5, random_state=0).to_dict("records"):
        result = Stripes().run(designed.run.layers, {name: row[name] for name in names}, 16)
        assert row["energy_pj"] == pytest.approx(result.energy_pj, rel=1e-12)
        assert row["cycles"] == pytest.approx(result.cycles, rel=1e-12)


@pytest.mark.slow
def test_accuracies_of_the_table_are_those_of_rounded_networks(designed: Any) -> None:
    """The slow twin: round a copy of the float network by hand and count."""
    import torch

    from waveq.quantizers import quantize_weight

    run = designed.run
    images, labels = run.dataset.validation.tensors()
    for row in designed.placement.frame.sample(4, random_state=1).to_dict("records"):
        network = run.float_network()
        with torch.no_grad():
            for name in run.policy:
                weight = network.get_submodule(name).weight
                weight.copy_(quantize_weight(weight, row[name], quantizer="lsq"))
            accuracy = float((network(images).argmax(1) == labels).double().mean())
        assert row["accuracy"] == pytest.approx(100 * accuracy, abs=1e-9)


def test_placement_agrees_with_the_table(designed: Any) -> None:
    placed = designed.placement
    frame, own = placed.frame, placed.own
    dominated = (
        (frame["accuracy"] >= own["accuracy"])
        & (frame["energy_pj"] <= own["energy_pj"])
        & ((frame["accuracy"] > own["accuracy"]) | (frame["energy_pj"] < own["energy_pj"]))
    )
    assert placed.efficient == (not dominated.any())
    assert placed.efficient == (placed.accuracy_gap == 0 and placed.energy_gap_pj == 0)
    assert json.loads((designed.run.path / "frontier.json").read_text()) == placed.summary()


def test_gaps_of_a_policy_off_the_frontier() -> None:
    frame = pd.DataFrame({"a": [2, 3, 4, 5], "accuracy": [80.0, 90.0, 88.0, 91.0], "energy_pj": [1.0, 2.0, 3.0, 4.0]})
    placed = placement.place(frame, frame.iloc[[0, 1, 3]], {"a": 4})
    assert (placed.efficient, placed.accuracy_gap, placed.energy_gap_pj) == (False, 2.0, 1.0)
    assert placement.place(frame, frame, {"a": 5}).efficient
    with pytest.raises(ValueError, match="not among the 4 policies"):
        placement.place(frame, frame, {"a": 6})


def test_report_names_every_part(designed: Any) -> None:
    text = designed.report.read_text()
    for word in ("## Policy", "## Cost", "## Frontier", "## Sensitivity", "## How it was made", "uniform 2", "seed 0"):
        assert word in text
    for picture in ("learning.png", "breakdown.png", "frontier.png", "sensitivity.png"):
        assert f"]({picture})" in text


@pytest.mark.slow
def test_calling_it_again_trains_nothing_and_gives_the_same(run_copy: Path, designed: Any) -> None:
    before = (run_copy / "weights.pt").stat().st_mtime_ns
    again = codesign(tiny_config(run_copy), choices=(2, 4))
    assert (run_copy / "weights.pt").stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(again.placement.frame, designed.placement.frame)
    assert again.placement.summary() == designed.placement.summary()


@pytest.mark.slow
def test_interrupted_enumeration_goes_on_with_what_is_missing(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("enumeration.sqlite", "policies.csv"):
        (run_copy / name).unlink()
    run, calls = TrainedRun(run_copy), []
    monkeypatch.setattr(design_space, "UNIT_ROWS", 4)
    real = protocol.Evaluation.correct

    def stop_after_two(self: Any, policies: np.ndarray) -> Any:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(len(policies))
        return real(self, policies)

    monkeypatch.setattr(protocol.Evaluation, "correct", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        design_space.enumerate_run(run, Stripes(), choices=(2, 4), progress=False)
    monkeypatch.setattr(
        protocol.Evaluation, "correct", lambda self, policies: calls.append(len(policies)) or real(self, policies)
    )
    frame = design_space.enumerate_run(run, Stripes(), choices=(2, 4), progress=False)
    assert len(calls) > 3
    assert sum(calls) == len(frame)  # nothing twice


def test_a_store_of_another_network_is_refused(run_copy: Path) -> None:
    import torch

    from waveq.train.run_folder import load_weights, save_weights

    weights = load_weights(run_copy / "float" / "weights.pt")
    save_weights(run_copy / "float" / "weights.pt", {key: value + 1e-3 for key, value in weights.items()})
    assert torch.is_tensor(weights["fc1.weight"])
    with pytest.raises(ValueError, match=r"another campaign; what differs:\n  fingerprint\.weights"):
        design_space.enumerate_run(TrainedRun(run_copy), Stripes(), choices=(2, 4), progress=False)


@pytest.mark.slow
def test_ctrl_c_during_training_resumes_to_the_same_network(
    tmp_path: Path, designed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from waveq.train.callbacks import Recorder
    from waveq.train.run import TrainingInterrupted

    real = Recorder.on_train_epoch_end

    def interrupt(self: Any, *arguments: Any) -> None:
        real(self, *arguments)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Recorder, "on_train_epoch_end", interrupt)
    config = tiny_config(tmp_path / "run")
    with pytest.raises(TrainingInterrupted, match="the same command goes on"):
        codesign(config, choices=(2, 4))
    assert (tmp_path / "run" / "float" / "last.ckpt").exists()
    monkeypatch.setattr(Recorder, "on_train_epoch_end", real)
    again = codesign(config, choices=(2, 4))
    assert again.run.policy == designed.run.policy
    assert again.training.validation_accuracy == designed.training.validation_accuracy
    pd.testing.assert_frame_equal(again.placement.frame, designed.placement.frame)


def test_layers_are_weighed_by_their_cost(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    weighed = weigh_by_cost(config, Stripes(), "energy_pj")
    assert weighed.layer_costs is not None
    layers = traced(config)
    for name, costs in weighed.layer_costs.items():
        assert isinstance(costs, dict)
        others = dict.fromkeys((layer.name for layer in layers), 4)
        step = Stripes().run(layers, {**others, name: 5}, 16).energy_pj - Stripes().run(layers, others, 16).energy_pj
        assert costs[5] - costs[4] == pytest.approx(step, rel=1e-9)
    assert weigh_by_cost(config, Stripes(), None) is config
    with pytest.raises(ValueError, match="energy_pj"):
        weigh_by_cost(config, Stripes(), "energy")


def traced(config: Any) -> Any:
    from waveq.codesign.score import trace_config

    return trace_config(config)


def test_unfinished_and_missing_runs_are_refused(tmp_path: Path, run_copy: Path) -> None:
    with pytest.raises(ValueError, match="is no run folder"):
        TrainedRun(tmp_path)
    (run_copy / "result.json").unlink()
    with pytest.raises(ValueError, match="not finished; go on with: waveq train"):
        TrainedRun(run_copy)


def test_policy_is_marked_as_such(designed: Any) -> None:
    assert Policy.load(designed.run.path / "policy.json") == designed.training.bits


@pytest.mark.slow
def test_a_sample_of_a_large_space(run_copy: Path) -> None:
    (run_copy / "enumeration.sqlite").unlink()
    frame = design_space.enumerate_run(
        TrainedRun(run_copy), Stripes(), choices=range(2, 9), sample=20, seed=3, replace=True, progress=False
    )
    names = list(Policy.load(run_copy / "policy.json"))
    bits = frame[names].to_numpy()
    uniform = (bits == bits[:, :1]).all(axis=1)
    assert 20 <= len(frame) <= 28
    assert uniform.sum() >= 7
