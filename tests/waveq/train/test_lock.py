"""A folder has one process at a time, and a dead one holds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from waveq.train.lock import LOCK_FILE, alone_in, alone_in_runs


def test_the_second_is_refused_by_name_and_the_next_one_is_let_in(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    told = f"run is in use by process {os.getpid()}; wait"
    with alone_in(folder), pytest.raises(ValueError, match=told), alone_in(folder):
        pass
    with alone_in(folder):
        assert (folder / LOCK_FILE).read_text() == f"{os.getpid()}\n"


def test_a_killed_process_frees_its_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from waveq.train.lock import alone_in\n"
        "with alone_in(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    with alone_in(tmp_path):
        pass


def test_drafts_of_a_killed_writer_are_gone_with_the_next_one(tmp_path: Path) -> None:
    code = (
        "import os, sys; from waveq._files import whole\n"
        "with whole(sys.argv[1]) as draft: draft.touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "wave" / "weights.pt")], check=False)
    assert len(list((tmp_path / "wave").iterdir())) == 1
    with alone_in(tmp_path):
        assert list((tmp_path / "wave").iterdir()) == []


def test_only_folders_of_runs_are_locked_each_once(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    (run / "config.json").touch()
    with alone_in_runs(run, other, tmp_path / "run"):
        assert not other.exists()
        with pytest.raises(ValueError, match="is in use by process"), alone_in_runs(other, run):
            pass
    with alone_in(run):
        pass
