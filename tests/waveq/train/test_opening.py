"""What a run begins with, in one process or several."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest
from torch import nn

from waveq.train.config import TrainConfig
from waveq.train.lock import alone_in
from waveq.train.opening import batch_norm_told, opened
from waveq.train.ranks import ALONE, Ranks
from waveq.train.run_folder import RunFolder


def test_batch_norm_of_several_processes_is_said() -> None:
    network, config = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), TrainConfig(batch_size=64)
    four = Ranks(rank=0, size=4, nodes=2)
    assert batch_norm_told(network, config, ALONE, on_cpu=True) is None
    assert batch_norm_told(network[:1], config, four, on_cpu=True) is None
    told = batch_norm_told(network, config, four, on_cpu=True)
    assert told is not None
    assert "each of 4 processes takes the statistics of its own 16 images" in told
    shared = TrainConfig(batch_size=64, sync_batch_norm=True)
    assert batch_norm_told(network, shared, four, on_cpu=False) == (
        "batch norm: statistics of all 64 images of a batch (sync_batch_norm)"
    )
    with pytest.raises(ValueError, match="sync_batch_norm: torch has it on GPUs alone"):
        batch_norm_told(network, shared, four, on_cpu=True)


def test_the_first_process_locks_the_folder_and_says_what_another_number_changes(tmp_path: Path) -> None:
    said: list[str] = []
    before = TrainConfig(run_dir=tmp_path, devices=2, num_nodes=2)
    RunFolder.open(before)
    assert RunFolder(tmp_path).processes() == 4
    with ExitStack() as held:
        folder = opened(TrainConfig(run_dir=tmp_path), ALONE, held, said.append)
        assert folder.processes() == 1
        with pytest.raises(ValueError, match="is in use by process"), alone_in(tmp_path):
            pass
    assert said[0].startswith("goes on with 1 processes instead of 4")
    with alone_in(tmp_path):
        pass


def test_a_start_over_goes_on_even_where_the_run_had_to_be_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(run_dir=tmp_path, resume=False)
    RunFolder.open(config).stage("float")
    with pytest.raises(ValueError, match="already holds a run"), ExitStack() as held:
        opened(config, ALONE, held, lambda _line: None)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with ExitStack() as held:
        opened(config, ALONE, held, lambda _line: None)
