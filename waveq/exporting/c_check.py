"""A C program against torch on the same inputs, before it is written."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["find_compiler", "outputs_of_program"]

_COMPILERS = ("cc", "gcc", "clang", "g++", "c++", "clang++")


def find_compiler() -> str | None:
    """The first compiler that is found, or None."""
    return next(filter(None, map(shutil.which, _COMPILERS)), None)


def outputs_of_program(compiler: str, files: Mapping[str, str], program: str, example: Tensor, outputs: int) -> Tensor:
    """(N, outputs) what a program gives for N samples.

    Args:
        compiler: its path.
        files: texts by their names.
        program: which of them is compiled.
        example: (N, ...) samples, float32.
        outputs: of each sample.

    Raises:
        ValueError: it cannot be compiled or run (the first line of the complaint), or gives another number of outputs.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for each, text in files.items():
            (folder / each).write_text(text, encoding="utf-8")
        flags = ["-x", "c++"] if compiler.endswith("++") else []
        _run([compiler, "-O2", *flags, program, "-o", "program", "-lm"], folder, "the C program cannot be compiled")
        samples = example.detach().contiguous().numpy().tobytes()
        given = _run([str(folder / "program")], folder, "the C program does not run", samples)
    if len(given) != 4 * len(example) * outputs:
        raise ValueError(
            f"the C program gives {len(given) // 4} numbers, not {len(example) * outputs}: nothing was written"
        )
    return torch.from_numpy(np.frombuffer(given, np.float32).copy()).reshape(len(example), outputs)


def _run(command: list[str], folder: Path, complaint: str, given: bytes = b"") -> bytes:
    try:
        done = subprocess.run(command, cwd=folder, input=given, capture_output=True, check=False)
    except OSError as error:  # a folder for temporary files from which nothing may be run
        raise ValueError(f"{complaint} ({error.strerror}): nothing was written") from error
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise ValueError(f"{complaint} ({told or f'exit status {done.returncode}'}): nothing was written")
    return done.stdout
