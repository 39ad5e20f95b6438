"""Several processes for one run: each runs the whole training and Lightning's DDP joins them.

A fresh interpreter for every process, because parametrised modules cannot be pickled and a fork would inherit the
parent's threads. What comes out is read from the run folder.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from waveq.train.config import TrainConfig

__all__ = ["INTERRUPTED", "is_worker", "launch"]

_WORKER = "WAVEQ_WORKER"
INTERRUPTED = 130  # the shell's code for Ctrl-C


def is_worker() -> bool:
    """Whether this process is one of several that `launch` started."""
    return _WORKER in os.environ


def launch(config: TrainConfig, stop: Callable[[], bool]) -> bool:
    """Run `train(config)` in `config.devices` processes; True when it ended, False when it was interrupted.

    Args:
        config: its run folder exists and holds it.
        stop: whether this process was asked to stop; passed on to the others.

    Raises:
        RuntimeError: a process failed; the others were stopped. Its own message stands above.
    """
    port = _free_port()
    processes = [_start(config, rank, port) for rank in range(config.devices)]
    try:
        told = False
        while any(process.poll() is None for process in processes):
            if stop() and not told:
                told = True
                for process in processes:
                    process.send_signal(signal.SIGINT)  # Lightning has plans of its own for SIGTERM
            if any(process.poll() not in (None, 0, INTERRUPTED) for process in processes):
                break
            time.sleep(0.05)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()
    codes = [process.returncode for process in processes]
    if any(code not in (0, INTERRUPTED) and code != -signal.SIGKILL for code in codes):
        raise RuntimeError(f"one of {config.devices} training processes failed (exit codes {codes})")
    return all(code == 0 for code in codes)


def _start(config: TrainConfig, rank: int, port: int) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        _WORKER: "1",
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    # a session of their own: Ctrl-C reaches this process alone, which passes it on once
    return subprocess.Popen(_command(config), env=environment, start_new_session=True)


def _command(config: TrainConfig) -> list[str]:
    return [sys.executable, "-m", "waveq.train.worker", str(config.folder / "config.json")]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
