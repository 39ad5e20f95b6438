"""Training end to end on the digits: stages, exact resume, what a run folder holds."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import waveq
from waveq.method.attachment import attach_method
from waveq.train.classifier import measure, rate_at, seed_step
from waveq.train.config import TrainConfig, parse_config
from waveq.train.materials import make_dataset, make_network
from waveq.train.result import share_sentence
from waveq.train.run import TrainingInterrupted, train
from waveq.train.run_folder import RunFolder, StageFolder, load_weights
from waveq.train.stage import Stage, make_loader, steps_per_epoch
from waveq.train.stopping import StopRequested
from waveq.zoo.datasets.data import Dataset
from waveq.zoo.datasets.seeds import mixed_seed

Lines = list[str]


def digits(run_dir: Path, **changes: Any) -> TrainConfig:
    fields = {"model": "digitsnet", "dataset": "digits", "epochs": 3, "batch_size": 256, "lr": 0.05, "threads": 1}
    return parse_config({**fields, "run_dir": run_dir, "progress": False, "log_every": 2, **changes})


def run_stage(config: TrainConfig, folder: Path, *, stop_at: int = 0, crash_at: int = 0) -> dict[str, Tensor]:
    """One WaveQ stage, asked to stop, or made to crash, after that many optimizer steps. Gives the whole state."""
    dataset = make_dataset(config)
    network = make_network(config, dataset)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        if asked == crash_at:
            raise ZeroDivisionError
        return asked == stop_at

    folder.mkdir(exist_ok=True)
    loader = make_loader(config, dataset, "wave")
    stage = Stage(
        name="wave",
        folder=StageFolder(folder),
        config=config,
        dataset=dataset,
        loader=loader,
        total_steps=config.epochs * steps_per_epoch(config, loader),
        rate=config.lr,
        stop=stop,
    )
    wq = attach_method(network, config.method("learn", stage.total_steps))
    stage.run(network, wq)
    return network.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def by_hand(config: TrainConfig) -> dict[str, Tensor]:
    """The same stage as a plain loop, without Lightning."""
    dataset = make_dataset(config)
    network = make_network(config, dataset)
    loader = make_loader(config, dataset, "wave")
    total = config.epochs * len(loader)
    wq = attach_method(network, config.method("learn", total))
    optimizer = torch.optim.SGD(network.parameters(), lr=config.lr, momentum=0.9, weight_decay=1e-4)
    step = 0
    for epoch in range(config.epochs):
        for batch, (x, y) in enumerate(loader):
            optimizer.param_groups[0]["lr"] = rate_at(step, total, config.lr, "cosine")
            seed_step(mixed_seed(config.seed, *b"wave"), epoch, batch, 0)
            loss = F.cross_entropy(network(x), y) + wq.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            wq.step()
            step += 1
    return network.state_dict()


@pytest.mark.slow
def test_lightning_trains_as_the_plain_loop(tmp_path: Path) -> None:
    config = digits(tmp_path)
    assert same(run_stage(config, tmp_path / "a"), by_hand(config))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "stops"),
    [
        pytest.param({"epochs": 2}, range(1, 11), id="sgd, at every step"),
        pytest.param(
            {"epochs": 2, "optimizer": "adam", "accumulate": 2, "clip_norm": 1.0}, range(1, 7), id="adam in pieces"
        ),
        pytest.param({"model": "svhn8", "width": 0.1, "epochs": 1}, (1, 4), id="dropout"),
        pytest.param(
            {"model": "resnet20", "width": 0.25, "epochs": 1, "precision": "bf16"}, (1, 4), id="batch norm, bf16"
        ),
        pytest.param(
            {"epochs": 2, "activation_bits": "learn", "target": {"bitops": 0.5}}, (1, 4, 5, 9), id="inputs learn"
        ),
    ],
)
def test_stopped_and_resumed_is_never_stopped(tmp_path: Path, changes: dict[str, Any], stops: Sequence[int]) -> None:
    config = digits(tmp_path, **changes)
    whole = run_stage(config, tmp_path / "whole")
    steps = int(whole["waveq_step"])
    rows = (tmp_path / "whole" / "metrics.csv").read_text()
    assert steps == config.epochs * -(-5 // config.accumulate)
    for step in stops:
        folder = tmp_path / f"stopped-{step}"
        with pytest.raises(StopRequested):
            run_stage(config, folder, stop_at=step)
        resumed = run_stage(config, folder)
        assert same(resumed, whole), f"stopped after step {step}"
        assert (folder / "metrics.csv").read_text() == rows, f"stopped after step {step}"


@pytest.mark.slow
def test_image_files_with_random_views_resume_exactly_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 2)):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / part / name / f"{i}.png")
    changes = {"dataset": "imagenet", "data_dir": tmp_path, "model": "simplenet5", "input_size": 16, "batch_size": 8}
    config = digits(tmp_path / "run", **changes, epochs=2, validation=0.25, workers=2)
    whole = run_stage(config, tmp_path / "whole")
    assert int(whole["waveq_step"]) == 4
    for step in (1, 2, 3):
        with pytest.raises(StopRequested):
            run_stage(config, tmp_path / f"stopped-{step}", stop_at=step)
        assert same(run_stage(config, tmp_path / f"stopped-{step}"), whole)
    plain = run_stage(config.model_copy(update={"augment": False}), tmp_path / "plain")
    assert not same(plain, whole)
    assert train(config, say=lambda _line: None).bits.keys() == {"conv1", "conv2", "fc1", "fc2", "fc3"}


@pytest.mark.slow
def test_a_crash_loses_only_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    config = digits(tmp_path, epochs=2, checkpoint_seconds=0, log_every=3)
    whole = run_stage(config, tmp_path / "whole")
    rows = (tmp_path / "whole" / "metrics.csv").read_text()
    for step in (1, 4, 6):
        folder = tmp_path / f"crashed-{step}"
        with pytest.raises(ZeroDivisionError):
            run_stage(config, folder, crash_at=step)
        with (folder / "metrics.csv").open("a") as file:
            file.write("99,0,0.01")  # half a row from after the checkpoint
        assert same(run_stage(config, folder), whole)
        assert (folder / "metrics.csv").read_text() == rows


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainConfig, waveq.train.TrainResult, Lines]:
    lines: Lines = []
    folder = tmp_path_factory.mktemp("run") / "run"
    config = digits(folder, pretrain_epochs=6, epochs=6, finetune_epochs=2, batch_size=64)
    return config, train(config, say=lines.append), lines


@pytest.mark.slow
def test_result_is_what_the_files_hold(finished: tuple[TrainConfig, Any, Lines]) -> None:
    config, result, _ = finished
    folder = RunFolder(config.folder)
    policy = waveq.Policy.load(folder.policy)
    assert dict(policy) == result.bits
    assert list(result.bits) == ["conv1", "conv2", "fc1", "fc2"]
    assert result.mean_bits == sum(result.bits.values()) / 4
    dataset = make_dataset(config)
    network = make_network(config, dataset)
    network.load_state_dict(load_weights(folder.weights))
    assert measure(network, dataset.loader("test"))["accuracy"] == result.test_accuracy
    assert measure(network, dataset.loader("validation"))["accuracy"] == result.validation_accuracy
    network.load_state_dict(load_weights(folder.stage("float").weights))
    assert measure(network, dataset.loader("test"))["accuracy"] == result.float_test_accuracy
    for name, bits in result.bits.items():
        levels = load_weights(folder.weights)[f"{name}.weight"].unique()
        assert len(levels) <= 2**bits, name


@pytest.mark.slow
def test_training_learns(finished: tuple[TrainConfig, Any, Lines]) -> None:
    _, result, _ = finished
    assert result.float_test_accuracy > 0.85
    assert result.test_accuracy > 0.85
    assert result.to_dict()["bits"] == result.bits


def test_shares_and_forecast_come_before_the_search(finished: tuple[TrainConfig, Any, Lines]) -> None:
    _, result, lines = finished
    assert lines[0].startswith("float training: digitsnet on digits, 6 epochs")
    told, _, forecast = lines[1].partition("\n")
    assert told == f"search: {share_sentence(24, 96)}"
    assert forecast == result.forecast
    found = "; ".join(f"{name} {bits}" for name, bits in result.bits.items())
    assert f"bits found: {found}; the float weights are trained with them: 96 steps" in lines
    assert [f"warning: {w}" for w in result.warnings] == [line for line in lines if line.startswith("warning")]


def test_run_folder_holds_everything(finished: tuple[TrainConfig, Any, Lines]) -> None:
    config, _, _ = finished
    root = config.folder
    assert {p.name for p in root.iterdir()} == {
        *("config.json", "policy.json", "weights.pt", "result.json", ".lock"),
        *("float", "search", "wave", "finetune"),
    }
    for stage, steps in (("float", 120), ("search", 24), ("wave", 96), ("finetune", 40)):
        names = {p.name for p in (root / stage).iterdir()}
        assert {"metrics.csv", "weights.pt", "result.json"} <= names
        assert any(name.startswith("events.out.tfevents") for name in names)
        assert "last.ckpt" not in names
        with (root / stage / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len([row for row in rows if row["validation_accuracy"]]) == -(-steps // 20)  # a part of an epoch too
        assert all(float(row["task_loss"]) > 0 for row in rows)
        assert int(rows[-1]["step"]) == steps
    assert "mean_bits" in rows[0]
    assert "beta/conv1" in rows[0]


def test_a_finished_run_is_read_not_repeated(finished: tuple[TrainConfig, Any, Lines]) -> None:
    config, result, _ = finished
    before = {p: p.stat().st_mtime_ns for p in config.folder.rglob("*.pt")}
    assert train(config, say=lambda _line: None) == result
    assert {p: p.stat().st_mtime_ns for p in config.folder.rglob("*.pt")} == before


@pytest.mark.slow
def test_test_images_are_read_once_and_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = digits(tmp_path / "run", bits=4, epochs=1)
    read: list[bool] = []
    original = Dataset.test

    def spy(self: Dataset) -> Any:
        read.append(RunFolder(config.folder).stage("wave").result() is not None)
        return original(self)

    monkeypatch.setattr(Dataset, "test", spy)
    train(config, say=lambda _line: None)
    assert read == [True]


@pytest.mark.slow
def test_ctrl_c_leaves_a_folder_that_goes_on(tmp_path: Path) -> None:
    whole = digits(tmp_path / "whole", pretrain_epochs=2, epochs=2)
    train(whole, say=lambda _line: None)
    config = digits(tmp_path / "stopped", pretrain_epochs=2, epochs=2)
    for stage, announcement in (("float", "float training"), ("search", "search"), ("wave", "bits found")):

        def interrupt(line: str, before: str = announcement) -> None:
            if line.startswith(before):
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(TrainingInterrupted, match="the same command goes on"):
            train(config, say=interrupt)
        assert (config.folder / stage / "last.ckpt").exists()
        assert RunFolder(config.folder).result() is None
    train(config, say=lambda _line: None)
    assert same(load_weights(config.folder / "weights.pt"), load_weights(whole.folder / "weights.pt"))


def test_float_weights_from_another_run(tmp_path: Path, finished: tuple[TrainConfig, Any, Lines]) -> None:
    given = finished[0].folder
    config = digits(tmp_path / "run", init=given, bits=given / "policy.json", epochs=0)
    result = train(config, say=lambda _line: None)
    assert not (config.folder / "float").exists()
    assert result.float_test_accuracy == finished[1].float_test_accuracy
    assert result.bits == finished[1].bits


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "64"])
def test_other_precisions(tmp_path: Path, precision: str) -> None:
    config = digits(tmp_path / "run", bits=4, epochs=1, precision=precision, optimizer="adamw", lr=0.003)
    assert train(config, say=lambda _line: None).bits == dict.fromkeys(("conv1", "conv2", "fc1", "fc2"), 4)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "released", "recommended"])
def test_fine_tuning_goes_on_from_the_grid_that_was_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    """Nothing may jump between the stages: same weights, same scales, same levels."""
    scaled: dict[str, Any] = {} if preset == "recommended" else {"scale": "learned"}  # LSQ's step is learned as it is
    config = digits(tmp_path / "run", epochs=2, finetune_epochs=1, preset=preset, activation_bits=4, **scaled)
    seen: dict[str, dict[str, Tensor]] = {}
    original = Stage.run

    def spy(self: Stage, network: Any, wq: Any = None) -> dict[str, float]:
        def effective() -> dict[str, Tensor]:
            return {name: network.get_submodule(name).weight.detach().clone() for name in wq.names}

        seen[f"{self.name} begins"] = effective()
        found = original(self, network, wq)
        seen[f"{self.name} ends"] = effective()
        return found

    monkeypatch.setattr(Stage, "run", spy)
    train(config, say=lambda _line: None)
    assert same(seen["finetune begins"], seen["wave ends"])
    assert not same(seen["finetune ends"], seen["finetune begins"])


def test_weights_that_do_not_fit_are_named(tmp_path: Path, finished: tuple[TrainConfig, Any, Lines]) -> None:
    config = digits(tmp_path / "run", init=finished[0].folder, width=2, epochs=1)
    with pytest.raises(ValueError, match=r"weights\.pt: its weights do not fit this network.*conv1"):
        train(config, say=lambda _line: None)


def test_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    config = digits(tmp_path / "run", epochs=1)
    checkpoint = RunFolder(config.folder).stage("wave").checkpoint
    checkpoint.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ValueError, match=r"last\.ckpt: truncated or not.*; no other checkpoint of this stage is good"):
        train(config, say=lambda _line: None)


@pytest.mark.slow
def test_of_two_checkpoints_the_good_one_is_named_and_gone_on_from(tmp_path: Path) -> None:
    """Stopped with the last two kept; the newest is damaged, removed, and the run still ends where it would have."""
    config = digits(tmp_path, epochs=1, checkpoint_seconds=0)
    whole = run_stage(config, tmp_path / "whole")
    with pytest.raises(StopRequested):
        run_stage(config, tmp_path / "stopped", stop_at=3)
    last, previous = StageFolder(tmp_path / "stopped").checkpoints()
    assert (last.name, previous.name) == ("last.ckpt", "previous.ckpt")
    damaged = bytearray(last.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    last.write_bytes(damaged)
    with pytest.raises(ValueError, match=r"last\.ckpt: damaged.*; remove it, .* from previous\.ckpt, of step 2"):
        run_stage(config, tmp_path / "stopped")
    last.unlink()
    assert same(run_stage(config, tmp_path / "stopped"), whole)


@pytest.mark.slow
def test_checkpoints_need_no_folder_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(StopRequested):
        run_stage(digits(tmp_path, epochs=1), tmp_path / "stopped", stop_at=2)
    assert (tmp_path / "stopped" / "last.ckpt").exists()


def test_images_are_brought_to_the_least_that_the_network_takes() -> None:
    dataset = make_dataset(digits(Path("unused"), model="lenet"))
    assert dataset.size == (16, 16)
    assert make_dataset(digits(Path("unused"), model="lenet", input_size=28)).size == (28, 28)
    assert make_dataset(digits(Path("unused"), in_channels=3)).channels == 3


def test_initial_weights_follow_the_seed_and_leave_the_generator_alone() -> None:
    config = digits(Path("unused"))
    dataset = make_dataset(config)
    torch.manual_seed(5)
    first = make_network(config, dataset).state_dict()
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(1))
    assert same(first, make_network(config, dataset).state_dict())
    assert not same(first, make_network(config.model_copy(update={"seed": 1}), dataset).state_dict())
