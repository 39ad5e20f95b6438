"""What all tests share."""

from __future__ import annotations

import os

# Tests run in parallel, one process a core: a thread pool in each would only get in the others' way.
# This must stand before torch and numba are imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# A noisy machine must not turn a slow example into a failure; examples are the same in every run.
settings.register_profile("waveq", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("waveq")


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Whatever a test did to torch's threads, the next one begins with one."""
    yield
    if "torch" in sys.modules and sys.modules["torch"].get_num_threads() != 1:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of measured reference data beside the checkout; tests that need it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"reference data are not there: {folder}")
    return folder
