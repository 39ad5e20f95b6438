"""Networks and data that were given in Python, and what a run folder remembers of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from waveq.codesign import codesign
from waveq.train.config import TrainConfig
from waveq.train.given import GIVEN, own_config, own_model, own_network, require_fit
from waveq.train.run import TrainingInterrupted, train
from waveq.train.trained_run import TrainedRun
from waveq.train.user_modules import user_object
from waveq.zoo.datasets.own import own_dataset

SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 40, "threads": 1, "progress": False, "lr": 0.1}


def sides(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise that is brighter on one side."""
    x = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    y = torch.arange(count) % 2
    x[y == 0, :, :, :4] += 0.5
    x[y == 1, :, :, 4:] += 0.5
    return x, y


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


class Sides(lightning.LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*sides(240, 0)), batch_size=40, shuffle=True)

    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*sides(80, 1)))

    def test_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*sides(80, 2)))


@pytest.mark.slow
def test_the_whole_pipeline_for_a_model_and_a_data_module(tmp_path: Path) -> None:
    design = codesign(net, Sides, pretrain_epochs=2, choices=(2, 4), run_dir=tmp_path / "run", **SHORT)
    assert design.training.test_accuracy > 0.8
    assert len(design.placement.frame) in (4, 5)
    assert design.report.exists()
    assert design.page.exists()
    assert (tmp_path / "run" / "frontier.csv").exists()
    assert design.run.config.model == f"{__name__}:net"


@pytest.mark.slow
def test_a_large_space_is_searched(tmp_path: Path) -> None:
    config = own_config(net(), Sides(), bits=4, run_dir=tmp_path / "run", **SHORT)
    design = codesign(config, choices=(2, 4, 8), evaluations=4)
    assert len(design.placement.frame) == 4
    assert (tmp_path / "run" / "search.csv").exists()
    assert "search" in design.seconds
    assert design.page.exists()


@pytest.mark.slow
def test_a_model_keeps_the_weights_that_it_was_given_with(tmp_path: Path) -> None:
    model = net()
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = own_config(model, Sides(), bits=4, run_dir=tmp_path / "run", **SHORT | {"epochs": 0})
    with torch.no_grad():
        model[0].weight.zero_()  # type: ignore[index]
    train(config, say=lambda _line: None)
    run = TrainedRun(tmp_path / "run")
    assert all(tensor.equal(kept[name]) for name, tensor in run.float_network().state_dict().items())
    assert own_config(model, Sides()).model != config.model  # other weights, another network


def test_a_name_is_the_import_where_there_is_one() -> None:
    pair = sides(4, 0)
    assert own_config(net, Sides).model == f"{__name__}:net"
    assert own_config(net, Sides).dataset == f"{__name__}:Sides"
    config = own_config(lambda: net(), (pair, pair, pair), epochs=3)
    assert config.model == "in-memory:lambda"
    assert config.dataset == own_config("lenet", {"train": pair, "val": pair, "test": pair}).dataset
    assert isinstance(user_object(config.model)(), nn.Sequential)
    with pytest.raises(ValueError, match="in a process that has ended; give it again in Python"):
        user_object("in-memory:Gone-12345678")
    with pytest.raises(TypeError, match="model must be a torch module, a function that makes one or a name, not int"):
        own_config(3, Sides)
    with pytest.raises(TypeError, match="data are missing"):
        codesign(net)
    with pytest.raises(TypeError, match="a TrainConfig says everything of a run: leave epochs out"):
        codesign(config, epochs=3)


def test_several_processes_need_names(tmp_path: Path) -> None:
    config = own_config(net(), Sides, bits=4, devices=2, run_dir=tmp_path / "run", **SHORT)
    with pytest.raises(ValueError, match=r"devices: in-memory:Sequential-.* lives in this process alone"):
        train(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_what_an_undisturbed_one_gives(tmp_path: Path) -> None:
    fields = {**SHORT, "bits": 3, "pretrain_epochs": 1, "checkpoint_seconds": 0}
    whole = own_config(net, Sides, run_dir=tmp_path / "whole", **fields)
    stopped = own_config(net, Sides, run_dir=tmp_path / "stopped", **fields)
    train(whole, say=lambda _line: None)

    from waveq.train.callbacks import Recorder

    steps = 0
    usual = Recorder.on_train_batch_end

    def interrupt(self: Any, *given: Any, **named: Any) -> None:
        nonlocal steps
        usual(self, *given, **named)
        steps += 1
        if steps == 9:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "on_train_batch_end", interrupt)
        with pytest.raises((TrainingInterrupted, KeyboardInterrupt, SystemExit)):
            train(stopped, say=lambda _line: None)
    train(stopped, say=lambda _line: None)
    first, second = (torch.load(tmp_path / name / "weights.pt") for name in ("whole", "stopped"))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)


@pytest.mark.slow
def test_a_start_that_failed_binds_nobody(tmp_path: Path) -> None:
    run = {"run_dir": tmp_path / "run", **SHORT}
    with pytest.raises(ValueError, match="gives shape"):
        train(own_config(lambda: nn.Conv2d(1, 2, 3), Sides, bits=4, **run), say=lambda _line: None)
    found = train(own_config(net, Sides, bits=4, **run | {"epochs": 0}), say=lambda _line: None)
    assert found.bits == {"0": 4, "3": 4}
    assert (tmp_path / "run" / GIVEN).exists()


def test_a_network_of_a_module_is_copied_and_put_into_training_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_new: Callable[[], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "from torch import nn\nnet = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()\npair = net, 'inputs'\n"
    )
    (tmp_path / "my_own.py").write_text(text)
    first, second = own_network("my_own:net"), own_network("my_own:pair")
    assert first is not second
    assert first.training
    assert first[1].training
    assert not sys.modules["my_own"].net.training
    assert own_model("my_own:pair")[1] == "inputs"


def test_looking_whether_data_fit_leaves_frozen_layers_frozen() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.BatchNorm1d(2))
    network[2].eval()
    pair = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
    require_fit(network, own_dataset("mine", (pair, pair, pair)), TrainConfig(bits=4, epochs=1))
    assert [part.training for part in network] == [True, True, False]
