"""NVIDIA's multi-process service: kernels of several processes run side by side, for as long as it is wanted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["side_by_side"]

_TOOL = "nvidia-cuda-mps-control"
_ELSEWHERE = Path("/usr/local/nvidia/bin")
_PLACES = ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY")
_TRIAL = "import torch; print(torch.ones(3, device='cuda').sum().item())"


@contextmanager
def side_by_side() -> Iterator[str]:
    """Within, processes that are started share the GPU through the service, if it is there and works; yields whether.

    It has pipes of its own, so that nobody else's service is touched, and no setting of the card is changed. One that a
    killed run left behind is ended first.
    """
    tool = shutil.which(_TOOL) or shutil.which(_TOOL, path=str(_ELSEWHERE))
    if tool is None:
        yield f"{_TOOL} is not installed: processes take turns on the GPU"
        return
    place = Path(tempfile.gettempdir()) / f"waveq-mps-{os.getuid()}"  # short: the name of a socket lies in it
    place.mkdir(exist_ok=True)
    before = {name: os.environ.get(name) for name in _PLACES}
    os.environ.update(dict.fromkeys(_PLACES, str(place)))
    try:
        _end(tool)
        says = _begin(tool)
        if says:
            _restore(before)
        yield says or "the multi-process service runs: kernels of several processes share the GPU"
    finally:
        os.environ.update(dict.fromkeys(_PLACES, str(place)))
        _end(tool)
        _restore(before)
        shutil.rmtree(place, ignore_errors=True)


def _begin(tool: str) -> str:
    """Start it, and try it; why it does not work, or nothing."""
    try:
        subprocess.run([tool, "-d"], check=True, capture_output=True, timeout=20)
        subprocess.run([sys.executable, "-c", _TRIAL], check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        _end(tool)
        return f"the multi-process service does not work here ({error}): processes take turns on the GPU"
    return ""


def _end(tool: str) -> None:
    try:
        subprocess.run([tool], input=b"quit\n", check=False, capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return  # nothing to end


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
