"""Where policies are evaluated: this process, local processes, or the workers of a Ray cluster.

An engine takes an `evaluate` and an iterator of units (each some policies) and yields every unit with its
values, in whatever order they finish. Units are drawn from the iterator only when a worker is about to be
free. A worker that dies is replaced and its unit done again, and a policy that kills its workers is answered with that
as the reason; an exception inside `evaluate` ends the run (see `pareto._tolerant` for which ones get so far).
"""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from pareto.space import Policies

__all__ = ["ENGINES", "Done", "Engine", "Evaluate", "local_processes", "ray_workers", "serial"]

Evaluate = Callable[[Policies], npt.ArrayLike]
Done = tuple[Policies, npt.NDArray[Any] | str]
"""Policies with the answer of `evaluate`, or why they have none: no worker lived to give it."""
Engine = Callable[..., Generator[Done, None, None]]

_DEATHS = 3  # a policy whose worker died this often, alone, is to blame itself
_KILLED = f"its worker died {_DEATHS} times (out of memory?)"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # torch's
_NUMBA_THREADS = "NUMBA_NUM_THREADS"


def serial(evaluate: Evaluate, units: Iterator[Policies]) -> Generator[Done, None, None]:
    """One unit after the other in this process.

    >>> [values.tolist() for _, values in serial(lambda rows: rows.sum(axis=1), iter([np.array([[2, 3]])]))]
    [[5]]
    """
    for unit in units:
        yield unit, np.asarray(evaluate(unit))


def local_processes(
    evaluate: Evaluate, units: Iterator[Policies], *, workers: int | None = None
) -> Generator[Done, None, None]:
    """Fresh processes on this machine; `evaluate` is pickled once and sent to each.

    Processes are spawned, not forked: a fork of a process with running threads (torch, numba) may hang. So a
    script that calls this needs the usual ``if __name__ == "__main__":``. Each gets its share of the cores as
    threads.

    A worker that dies is replaced, and the units that were out are done again, each alone; one that kills its worker
    again is halved until the policy to blame is found, which is answered with a reason after three deaths.

    Raises TypeError when `evaluate` cannot be pickled, RuntimeError when workers die as they start, or on every policy.
    """
    workers = _worker_count(workers)
    start = _Start(_pickled(evaluate), max(1, (os.cpu_count() or 1) // workers))
    waiting: deque[Policies] = deque()
    suspects = _Suspects(start)
    while True:
        pool = start.pool(workers)
        running: dict[futures.Future[npt.NDArray[Any]], Policies] = {}
        try:
            for unit, values in _drain(pool, units, waiting, running, 2 * workers):
                suspects.measured = True
                yield unit, values
            return
        except BrokenProcessPool:
            pass
        finally:
            _stop(pool)
        # The pool does not say whose worker died.
        for unit in running.values():
            yield from suspects.alone(unit)


@dataclass(frozen=True)
class _Start:
    """What a worker begins with."""

    payload: bytes
    threads: int

    def pool(self, workers: int) -> futures.ProcessPoolExecutor:
        return futures.ProcessPoolExecutor(
            workers,
            mp_context=get_context("spawn"),
            initializer=_start_worker,
            initargs=(self.payload, self.threads),
        )


class _Suspects:
    """Units on which a worker may have died, one at a time in a worker of their own.

    Attributes:
        measured: whether any policy has lived so far; if not, policies are hardly to blame.
    """

    def __init__(self, start: _Start) -> None:
        self._start, self.measured, self._killers = start, False, 0
        self._pool: futures.ProcessPoolExecutor | None = None

    def alone(self, unit: Policies) -> Generator[Done, None, None]:
        """The unit with its values, or its parts with theirs or a reason.

        Raises RuntimeError where workers die without evaluating, or on the first policies of all.
        """
        parts = [(unit, 0)]
        try:
            while parts:
                part, deaths = parts.pop()
                values = self._tried(part)
                if values is not None:
                    self.measured = True
                    yield part, values
                elif len(part) > 1:
                    half = len(part) // 2
                    parts += [(part[half:], 0), (part[:half], 0)]
                elif deaths + 1 < _DEATHS:
                    parts.append((part, deaths + 1))
                else:
                    self._killers += 1
                    if self._killers > 1 and not self.measured:
                        raise RuntimeError(
                            f"worker processes died {_DEATHS} times on each of {self._killers} policies, such as "
                            f"{part[0].tolist()}, and none was measured (out of memory?); what was done is stored"
                        )
                    yield part, _KILLED
        finally:
            self._close()

    def _tried(self, part: Policies) -> npt.NDArray[Any] | None:
        pool = self._ready()
        try:
            return pool.submit(_evaluate_unit, part).result()
        except BrokenProcessPool:
            self._close()
            return None

    def _ready(self) -> futures.ProcessPoolExecutor:
        for _ in range(_DEATHS):
            if self._pool is None:
                self._pool = self._start.pool(1)
            try:
                self._pool.submit(_nothing).result()
                return self._pool
            except BrokenProcessPool:
                self._close()
        raise RuntimeError(
            f"worker processes died {_DEATHS} times as they started (a script without "
            "`if __name__ == '__main__':`?); what was done is stored"
        )

    def _close(self) -> None:
        if self._pool is not None:
            _stop(self._pool)
            self._pool = None


def _nothing() -> None:
    """What a worker can do that has started."""


def _stop(pool: futures.ProcessPoolExecutor) -> None:
    # After an error or Ctrl-C nobody wants the units in flight, and shutdown() would wait for them: minutes
    # where they train. The public terminate_workers() exists only from Python 3.14 on.
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.terminate()


def _drain(
    pool: futures.ProcessPoolExecutor,
    units: Iterator[Policies],
    waiting: deque[Policies],
    running: dict[futures.Future[npt.NDArray[Any]], Policies],
    depth: int,
) -> Generator[Done, None, None]:
    """Keep `depth` units in the pool until none is left; `running` always holds what is out."""
    while True:
        while len(running) < depth:
            unit = waiting.popleft() if waiting else next(units, None)
            if unit is None:
                break
            try:
                running[pool.submit(_evaluate_unit, unit)] = unit
            except BrokenProcessPool:
                waiting.append(unit)
                raise
        if not running:
            return
        finished, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
        for future in finished:
            values = future.result()
            yield running.pop(future), values


_evaluate: Evaluate | None = None  # of a worker process


def _start_worker(payload: bytes, threads: int) -> None:
    global _evaluate
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one
    for variable in _THREAD_VARIABLES:  # torch reads them when it is imported, which unpickling may do
        os.environ.setdefault(variable, str(threads))
    os.environ[_NUMBA_THREADS] = str(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    numba.config.reload_config()  # type: ignore[no-untyped-call]
    _evaluate = pickle.loads(payload)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, which would wait for units for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _evaluate_unit(unit: Policies) -> npt.NDArray[Any]:
    assert _evaluate is not None
    return np.asarray(_evaluate(unit))


def ray_workers(
    evaluate: Evaluate,
    units: Iterator[Policies],
    *,
    workers: int | None = None,
    address: str | None = None,
    resources: Mapping[str, Any] | None = None,
) -> Generator[Done, None, None]:
    """Tasks of a Ray cluster; each process of it gets one copy of `evaluate` and keeps it.

    Args:
        evaluate, units: as for every engine.
        workers: units that are out at once; default twice what the cluster has room for, as it grows and shrinks.
        address: of a running cluster ("auto" finds one here); default starts one on this machine for the time
            of the run.
        resources: options of each task, such as ``{"num_gpus": 0.5}``; one CPU unless they say otherwise.

    A unit whose process or node is lost is done again wherever there is room, as often as three times; then it is
    halved, as for processes. Packages that `evaluate` needs must be installed on every machine.

    Raises ModuleNotFoundError where ray is not installed, RuntimeError where the cluster is gone, ValueError where it
    has no room for one task.
    """
    try:
        import ray
    except ModuleNotFoundError:
        raise ModuleNotFoundError("the ray engine needs ray: pip install 'waveq[ray]'", name="ray") from None
    started_here = not ray.is_initialized()
    if started_here:
        ray.init(address=address, log_to_driver=False)
    lost = (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError)
    running: dict[Any, Policies] = {}
    again: deque[Policies] = deque()
    killers = 0
    try:
        workers = None if workers is None else _worker_count(workers)
        options = {"num_cpus": 1, "max_retries": _DEATHS, **(resources or {})}
        task = ray.remote(_evaluate_shared).options(**options)
        shared = [ray.put(evaluate)]  # in a list, which a task gets as it is: a bare reference would be fetched
        while True:
            depth = workers or 2 * _tasks_at_once(ray.cluster_resources(), options)
            while len(running) < depth and (unit := again.popleft() if again else next(units, None)) is not None:
                running[task.remote(shared, unit)] = unit
            if not running:
                return
            finished, _ = ray.wait(list(running), num_returns=1)
            for reference in finished:
                unit = running.pop(reference)
                values: npt.NDArray[Any] | str
                try:
                    values, killers = ray.get(reference), 0
                except lost:
                    if len(unit) > 1:
                        again += [unit[: len(unit) // 2], unit[len(unit) // 2 :]]
                        continue
                    values, killers = _KILLED, killers + 1
                    if killers > 1:  # two policies in a row: it is the workers
                        raise
                yield unit, values
    except (*lost, ray.exceptions.RaySystemError, ray.exceptions.LocalRayletDiedError) as error:
        raise RuntimeError(
            f"the Ray cluster, or its workers, are gone ({error}); what was evaluated is stored, and the same call "
            "goes on from there"
        ) from None
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if started_here:
            ray.shutdown()


def _tasks_at_once(total: Mapping[str, float], options: Mapping[str, Any]) -> int:
    """How many tasks with these options a cluster with these resources runs at once."""
    wanted = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus", 0), **options.get("resources", {})}
    room = min((int(total.get(name, 0.0) / share) for name, share in wanted.items() if share), default=1)
    if room < 1:
        listed = ", ".join(f"{name} {total.get(name, 0.0):g} of {share:g}" for name, share in wanted.items() if share)
        raise ValueError(f"resources: the Ray cluster has no room for one task (has {listed} wanted)")
    return room


_copies: dict[Any, Evaluate] = {}  # of a process of a Ray cluster: the last `evaluate` that it was sent


def _evaluate_shared(shared: list[Any], unit: Policies) -> npt.NDArray[Any]:
    import ray

    if shared[0] not in _copies:
        _copies.clear()
        _copies[shared[0]] = ray.get(shared[0])
    # Ray lends arrays as read-only shared memory; torch.from_numpy and in-place code want their own.
    return np.asarray(_copies[shared[0]](np.array(unit)))


ENGINES: dict[str, Engine] = {"processes": local_processes, "ray": ray_workers, "serial": serial}


def _worker_count(workers: int | None) -> int:
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    return workers


def _pickled(evaluate: Evaluate) -> bytes:
    try:
        return pickle.dumps(evaluate)
    except Exception as error:
        raise TypeError(
            f"evaluate cannot be sent to other processes ({error}): define it, or its class, "
            "at the top of a module, or use engine='serial'"
        ) from error
