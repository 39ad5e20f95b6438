"""Two processes on the CPU against one with the same global batch."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from waveq.train import processes
from waveq.train.config import TrainConfig, parse_config
from waveq.train.lock import alone_in
from waveq.train.processes import launch
from waveq.train.run import train
from waveq.train.run_folder import RunFolder, load_weights


def config(run_dir: Path, devices: int, **changes: object) -> TrainConfig:
    fields = {"model": "digitsnet", "dataset": "digits", "epochs": 3, "batch_size": 128, "lr": 0.03, "threads": 1}
    more = {
        "run_dir": run_dir,
        "devices": devices,
        "accelerator": "cpu",
        "progress": False,
        "precision": "64",
        "pretrain_epochs": 2,
    }
    return parse_config({**fields, **more, **changes})


@pytest.mark.slow
def test_two_processes_give_the_policy_of_one_even_when_stopped_in_between(tmp_path: Path) -> None:
    one = train(config(tmp_path / "one", 1), say=lambda _line: None)
    shared = config(tmp_path / "two", 2)
    folder = RunFolder.open(shared)
    assert not launch(shared, (folder.path / "wave" / "metrics.csv").exists)
    assert (folder.path / "wave" / "last.ckpt").exists()
    assert folder.result() is None
    two = train(shared, say=lambda _line: None)
    assert two.bits == one.bits
    float_one, float_two = (load_weights(tmp_path / name / "float" / "weights.pt") for name in ("one", "two"))
    # sums over a batch are rounded in another order, nothing else differs
    torch.testing.assert_close(float_two, float_one, rtol=1e-9, atol=1e-12)
    state_one, state_two = (load_weights(tmp_path / name / "wave" / "state.pt") for name in ("one", "two"))
    assert int(state_one["waveq_step"]) == int(state_two["waveq_step"]) == 24  # a fifth of 30 were the search
    # a weight on the boundary between two levels may fall to the other side, and moves on from there
    torch.testing.assert_close(state_two, state_one, rtol=0.05, atol=0.01)
    assert two.test_accuracy == pytest.approx(one.test_accuracy, abs=0.01)


@pytest.mark.slow
def test_scales_that_are_not_used_while_weights_are_float_do_not_stop_two_processes(tmp_path: Path) -> None:
    result = train(config(tmp_path, 2, quantizer="lsq", pretrain_epochs=1), say=lambda _line: None)
    assert result.mean_bits > 1.0
    steps = load_weights(tmp_path / "wave" / "state.pt")
    assert all(bool(torch.isfinite(value).all()) for name, value in steps.items() if name.endswith("quantizer.step"))


def test_a_process_that_fails_stops_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os, sys, time; sys.exit(3) if os.environ['LOCAL_RANK'] == '1' else time.sleep(60)"
    monkeypatch.setattr(processes, "_command", lambda _config: [sys.executable, "-c", script])
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="1 of 2 training processes failed: process 1 ended with exit code 3"):
        launch(config(tmp_path, 2), lambda: False)
    assert time.monotonic() - begun < 50


def test_a_process_that_is_killed_is_an_error_and_no_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "import os, time; os.kill(os.getpid(), 9) if os.environ['LOCAL_RANK'] == '0' else time.sleep(60)"
    monkeypatch.setattr(processes, "_command", lambda _config: [sys.executable, "-c", script])
    with pytest.raises(RuntimeError, match=r"process 0 was killed by SIGKILL \(the system does so where memory"):
        launch(config(tmp_path, 2), lambda: False)


@pytest.mark.slow
def test_children_end_with_a_parent_that_is_killed_and_keep_its_lock_until_then(tmp_path: Path) -> None:
    child = (
        "import os, time; from waveq.train.lifeline import end_with_parent; end_with_parent(); "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = (
        "import sys; from pathlib import Path; from waveq.train.lock import alone_in; "
        "from waveq.train import processes; from waveq.train.config import TrainConfig\n"
        "processes._command = lambda config: [sys.executable, '-c', sys.argv[2]]\n"
        "with alone_in(Path(sys.argv[1])) as lock:\n"
        "    processes.launch(TrainConfig(devices=2), lambda: False, held=(lock,))"
    )
    words = [sys.executable, "-c", parent, str(tmp_path), child]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        pids = [int(started.stdout.readline()) for _ in range(2)]
        with pytest.raises(ValueError, match=f"is in use by process {started.pid}"), alone_in(tmp_path):
            pass
        started.kill()
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(running(pid) for pid in pids)
    with alone_in(tmp_path):
        pass


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
