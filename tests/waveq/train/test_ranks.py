"""Which process this is, by what torchrun, SLURM and Kubeflow put into the environment; and how they meet."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from waveq.train import processes
from waveq.train.config import TrainConfig
from waveq.train.processes import launch
from waveq.train.ranks import ALONE, by_the_first, find_ranks

_TORCHRUN = {"TORCHELASTIC_RUN_ID": "1", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "GROUP_WORLD_SIZE": "2"}
_SLURM = {
    "SLURM_NTASKS": "8",
    "SLURM_NTASKS_PER_NODE": "4",
    "SLURM_NNODES": "2",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_NAME": "train",
}
_KUBEFLOW = {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "pod-0", "MASTER_PORT": "23456"}


@pytest.mark.parametrize(("variables", "nodes"), [(_TORCHRUN, 2), (_SLURM, 2), (_KUBEFLOW, 8), (_SLURM | _TORCHRUN, 2)])
def test_whoever_started_the_processes_is_heard(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], nodes: int
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = find_ranks(TrainConfig())
    assert (found.rank, found.size, found.nodes, found.devices, found.leads) == (5, 8, nodes, 8 // nodes, False)


def test_nobody_started_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_ranks(TrainConfig(devices=4)) == ALONE
    for name, value in (_TORCHRUN | {"WORLD_SIZE": "1", "RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    assert find_ranks(TrainConfig()).leads


def test_what_contradicts_the_processes_that_are_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert find_ranks(TrainConfig(devices=4, num_nodes=2)).size == 8
    with pytest.raises(ValueError, match=r"devices 3 x num_nodes 2 are not the 8 processes .* give --devices 4 --num-"):
        find_ranks(TrainConfig(devices=3, num_nodes=2, batch_size=126))
    with pytest.raises(ValueError, match="batch_size 100 cannot be shared by 8 processes"):
        find_ranks(TrainConfig(batch_size=100))
    monkeypatch.setenv("GROUP_WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="8 processes on 3 nodes"):
        find_ranks(TrainConfig())


def test_what_the_first_is_refused_all_are() -> None:
    assert by_the_first(ALONE, lambda: 3) == 3
    with pytest.raises(ValueError, match="no"):
        by_the_first(ALONE, lambda: int("no"))


_RANK = """
import os, sys, torch, torch.distributed as dist
from tests.waveq.train.watching import listening
from waveq.train.config import TrainConfig
from waveq.train.ranks import by_the_first, find_ranks, joined
ranks = find_ranks(TrainConfig())
with joined(ranks, on_cpu=True):
    found = torch.ones(3)
    dist.all_reduce(found)
    addresses = listening()
    try:
        by_the_first(ranks, lambda: int("nine"))
    except ValueError as error:
        refused = str(error)
sys.exit(0 if found.tolist() == [2.0] * 3 and addresses <= {"127.0.0.1"} and "nine" in refused else 7)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ranks_listen_on_this_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_words", lambda _config: ["-c", _RANK])
    launch(TrainConfig(devices=2, run_dir=tmp_path))
