"""Several processes for one run: each runs the whole training and Lightning's DDP joins them.

A fresh interpreter for every process, because parametrised modules cannot be pickled and a fork would inherit the
parent's threads. What comes out is read from the run folder.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from waveq.train.config import TrainConfig
from waveq.train.lifeline import LIFELINE, lifeline
from waveq.train.meeting import local_meeting

__all__ = ["INTERRUPTED", "is_worker", "launch"]

_WORKER = "WAVEQ_WORKER"
INTERRUPTED = 130  # the shell's code for Ctrl-C
_GOOD = (0, INTERRUPTED, -signal.SIGINT)  # the last where a process was told to stop before it listened


def is_worker() -> bool:
    """Whether this process is one of several that `launch` started."""
    return _WORKER in os.environ


def launch(config: TrainConfig, stop: Callable[[], bool], *, held: tuple[int, ...] = ()) -> bool:
    """Run `train(config)` in `config.devices` processes; True when it ended, False when it was interrupted.

    Whatever happens to this process, the others end with it.

    Args:
        config: its run folder exists and holds it.
        stop: whether this process was asked to stop; passed on to the others.
        held: open files that the processes keep open too, such as the lock of the run folder.

    Raises:
        RuntimeError: a process failed or was killed; the others were stopped. Its own message stands above.
    """
    with lifeline() as pipe, local_meeting() as meeting:
        processes = [_start(config, rank, meeting, pipe, held) for rank in range(config.devices)]
        try:
            _wait(processes, stop)
            codes = [process.poll() for process in processes]
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.wait()
    failed = [(rank, code) for rank, code in enumerate(codes) if code is not None and code not in _GOOD]
    if failed:
        told = "; ".join(f"process {rank} {_how_it_ended(code)}" for rank, code in failed)
        raise RuntimeError(
            f"{len(failed)} of {config.devices} training processes failed: {told}; the others were stopped"
        )
    return all(code == 0 for code in codes)


def _wait(processes: list[subprocess.Popen[bytes]], stop: Callable[[], bool]) -> None:
    """Until all have ended, or one has failed."""
    told = False
    while any(process.poll() is None for process in processes):
        if stop() and not told:
            told = True
            for process in processes:
                process.send_signal(signal.SIGINT)  # Lightning has plans of its own for SIGTERM
        if any(process.poll() not in (None, *_GOOD) for process in processes):
            return
        time.sleep(0.05)


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    reason = " (the system does so where memory runs out)" if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{reason}"


def _start(
    config: TrainConfig, rank: int, meeting: Mapping[str, str], pipe: int, held: tuple[int, ...]
) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        **meeting,
        _WORKER: "1",
        LIFELINE: str(pipe),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    # a session of their own: Ctrl-C reaches this process alone, which passes it on once
    return subprocess.Popen(_command(config), env=environment, start_new_session=True, pass_fds=(pipe, *held))


def _command(config: TrainConfig) -> list[str]:
    return [sys.executable, "-m", "waveq.train.worker", str(config.folder / "config.json")]
