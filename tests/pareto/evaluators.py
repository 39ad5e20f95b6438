"""Evaluators that worker processes can import: the value of a policy is known, and some of them misbehave."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np


def value(policies):
    """A number that names the policy."""
    return policies @ (10.0 ** np.arange(policies.shape[1])[::-1])


class Slow:
    """Takes its time over each unit."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, policies):
        time.sleep(self.seconds)
        return value(policies)


class Endless:
    """Says that it has begun, and does not end."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def __call__(self, policies):
        (self.folder / f"begun-{os.getpid()}").touch()
        time.sleep(600)
        return value(policies)


class Deadly:
    """Kills its process `times` times, counted in files, when a policy starts with `first`."""

    def __init__(self, folder, first, times):
        self.folder, self.first, self.times = Path(folder), first, times

    def __call__(self, policies):
        if (policies[:, 0] == self.first).any():
            deaths = len(list(self.folder.iterdir()))
            if deaths < self.times:
                (self.folder / f"death{deaths}-{os.getpid()}").touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return value(policies)


def failing(policies):
    """Raises on one policy."""
    if (policies == 4).all(axis=1).any():
        raise ArithmeticError("the model is broken")
    return value(policies)
