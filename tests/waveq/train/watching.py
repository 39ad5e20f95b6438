"""What tests of several processes ask the system."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

_LONGEST = 120.0


def until(happened: Callable[[], bool], *, seconds: float = _LONGEST) -> bool:
    """Wait; whether it happened in time."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def when(happened: Callable[[], bool], do: Callable[[], object]) -> threading.Thread:
    """Do something once, in another thread, when it has happened."""
    thread = threading.Thread(target=lambda: until(happened) and do(), daemon=True)
    thread.start()
    return thread


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ranks_of(pid: int) -> dict[int, int]:
    """The training processes that one has started, by rank."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks = [int(word[5:]) for word in words if word.startswith(b"RANK=")]
        found |= {rank: int(child) for rank in ranks}
    return found


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
