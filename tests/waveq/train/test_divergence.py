"""A run that diverges stops at once, leaves only good files, and names the step and the layer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import waveq
from waveq.train.config import parse_config
from waveq.train.divergence import Diverged, StopsWhenDiverged, first_without_numbers, require_numbers
from waveq.train.lock import alone_in
from waveq.train.run import train
from waveq.train.run_folder import RunFolder, load_weights


def test_the_layer_is_named_as_users_know_it() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    waveq.attach(network, bits=3)
    assert first_without_numbers(network) is None
    network[1].running_var[0] = float("inf")  # type: ignore[index]
    assert first_without_numbers(network) == "1.running_var"
    network[2].parametrizations.weight.original.data[0, 0] = float("nan")  # type: ignore[union-attr, index]
    with pytest.raises(Diverged, match=r"after step 7 of wave, 2\.weight holds NaN or infinity; try a smaller lr"):
        require_numbers(network, stage="wave", step=7)


def test_losses_that_were_kept_name_their_own_step() -> None:
    watch = StopsWhenDiverged("float", every=10)
    watch._kept = [(step, torch.tensor(1.0 if step < 5 else float("inf"))) for step in range(3, 8)]
    with pytest.raises(Diverged, match=r"the loss of step 5 of float is inf \(all weights are finite\)"):
        watch.look(nn.Linear(1, 1))
    watch.look(nn.Linear(1, 1))  # told once


def test_on_the_cpu_every_loss_is_looked_at() -> None:
    trainer: Any = SimpleNamespace(global_step=2)
    module: Any = nn.Linear(1, 1)
    watch = StopsWhenDiverged("float", every=10)
    watch.on_before_backward(trainer, module, torch.tensor(0.5))
    with pytest.raises(Diverged, match="the loss of step 3 of float is nan"):
        watch.on_before_backward(trainer, module, torch.tensor(float("nan")))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["float", "search"])
def test_a_run_that_diverges_leaves_no_result_and_goes_on_from_good_weights(tmp_path: Path, stage: str) -> None:
    changes = {"pretrain_epochs": 2, "pretrain_lr": 1e18} if stage == "float" else {"lr": 1e18}
    fields = {"model": "digitsnet", "dataset": "digits", "epochs": 5, "batch_size": 256, "lr": 0.05, "threads": 1}
    config = parse_config(fields | changes | {"run_dir": tmp_path, "progress": False, "checkpoint_seconds": 0})
    for _ in range(2):
        with pytest.raises(Diverged, match=rf"training diverged: .* of {stage}.*; try a smaller lr"):
            train(config, say=lambda _line: None)
        folder = RunFolder(tmp_path).stage(stage)
        assert folder.result() is None
        assert not folder.weights.exists()
        for checkpoint in folder.checkpoints():
            assert all(bool(value.isfinite().all()) for value in load_weights(checkpoint).values())


def test_a_folder_in_use_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    config = parse_config({"model": "digitsnet", "dataset": "digits", "run_dir": tmp_path / "run"})
    with alone_in(tmp_path / "run"), pytest.raises(ValueError, match="is in use by process"):
        train(config, say=lambda _line: None)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
