"""Kernels compile where nothing can be written, and threads of theirs survive forks and meet in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pareto._jit
import stripes_sim._jit
import waveq._kernels.jit
from waveq._kernels.jit import shared

MODULES = (waveq._kernels.jit, stripes_sim._jit, pareto._jit)

# what numba does in a read-only installation without a home: none of its ways to find a folder finds one
_NOWHERE = "import numba.core.caching as c; c.CacheImpl._locator_classes = []\n"

_CALLS = """
import numpy as np, torch
from pareto import is_efficient
from pareto.tables import score_policies
from stripes_sim.scoring import totals
from waveq._kernels.cpu.engine import NumbaEngine
rows = np.random.default_rng(0).integers(2, 5, (200_000, 6)).astype(np.uint8)
points = np.random.default_rng(0).random((600_000, 2))
weights = torch.randn(2_000_000)
costs = np.arange(18.0).reshape(6, 3)
def call():
    first = totals(rows, (2, 3, 4), [costs], [0.0])
    return (
        first.sum(),
        score_policies(rows, {str(layer): dict(zip((2, 3, 4), costs[layer])) for layer in range(6)}).sum(),
        is_efficient(points, sense=("min", "min")).sum(),
        NumbaEngine().largest([weights])[0].item(),
    )
expected = call()
"""

_FORK = (
    _CALLS
    + """
import os, signal
for _ in range(3):
    child = os.fork()
    if not child:
        signal.alarm(30)
        os._exit(0 if call() == expected else 1)
    assert os.waitpid(child, 0)[1] == 0
print("ok")
"""
)

_MEET = (
    _CALLS
    + """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    assert all(found == expected for found in pool.map(lambda _: call(), range(12)))
import numba
try:
    print(numba.threading_layer())
except ValueError:  # none was ever started
    print("ok")
"""
)


def _run(work: str, **environment: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", work],
        env=os.environ | {"PYTHONPATH": str(root), "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.strip().splitlines()[-1:] == ["ok"], done.stderr


def test_the_packages_have_the_same_file() -> None:
    files = {Path(str(module.__file__)).read_bytes() for module in MODULES}
    assert len(files) == 1


@pytest.mark.parametrize(("parts", "worth", "threads"), [(0, 1, 4), (1, 1, 4), (7, 1, 3), (1000, 64, 8), (10, 64, 8)])
def test_every_part_is_visited_once(parts: int, worth: int, threads: int) -> None:
    calls = shared(lambda first, last, more: list(range(first, last)) + more, parts, [], worth=worth, threads=threads)
    assert [part for call in calls for part in call] == list(range(parts))
    assert len(calls) == max(1, min(threads, parts // worth))


def test_an_error_waits_for_the_other_threads() -> None:
    done = []

    def work(first: int, last: int) -> None:
        if first == 0:
            raise KeyError(last)
        done.append(first)

    with pytest.raises(KeyError, match="2"):
        shared(work, 6, threads=3)
    assert sorted(done) == [2, 4]


@pytest.mark.slow
def test_no_place_for_a_cache_ends_nothing() -> None:
    _run(_NOWHERE + _CALLS + "print('ok')")


_SCAN = """
import os
import numba.core.caching as c
if "FULL" in os.environ:
    def full(self, path): raise OSError(28, "No space left on device")
    c.IndexDataCacheFile._open_for_write = full
from pareto import is_efficient
assert is_efficient([[1.0, 2.0], [2.0, 3.0]], sense=("min", "min")).tolist() == [True, False]
print("ok")
"""


@pytest.mark.slow
def test_damaged_and_full_caches_end_nothing(tmp_path: Path) -> None:
    _run(_SCAN, NUMBA_CACHE_DIR=str(tmp_path), FULL="1")
    assert not list(tmp_path.rglob("*.nbi"))
    _run(_SCAN, NUMBA_CACHE_DIR=str(tmp_path))
    kept = list(tmp_path.rglob("*.nbi"))
    for index in kept:
        index.write_bytes(b"")
    _run(_SCAN, NUMBA_CACHE_DIR=str(tmp_path))
    assert kept
    assert all(index.read_bytes() for index in kept)


@pytest.mark.slow
def test_a_fork_after_a_call_calls_again() -> None:
    _run(_FORK)


@pytest.mark.slow
def test_threads_meet_in_the_kernels_and_none_is_numbas() -> None:
    _run(_MEET)
