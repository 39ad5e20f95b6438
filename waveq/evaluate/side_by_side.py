"""Independent pieces of work on the cores of one machine, each operation on one core."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from waveq.threads import torch_threads

__all__ = ["cores", "one_thread_per_operation", "run_side_by_side"]

T = TypeVar("T")


def cores(device: torch.device) -> int:
    """How many pieces to work on at once: torch's threads on a CPU; a GPU is kept busy by one."""
    return torch.get_num_threads() if device.type == "cpu" else 1


@contextlib.contextmanager
def one_thread_per_operation(device: torch.device) -> Iterator[None]:
    """Small operations gain nothing from several threads; whole pieces of work do."""
    with torch_threads(1 if device.type == "cpu" else None):
        yield


def run_side_by_side(
    work: Callable[[T], None],
    pieces: Iterable[T],
    *,
    threads: int,
    device: torch.device,
    done: Callable[[T], None] | None = None,
) -> None:
    """Do all pieces; a bounded number waits, so that an error or Ctrl-C ends the run soon.

    Args:
        work: called with each piece, in some thread; it releases the interpreter inside torch's operations.
        pieces: drawn when a thread is about to be free.
        threads: pieces in work at once.
        device: where the operations run.
        done: called with each finished piece, in order, in this thread.

    Example:
        >>> found = []
        >>> run_side_by_side(found.append, range(5), threads=2, device=torch.device("cpu")); sorted(found)
        [0, 1, 2, 3, 4]
    """
    with one_thread_per_operation(device):
        if threads == 1:
            for piece in pieces:
                work(piece)
                if done is not None:
                    done(piece)
            return
        waiting: deque[tuple[T, Future[None]]] = deque()
        with ThreadPoolExecutor(threads) as pool:
            try:
                for piece in pieces:
                    if len(waiting) >= 2 * threads:
                        _finish(waiting, done)
                    waiting.append((piece, pool.submit(work, piece)))
                while waiting:
                    _finish(waiting, done)
            finally:
                for _, future in waiting:
                    future.cancel()


def _finish(waiting: deque[tuple[T, Future[None]]], done: Callable[[T], None] | None) -> None:
    piece, future = waiting.popleft()
    future.result()
    if done is not None:
        done(piece)
