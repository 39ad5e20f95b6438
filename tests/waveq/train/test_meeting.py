"""The processes of a run meet where no network reaches them, and end with the one that spawned them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from waveq.train import processes
from waveq.train.config import TrainConfig
from waveq.train.meeting import local_meeting
from waveq.train.processes import launch

_RANK = """
import os, sys, torch, torch.distributed as dist
from tests.waveq.train.test_meeting import listening
dist.init_process_group("gloo", rank=int(os.environ["LOCAL_RANK"]), world_size=2)
found = torch.ones(3)
dist.all_reduce(found)
addresses = listening()
dist.destroy_process_group()
sys.exit(0 if found.tolist() == [2.0] * 3 and addresses <= {"127.0.0.1"} else 7)
"""


def listening() -> set[str]:
    """The IPv4 addresses that this process listens on, and "IPv6" where it does on one of those."""
    own = {os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_link(name)}
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in own:
                octets = bytes.fromhex(local.partition(":")[0])[::-1]
                found.add(".".join(map(str, octets)) if family == "tcp" else "IPv6")
    return found


def _is_link(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_launcher_listens_on_this_machine_alone() -> None:
    before = listening()
    with local_meeting() as found:
        assert listening() - before <= {"127.0.0.1"}
        guest = TCPStore(found["MASTER_ADDR"], int(found["MASTER_PORT"]), is_master=False)
        guest.set("name", "value")
        assert guest.get("name") == b"value"


def test_an_interface_that_was_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    with local_meeting() as found:
        assert found["GLOO_SOCKET_IFNAME"] == "eth7"
        assert found["NCCL_SOCKET_IFNAME"].startswith("lo")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ranks_listen_on_this_machine_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_command", lambda _config: [sys.executable, "-c", _RANK])
    assert launch(TrainConfig(devices=2, run_dir=tmp_path), lambda: False)


def endless(path: str) -> None:
    """In a spawned process."""
    from waveq.train.lifeline import end_with_spawner

    end_with_spawner()
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def spawn(path: str) -> None:
    """In the process that will be killed."""
    get_context("spawn").Process(target=endless, args=(path,)).start()
    time.sleep(600)


@pytest.mark.slow
def test_spawned_processes_end_with_their_parent(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    work = "import sys; from tests.waveq.train.test_meeting import spawn; spawn(sys.argv[1])"
    root = str(Path(__file__).parents[3])
    started = subprocess.Popen([sys.executable, "-c", work, str(path)], env={**os.environ, "PYTHONPATH": root})
    end = time.monotonic() + 60
    while not (path.exists() and path.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    child = Path(f"/proc/{path.read_text()}")
    started.kill()
    started.wait()
    while child.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not child.exists()
