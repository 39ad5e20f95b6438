"""A way in which people train, on a small network: what it is, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq

__all__ = ["OPTIONS", "Batch", "Batches", "Loop", "Trained", "Ways", "network", "refused", "sgd", "step", "train"]

Batch = tuple[Tensor, Tensor]
Batches = Sequence[Batch]
Run = Callable[[nn.Module, Batches], "Trained"]
OPTIONS: dict[str, Any] = {"total_steps": 6}


@dataclass(frozen=True)
class Trained:
    """What a loop leaves.

    Attributes:
        model: that was attached.
        wq: its handle; None where the loop finished a copy.
        note: how it went, for the table.
    """

    model: nn.Module
    wq: waveq.WaveQ | None = None
    note: str = "works"


@dataclass(frozen=True)
class Loop:
    """One way to train.

    Attributes:
        name: in the table.
        run: trains a network on batches.
        package: that it needs beside torch.
    """

    name: str
    run: Run
    package: str = "torch"


def network() -> nn.Module:
    """Convolutions, batch norm and a linear layer; (batch, 1, 8, 8) -> (batch, 4)."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 4),
    )


class Ways(list[Loop]):
    """The loops of a file, in its order."""

    def add(self, name: str, package: str = "torch") -> Callable[[Run], Run]:
        """Put the decorated function on the list.

        Args:
            name: in the table.
            package: that it needs beside torch.
        """

        def put(run: Run) -> Run:
            self.append(Loop(name, run, package))
            return run

        return put


def sgd(model: nn.Module, rate: float = 0.05, **options: Any) -> torch.optim.Optimizer:
    """SGD with momentum."""
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, **options)


def step(model: Any, wq: waveq.WaveQ, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """One step in the usual order."""
    loss = F.cross_entropy(model(batch[0]), batch[1]) + wq.penalty()
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
    wq.step()


def train(model: nn.Module, batches: Batches, *, call: Any = None, optimizer: Any = None, **options: Any) -> Trained:
    """The usual order, through ``call`` where the network is called as something else."""
    wq = waveq.attach(model, **{**OPTIONS, **options})
    optimizer = optimizer or sgd(model)
    for batch in batches:
        step(call or model, wq, optimizer, batch)
    return Trained(model, wq)


def refused(attempt: Callable[[], Any], *, kind: type[Exception], words: str) -> str:
    """A note on a call that must be refused, in a sentence that holds the words."""
    found: Exception | None = None
    try:
        attempt()
    except kind as error:
        found = error
    if found is None or words not in str(found):
        raise AssertionError(f"not refused with the words {words!r}: {found}")
    return f"refused: {kind.__name__}, says what to do" if kind is TypeError else f"refused: {kind.__name__}"
