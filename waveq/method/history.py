"""What a run went through, step by step: recorded by reference while it runs, made a table when it is asked for.

A record costs no look at the layers and no wait for the device: betas move on the host, in ``beta_step``, and what they
became is kept as it is; waves are kept as the kernels computed them. In phases 1 and 3 all records share one vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from waveq.functional import magnitude_bits
from waveq.method.operands import InputOperand, Operand
from waveq.method.penalty import SeenWaves
from waveq.method.progress import Progress

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["History"]

Betas = npt.NDArray[np.float32]
Bits = npt.NDArray[np.int64]

_MOST = 1000  # records; when there are so many every second one is dropped


@dataclass(frozen=True, slots=True)
class _Record:
    """One step, as it was before the betas moved.

    Attributes:
        step: optimiser steps taken before it.
        phase: 1, 2 or 3.
        lambda_w: strength of the wave.
        lambda_beta: price of one bit on average, as a budget has driven it; 0 where no beta moves.
        betas: of all operands.
        fixed: their total bits, 0 while they are learned.
        bit_costs: what one bit of each costs, with mean 1.
        waves: what the penalty computed; empty where there was none.
    """

    step: int
    phase: int
    lambda_w: float
    lambda_beta: float
    betas: Betas
    fixed: Bits
    bit_costs: Mapping[str, float]
    waves: SeenWaves


class History:
    """The records of one run: at most 1,000, evenly thinned, the first one always among them.

    Args:
        operands: weights and inputs that have a beta.
        progress: where the run stands.
    """

    def __init__(self, operands: Sequence[Operand], progress: Progress) -> None:
        self._operands, self._progress = tuple(operands), progress
        self._records: list[_Record] = []
        self._every = 1  # steps between two records
        self._reached = 0  # the step that the run was at last
        self._standing: tuple[Betas, Bits] | None = None  # None where it has to be read from the model
        self._moved: npt.NDArray[np.float64] | None = None  # betas that are learned, since ``_standing``
        self._waves: SeenWaves = []

    # ------------------------------------------------------------------ while the run goes on

    def waves(self, step: int) -> SeenWaves | None:
        """Where the penalty shall leave its waves; None where this step is not recorded."""
        if torch.compiler.is_compiling():  # first: a compiled graph would be made anew for every length of the records
            return None
        if not self._due(step) or not torch.is_grad_enabled():
            return None
        self._waves = []  # under gradient accumulation the last penalty of a step counts
        return self._waves

    def note(self, step: int, pressure: float, bit_costs: Mapping[str, float]) -> None:
        """Record a step before the betas move, if it is its turn.

        Args:
            step: optimiser steps taken.
            pressure: of the budget at this step, which only phase 2 needs.
            bit_costs: what one bit of each operand costs, likewise.
        """
        self._reached = step + 1
        if not self._due(step):
            return
        self._records.append(self._record(step, self._stand(), pressure, bit_costs, self._waves))
        self._waves = []
        if len(self._records) == _MOST:
            self._every *= 2
            first, *rest = self._records
            self._records = [first, *(each for each in rest if each.step % self._every == 0)]

    def follow(self, moved: npt.NDArray[np.float64]) -> None:
        """The betas that are learned have moved there."""
        self._moved = moved

    def look_again(self) -> None:
        """Bits were fixed: read them, once, at the next record."""
        self._standing = self._moved = None

    def go_on(self, step: int) -> None:
        """Somebody else wrote the run's state (a checkpoint): forget what lies behind its step.

        Where it lies ahead of what this handle went through, nothing is known of the steps between: all begins anew.
        """
        self.look_again()
        if step > self._reached:
            self._records, self._every = [], 1
        self._records = [each for each in self._records if each.step < step]
        self._reached = step

    def _due(self, step: int) -> bool:
        return step % self._every == 0 or not self._records

    def _stand(self) -> tuple[Betas, Bits]:
        if self._standing is None:
            self._standing = self._read()
        elif self._moved is not None:
            before, fixed = self._standing
            betas = before.copy()
            betas[fixed == 0] = self._moved
            self._standing = betas, fixed
        self._moved = None
        return self._standing

    def _record(
        self, step: int, stand: tuple[Betas, Bits], pressure: float, costs: Mapping[str, float], waves: SeenWaves
    ) -> _Record:
        phase = self._progress.phase
        lambda_w, lambda_beta = self._progress.strengths(pressure)
        return _Record(step, phase, lambda_w, lambda_beta if phase == 2 else 0.0, *stand, costs, waves)

    # ------------------------------------------------------------------ looking, which changes nothing

    def _read(self) -> tuple[Betas, Bits]:
        """Betas and fixed bits out of the buffers; the device is waited for once."""
        home = self._operands[0].kept("beta").device
        betas = torch.stack([each.kept("beta").detach().to(home) for each in self._operands])
        return betas.float().cpu().numpy(), np.array([each.state.bits_now for each in self._operands])

    def _with_now(self) -> list[_Record]:
        step = self._progress.step
        past = [each for each in self._records if each.step < step]
        if step > self._reached:
            past = []
        return [*past, self._now()]

    def _now(self) -> _Record:
        learning = self._progress.phase == 2
        pressure = self._progress.pressure() if learning else 0.0
        costs = self._progress.bit_costs() if learning else {}
        return self._record(self._progress.step, self._read(), pressure, costs, [])

    def latest(self) -> dict[str, float]:
        """The present, one number a name; see ``View.metrics``."""
        now = self._now()
        found: dict[str, float] = {"phase": now.phase, "lambda_w": now.lambda_w, "lambda_beta": now.lambda_beta}
        prices = _prices(now, [each.name for each in self._operands])
        columns: dict[str, npt.NDArray[Any]] = {
            "bits": self._bits(now.betas, now.fixed),
            "beta": now.betas,
            "price": prices,
        }
        for kind, values in columns.items():
            keys = [_key(kind, each) for each in self._operands]
            found |= dict(zip(keys, values.tolist(), strict=True))
        return found

    def frame(self) -> pd.DataFrame:
        """One row for each record and operand, and for the present; see ``View.history``.

        Raises:
            ModuleNotFoundError: no pandas.
        """
        try:
            import pandas as pd
        except ImportError:
            raise ModuleNotFoundError("wq.history() gives a pandas DataFrame: pip install pandas") from None
        records = self._with_now()
        count, names = len(self._operands), [each.name for each in self._operands]
        betas, fixed = np.stack([each.betas for each in records]), np.stack([each.fixed for each in records])

        def by_step(attribute: str) -> npt.NDArray[Any]:
            return np.repeat([getattr(each, attribute) for each in records], count)

        return pd.DataFrame(
            {
                "step": by_step("step"),
                "phase": by_step("phase"),
                "layer": names * len(records),
                "beta": betas.ravel(),
                "bits": self._bits(betas, fixed).ravel(),
                "wave": np.stack([_by_name(each.waves, names) for each in records]).ravel(),
                "strength": by_step("lambda_w"),
                "lambda_beta": by_step("lambda_beta"),
                "price": np.stack([_prices(each, names) for each in records]).ravel(),
            }
        )

    def _bits(self, betas: Betas, fixed: Bits) -> Bits:
        hysteresis = self._operands[0].state.hysteresis  # the preset's, and so everybody's
        would_be = magnitude_bits(torch.from_numpy(betas), hysteresis).numpy().astype(np.int64) + 1
        return np.where(fixed == 0, would_be, fixed)


def _key(kind: str, operand: Operand) -> str:
    if isinstance(operand, InputOperand):
        return f"input_{kind}/{operand.layer.name}"
    return f"{kind}/{operand.name}"


def _prices(record: _Record, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """lambda_beta c_i; 0 where bits are fixed."""
    costs = np.array([record.bit_costs.get(name, 0.0) for name in names])
    return np.where(record.fixed == 0, record.lambda_beta * costs, 0.0)


def _by_name(waves: SeenWaves, names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Mean sin^2 by operand; NaN where none was computed."""
    found: dict[str, float] = {}
    for layers, values in waves:
        found |= {layer.name: value for layer, value in zip(layers, values.tolist(), strict=True) if layer is not None}
    return np.array([found.get(name, np.nan) for name in names])
