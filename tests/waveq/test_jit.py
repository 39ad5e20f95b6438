"""Kernels compile where nothing can be written: a read-only installation, no home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# what numba does there, without a user who may not write: none of its ways to find a folder finds one
_NOWHERE = "import numba.core.caching as c; c.CacheImpl._locator_classes = []\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "expected"),
    [
        ("from waveq.evaluate import scores; from waveq._kernels.cpu import scalars; print('ok')", "ok"),
        ("import pareto; print(pareto.is_efficient([[1.0, 2.0], [2.0, 3.0]], sense=('min', 'min')))", "[ True False]"),
        ("import stripes_sim._kernels; print('ok')", "ok"),
    ],
)
def test_no_place_for_a_cache_ends_nothing(work: str, expected: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _NOWHERE + work],
        env=os.environ | {"PYTHONPATH": str(root), "NUMBA_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == expected, done.stderr
