"""Two processes on the CPU against one with the same global batch; killed, stopped and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.kills import contents
from tests.waveq.train.watching import ranks_of, running, until, when
from waveq.train import processes
from waveq.train.config import TrainConfig, parse_config
from waveq.train.processes import launch
from waveq.train.run import TrainingInterrupted, train
from waveq.train.run_folder import load_weights
from waveq.train.stopping import StoppedAtOnce, StopRequested

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def config(run_dir: Path, devices: int, **changes: object) -> TrainConfig:
    fields = {"model": "digitsnet", "dataset": "digits", "epochs": 4, "batch_size": 128, "lr": 0.03, "threads": 1}
    more = {
        "run_dir": run_dir,
        "devices": devices,
        "accelerator": "cpu",
        "progress": False,
        "precision": "64",
        "pretrain_epochs": 2,
        "checkpoint_seconds": 0.2,
    }
    return parse_config({**fields, **more, **changes})


def silent(_line: str) -> None:
    pass


@linux
@pytest.mark.slow
def test_two_processes_give_the_policy_of_one_even_when_stopped_and_killed_in_between(tmp_path: Path) -> None:
    one = train(config(tmp_path / "one", 1), say=silent)
    whole = train(config(tmp_path / "whole", 2), say=silent)
    searching, checkpoint = (tmp_path / "broken" / name / "last.ckpt" for name in ("search", "wave"))
    # a rank that is asked asks all
    stopping = when(searching.exists, lambda: os.kill(ranks_of(os.getpid())[0], signal.SIGTERM))
    with pytest.raises(TrainingInterrupted, match="the same command goes on"):
        train(config(tmp_path / "broken", 2), say=silent)
    stopping.join()
    goes_on_in_one_process_and_says_what_changes(shutil.copytree(tmp_path / "broken", tmp_path / "narrow"))
    killing = when(checkpoint.exists, lambda: os.kill(ranks_of(os.getpid())[1], signal.SIGKILL))
    two = train(config(tmp_path / "broken", 2, max_restarts=1), say=silent)
    killing.join()
    assert contents(tmp_path / "broken") == contents(tmp_path / "whole")  # to the last bit
    assert two.bits == whole.bits == one.bits
    float_one, float_two = (load_weights(tmp_path / name / "float" / "weights.pt") for name in ("one", "broken"))
    # sums over a batch are rounded in another order, nothing else differs
    torch.testing.assert_close(float_two, float_one, rtol=1e-9, atol=1e-12)
    state_one, state_two = (load_weights(tmp_path / name / "wave" / "state.pt") for name in ("one", "broken"))
    assert int(state_one["waveq_step"]) == int(state_two["waveq_step"]) == 32  # a fifth of 40 were the search
    # a weight on the boundary between two levels may fall to the other side, and moves on from there
    torch.testing.assert_close(state_two, state_one, rtol=0.05, atol=0.01)
    assert two.test_accuracy == pytest.approx(one.test_accuracy, abs=0.01)


def goes_on_in_one_process_and_says_what_changes(folder: Path) -> None:
    said: list[str] = []
    result = train(config(folder, 1), say=said.append)
    assert said[0].startswith("goes on with 1 processes instead of 2: the batches of 128 images")
    assert "a process sees 128 images of a batch instead of 64" in said[0]
    steps = load_weights(folder / "wave" / "state.pt")
    assert all(bool(torch.isfinite(value).all()) for name, value in steps.items() if name.endswith("quantizer.step"))
    assert result.mean_bits > 1.0


def test_a_process_that_fails_stops_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os, sys, time; sys.exit(3) if os.environ['LOCAL_RANK'] == '1' else time.sleep(60)"
    monkeypatch.setattr(processes, "_words", lambda _config: ["-c", script])
    begun = time.monotonic()
    before = signal.getsignal(signal.SIGTERM), dict(os.environ)
    with pytest.raises(RuntimeError, match="process 1 of 2 ended with exit code 3; the others were stopped"):
        launch(config(tmp_path, 2))
    assert time.monotonic() - begun < 50
    assert (signal.getsignal(signal.SIGTERM), dict(os.environ)) == before


def test_a_process_that_is_killed_is_an_error_and_no_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = tmp_path / "starts"
    script = (
        "import os, sys, time; open(sys.argv[1], 'a').write(os.environ['LOCAL_RANK'])\n"
        "os.kill(os.getpid(), 9) if os.environ['LOCAL_RANK'] == '0' else time.sleep(60)"
    )
    monkeypatch.setattr(processes, "_words", lambda _config: ["-c", script, str(counted)])
    killed = r"process 0 of 2 was killed by SIGKILL \(the system does so where memory runs out\), after 1 restarts"
    with pytest.raises(RuntimeError, match=killed):
        launch(config(tmp_path, 2, max_restarts=1))
    assert counted.read_text().count("0") == 2


@pytest.mark.parametrize(("times", "number"), [(1, signal.SIGTERM), (1, signal.SIGINT), (2, signal.SIGINT)])
def test_a_signal_is_passed_on_and_a_second_ctrl_c_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, number: int
) -> None:
    """A child that takes its time where it is asked once."""
    script = (
        "import pathlib, signal, sys, time\n"
        "def asked(number, frame):\n"
        "    if int(sys.argv[2]) == 1 or number == signal.SIGTERM: sys.exit(130)\n"
        "    pathlib.Path(sys.argv[1], 'asked').touch()\n"
        "[signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)]\n"
        "pathlib.Path(sys.argv[1], 'ready').touch(); time.sleep(30); time.sleep(30)"
    )
    monkeypatch.setattr(processes, "_words", lambda _config: ["-c", script, str(tmp_path), str(times)])
    when((tmp_path / "ready").exists, lambda: os.kill(os.getpid(), number))
    when((tmp_path / "asked").exists, lambda: os.kill(os.getpid(), number))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell runs the tests behind it
    try:
        with pytest.raises(StopRequested if times == 1 else StoppedAtOnce):
            launch(TrainConfig(devices=1, run_dir=tmp_path))
    finally:
        signal.signal(signal.SIGINT, before)


@linux
@pytest.mark.slow
def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    child = (
        "import os, sys, time; from waveq.train.lifeline import end_with_parent; end_with_parent(int(sys.argv[1])); "
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = (
        "import os, sys; from waveq.train import processes; from waveq.train.config import TrainConfig\n"
        "processes._words = lambda config: ['-c', sys.argv[1], str(os.getpid())]\n"
        "processes.launch(TrainConfig(devices=2))"
    )
    with subprocess.Popen([sys.executable, "-c", parent, child], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        pids = [int(started.stdout.readline()) for _ in range(2)]
        started.kill()
    assert until(lambda: not any(map(running, pids)), seconds=10)
