"""Processes end with the one that started them, however it ends. Children import this file: nothing heavy in it."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests.waveq.train.watching import running, until


def endless(path: str) -> None:
    """In a spawned process."""
    import time

    from waveq.train.lifeline import end_with_spawner

    end_with_spawner()
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def spawn(path: str) -> None:
    """In the process that will be killed."""
    child = get_context("spawn").Process(target=endless, args=(path,))
    child.start()
    child.join()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_spawned_processes_end_with_their_parent(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    work = "import sys; from tests.waveq.train.test_lifeline import spawn; spawn(sys.argv[1])"
    root = str(Path(__file__).parents[3])
    started = subprocess.Popen([sys.executable, "-c", work, str(path)], env={**os.environ, "PYTHONPATH": root})
    assert until(lambda: path.exists() and bool(path.read_text()))
    child = int(path.read_text())
    started.kill()
    started.wait()
    assert until(lambda: not running(child))
