"""Run folders: whole files, one run each, damage named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from waveq.cli.app import main
from waveq.train.config import TrainConfig
from waveq.train.result import TrainResult
from waveq.train.run_folder import RunFolder, load_weights, plain_weights, save_weights, write_text


def test_a_folder_belongs_to_one_config(tmp_path: Path) -> None:
    config = TrainConfig(run_dir=tmp_path / "run", lr=0.1)
    RunFolder.open(config.model_copy(update={"lr": 0.5}))
    folder = RunFolder.open(config)  # nothing was trained with the other rate
    folder.stage("float")
    RunFolder.open(config.model_copy(update={"threads": 1, "log_every": 7}))
    with pytest.raises(ValueError, match=r"holds a run with lr 0\.1 \(now 0\.2\), seed 0 \(now 4\); choose another"):
        RunFolder.open(config.model_copy(update={"lr": 0.2, "seed": 4}))
    with pytest.raises(ValueError, match="already holds a run"):
        RunFolder.open(config.model_copy(update={"resume": False}))


def test_a_stage_is_finished_by_its_result(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    stage = folder.stage("float")
    stage.checkpoint.write_text("...")
    assert stage.result() is None
    network = nn.Linear(2, 1)
    stage.finish({"steps": 3}, network)
    assert stage.result() == {"steps": 3}
    assert not stage.checkpoint.exists()
    assert not stage.state.exists()
    assert torch.equal(load_weights(stage.weights)["weight"], network.weight)


def test_attached_networks_leave_plain_weights_and_their_state(tmp_path: Path) -> None:
    import waveq

    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    waveq.attach(network, bits=3)
    stage = RunFolder(tmp_path).stage("wave")
    stage.finish({}, network)
    assert load_weights(stage.weights).keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in load_weights(stage.weights).items())
    assert load_weights(stage.state).keys() == network.state_dict().keys()
    assert plain_weights(before) == before


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with pytest.raises(ValueError, match=r"weights\.pt: there is no such file"):
        load_weights(path)
    save_weights(path, {"a": torch.ones(1000)})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"weights\.pt: truncated or not a file of weights|weights\.pt: damaged"):
        load_weights(path)
    torch.save({"a": "text"}, path)
    with pytest.raises(ValueError, match=r"weights\.pt: holds no state_dict"):
        load_weights(path)


def test_weights_run_no_code(tmp_path: Path) -> None:
    torch.save({"a": nn.Linear(1, 1)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt: truncated or not"):
        load_weights(tmp_path / "w.pt")


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_damaged_results_are_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"result\.json: damaged"):
        RunFolder(tmp_path).result()


@pytest.mark.parametrize("command", ["enumerate", "frontier", "sensitivity", "report", "score"])
def test_a_run_that_is_not_there_is_told_with_the_nearest_one(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "config.json").write_text("{}")
    assert main([command, str(tmp_path / "dem0")]) == 2
    assert f"did you mean {tmp_path / 'demo'}?" in capsys.readouterr().err
    assert main([command, str(tmp_path / "quite-another")]) == 2
    assert "did you mean" not in capsys.readouterr().err


def test_published_weights_are_read_as_they_come(tmp_path: Path) -> None:
    """Under "state_dict", beside an epoch, with DataParallel's prefix."""
    network = nn.Linear(3, 2)
    wrapped = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 7}, tmp_path / "published.pth.tar")
    network.load_state_dict(load_weights(tmp_path / "published.pth.tar"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bits": {"fc": "3"}}, r"bits is \{'fc': '3'\}, a table of a whole number is expected"),
        ({"test_accuracy": None}, "test_accuracy is None, a finite number is expected"),
        ({"accuracy": 1}, "accuracy is no field of a result"),
        ({"forecast": ...}, "field 'forecast' is missing"),
    ],
)
def test_a_result_of_another_form_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    names = ("mean_bits", "float_validation_accuracy", "validation_accuracy", "float_test_accuracy", "test_accuracy")
    found = {"bits": {"fc": 3}, "forecast": "", "warnings": [], **dict.fromkeys(names, 0.5)}
    assert TrainResult.of(tmp_path, found).bits == {"fc": 3}
    damaged = {name: value for name, value in (found | change).items() if value is not ...}
    with pytest.raises(ValueError, match=rf"result\.json: damaged: {message}"):
        TrainResult.of(tmp_path, damaged)
