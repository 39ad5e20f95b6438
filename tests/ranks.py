"""Two processes that all tests of two ranks share: to import torch takes each of them seconds."""

from __future__ import annotations

import atexit
import traceback
import warnings
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

__all__ = ["in_two_ranks"]

Task = Callable[[int, Path], None]
_SECONDS = 300.0


class _Pair:
    """The processes, each at the other end of a pipe."""

    def __init__(self) -> None:
        context = get_context("spawn")
        self._ends: list[Connection] = []
        self._processes = []
        for rank in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, theirs), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    def call(self, task: Task, folder: Path) -> None:
        for end in self._ends:
            end.send((task, folder))
        waiting = set(self._ends)
        while waiting:
            ready = wait(waiting, timeout=_SECONDS)
            if not ready:
                raise TimeoutError(f"{len(waiting)} of 2 ranks have not ended after {_SECONDS:.0f} s")
            for end in ready:
                assert isinstance(end, Connection)
                waiting.discard(end)
                if (error := end.recv()) is not None:
                    raise AssertionError(f"rank {self._ends.index(end)} of 2:\n{error}")

    def close(self) -> None:
        for end in self._ends:
            end.close()  # a process that waits for a task ends
        for process in self._processes:
            process.join(timeout=2.0)
            process.kill()


def _serve(rank: int, end: Connection) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    while True:
        try:
            task, folder = end.recv()
        except EOFError:
            return
        try:
            with warnings.catch_warnings():
                meeting, minute = f"file://{folder}/meeting", timedelta(seconds=60)
                dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=minute)
                task(rank, folder)
                dist.destroy_process_group()
            end.send(None)
        except BaseException:
            end.send(traceback.format_exc())


_pair: _Pair | None = None


def in_two_ranks(task: Task, folder: Path) -> None:
    """Call ``task(rank, folder)`` in each of two processes, which are a group of torch.distributed (gloo) meanwhile.

    Args:
        task: a function of a module.
        folder: an empty one; what the ranks have found they leave there.

    Raises:
        AssertionError: a rank failed; the message has its traceback.
    """
    global _pair
    pair = _pair = _pair or _Pair()
    try:
        pair.call(task, folder)
    except BaseException:  # the other one may wait for ever
        _forget()
        raise


def _forget() -> None:
    global _pair
    if _pair is not None:
        _pair.close()
        _pair = None


atexit.register(_forget)
