"""`--model MODULE:FACTORY --data MODULE:LOADERS`: a file outside the repository, from training to the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.docs_blocks import first_python_block
from waveq.cli.app import main

MINE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


def net(hidden=8):
    return nn.Sequential(nn.Conv2d(1, hidden, 3), nn.ReLU(), nn.Flatten(), nn.Linear(hidden * 36, 2))


def trained():
    torch.manual_seed(0)
    model = net(4)
    with torch.no_grad():
        model[3].weight.zero_()
        model[3].weight[1] = 0.1
    return model


def data():
    x = torch.rand(400, 1, 8, 8)
    y = torch.arange(400) % 2
    x[y == 0, :, :, :4] += 0.5
    x[y == 1, :, :, 4:] += 0.5
    return TensorDataset(x, y)


def loaders():
    parts = random_split(data(), [240, 80, 80])
    return {name: DataLoader(part, 50) for name, part in zip(("train", "val", "test"), parts)}


def needs(width):
    return net(width)


def loud():
    print("weights are read")
    return net()


def twice():
    return nn.Sequential(nn.Conv2d(1, 8, 3))


def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 1))


def doubled():
    return net().double()


def frozen():
    return net().requires_grad_(False)


def failing():
    raise KeyError("weights")


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        return {"logits": self.net(x)}


class Upright(Wrapped):
    def forward(self, x):
        assert x.shape[1] == 3, "colours are wanted"
        return self.net(x)


def unread():
    class Broken(TensorDataset):
        def __getitem__(self, index):
            raise OSError("image 7.png is cut off")

    part = Broken(*data().tensors)
    return part, part, part


def upright():
    x, y = data().tensors
    part = TensorDataset(x.expand(-1, 3, -1, -1).permute(0, 2, 3, 1), y)
    return part, part, part


def other():
    return nn.Linear(3, 2)


def infinite():
    model = net()
    nn.init.constant_(model[3].bias, float("nan"))
    return model


def nothing():
    return None


changes = 0


def changing():
    global changes
    changes += 1
    x, y = data().tensors
    part = TensorDataset(x + changes, y)
    return part, part, part
"""
OWN = ["--model", "my_own:net", "--data", "my_own:loaders"]
SHORT = ["--epochs", "2", "--pretrain-epochs", "2", "--batch-size", "40", "--threads", "1", "--quiet"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_new: Callable[[], None]) -> Path:
    """A folder outside the repository with a network and data."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_own.py").write_text(MINE)
    return tmp_path


@pytest.mark.slow
def test_from_training_to_the_report(
    here: Path, as_new: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *OWN, *SHORT, "--lr", "0.1", "--bits", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["test_accuracy"] > 0.8
    run = "runs/my_own.net-my_own.loaders-3-seed0"
    assert set(json.loads((here / run / "given.json").read_text())) == {"model", "dataset"}
    for words in (
        ["score", run],
        ["enumerate", run, "--bits", "2,3", "--engine", "processes", "--workers", "1", "--quiet"],
        ["search", run, "--evaluations", "3", "--bits", "2,3", "--quiet"],
        ["sensitivity", run],
        ["frontier", run],
        ["report", run],
        ["export", run, "--to", "npz"],
        ["train", *OWN, *SHORT, "--lr", "0.1", "--bits", "3"],
    ):
        as_new()  # each verb is a process of its own
        assert main(words) == 0, capsys.readouterr().err
    assert "my_own:net on my_own:loaders" in (here / run / "report.md").read_text()
    capsys.readouterr()
    as_new()
    (here / "my_own.py").write_text(MINE.replace("hidden=8", "hidden=9"))
    assert main(["enumerate", run, "--bits", "2,3", "--quiet"]) == 2
    assert "my_own:net does not give what it gave when" in capsys.readouterr().err


@pytest.mark.slow
def test_the_documented_file_is_trained_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "my_work.py").write_text(first_python_block("training.md", "Your model and your loaders"))
    own = ["--model", "my_work:net", "--data", "my_work:loaders", "--run", "runs/mine"]
    assert main(["train", *own, *SHORT, "--lr", "0.1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] > 0.8
    assert main(["sensitivity", "runs/mine", "--steps=1"]) == 0
    assert main(["score", "4", *own[:4]]) == 0
    capsys.readouterr()


@pytest.mark.slow
def test_a_trained_network_is_measured_without_training(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = ["--model", "my_own:trained", "--data", "my_own:loaders", "--policy", "4"]
    assert main(["enumerate", "mine", *trained, "--bits", "2,4", "--quiet"]) == 0
    assert "on the validation part of my_own:loaders, in floating point; run folder mine" in capsys.readouterr().err
    assert len((here / "mine" / "policies.csv").read_text().splitlines()) == 5
    assert main(["sensitivity", "mine", *trained]) == 0  # the same run is taken again
    assert main(["search", "--evaluations", "2", *trained, "--quiet"]) == 0
    assert (here / "runs" / "my_own.trained-my_own.loaders-4-seed0" / "search.csv").exists()
    capsys.readouterr()


@pytest.mark.slow
def test_shapes_and_values_come_from_the_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "4", *OWN, "--json"]) == 0
    macs = {layer["name"]: layer["macs"] for layer in json.loads(capsys.readouterr().out)["layers"]}
    assert macs == {"0": 36 * 9 * 8, "3": 36 * 8 * 2}
    assert (
        main(["score", "4", *OWN, "--hardware", "pragmatic", "--activations", "test", "--images", "3", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["values"] == {"of": "test", "samples": 3}
    assert main(["explore", "4", *OWN, "--grid", "resident_weights=true,false", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["machines"] == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "--model", "my_on:net", "--data", "my_own:loaders"], "no module 'my_on'"),
        (["train", "--model", "my_own:nett", "--data", "my_own:loaders"], "did you mean 'net'?"),
        (["train", "--model", "my_own:net", "--data", "my_own:loader"], "did you mean 'loaders'?"),
        (
            ["train", "--model", "my_own:changes", "--data", "my_own:loaders"],
            "my_own:changes must give a torch module, not int",
        ),
        (["train", "--model", "my_own:needs", "--data", "my_own:loaders"], "my_own:needs needs 'width'"),
        (["train", "--model", "my_own:nothing", "--data", "my_own:loaders"], "must give a torch module, not NoneType"),
        (["train", "--model", "my_own:net", "--data", "my_own:data"], "not TensorDataset"),
        (["train", "--model", "my_own:twice", "--data", "my_own:loaders"], "gives shape (2, 8, 6, 6); logits of shape"),
        (["train", "--model", "my_own:narrow", "--data", "my_own:loaders"], "1 logits, but the data have 2 classes"),
        (["train", "--model", "my_own:other", "--data", "my_own:loaders"], "called with x of shape (2, 1, 8, 8)"),
        (["train", "--model", "my_own:infinite", "--data", "my_own:loaders"], "logits that are NaN or infinite"),
        (
            ["train", "--model", "my_own:failing", "--data", "my_own:loaders"],
            "my_own:failing raises KeyError: 'weights' (",
        ),
        (
            ["train", "--model", "my_own:doubled", "--data", "my_own:loaders"],
            "parameters of float64; float32 is expected: give model.float()",
        ),
        (["train", "--model", "my_own:frozen", "--data", "my_own:loaders"], "no parameter that requires a gradient"),
        (
            ["train", "--model", "my_own:Wrapped", "--data", "my_own:loaders"],
            "gives dict; logits of shape (n, classes)",
        ),
        (["train", "--model", "my_own:Upright", "--data", "my_own:loaders"], "raises AssertionError: colours are"),
        (["train", "--model", "my_own:net", "--data", "my_own:unread"], "train: item 0 raises OSError: image 7.png is"),
        (["train", "--model", "my_own:net", "--data", "my_own:upright"], "x.permute(0, 3, 1, 2) puts them first"),
        (["train", *OWN, "--skip", "conv9", "--pretrain-epochs", "9"], "skip names 'conv9', which matches no layer"),
        (["train", *OWN, "--set", "input_size=9"], "input_size says nothing of my_own:loaders"),
        (["train", *OWN, "--set", "width=2"], "width says nothing of my_own:net"),
        (["score", "4", "--model", "my_own:needs"], "my_own:needs needs 'width'"),
        (["score", "4", *OWN, "--input-shape", "1x8x8"], "--data says what the model takes"),
        (["score", "4", "--model", "lenet", "--data", "my_own:loaders"], "--data says nothing of lenet"),
        (["score", "4", "--model", "my_own:net", "--data", "digits"], "--data must be PACKAGE.MODULE:LOADERS"),
        (["enumerate", "--model", "my_own:trained"], "--data is missing"),
        (["enumerate", "--model", "lenet", "--data", "digits"], "a network of the zoo begins with random weights"),
        (["sensitivity"], "sensitivity measures accuracy, which needs a trained network and data"),
        (["search", "run", "--data", "digits"], "--data is for --model"),
    ],
)
@pytest.mark.usefixtures("here")
def test_bad_input(words: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--run", "run", "--quiet"] if words[0] == "train" else []
    assert main([*words, *run]) == 2
    said = [line for line in capsys.readouterr().err.strip().splitlines() if not line.startswith("no shipped recipe")]
    assert len(said) == 1
    assert expected in said[0]


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_data_that_change_from_call_to_call_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--model", "my_own:net", "--data", "my_own:changing", *SHORT, "--bits", "3", "--run", "run"]
    assert main(words) == 0
    assert main(["enumerate", "run", "--quiet"]) == 2
    assert "it must give the same at every call" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_what_a_users_code_prints_is_no_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "4", "--model", "my_own:loud", "--input-shape", "1x8x8", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["run"] == "runs/score-loud-4"
    assert "weights are read" in captured.err


@pytest.mark.slow
def test_a_start_that_attach_refuses_trains_nothing_and_binds_nobody(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", *OWN, *SHORT, "--bits", "3", "--run", "run"]
    assert main([*words, "--skip", "conv9"]) == 2
    assert not (here / "run" / "float").exists()
    assert main([*words, "--json"]) == 0
    capsys.readouterr()
