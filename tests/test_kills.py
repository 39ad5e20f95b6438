"""A part of `make kills`, without its ranks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts processes in /proc")
def test_a_killed_run_ends_as_one_that_nobody_touched() -> None:
    words = ["--attempts", "2", "--seed", "1", "--only", "training", "enumeration"]
    done = subprocess.run(  # not in this process: it has threads, and the suite forks
        [sys.executable, "-m", "tests.kills", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 4 |" in done.stdout
    assert "ended with two: the same bits" in done.stdout
