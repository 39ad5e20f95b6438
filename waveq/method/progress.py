"""Where a run stands: its step, its phase, and what a budget makes of the price of a bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from waveq.method.checkpoint import ROOT_SEAL, ROOT_STATE, drop_root_state
from waveq.method.operands import Operand, operands_of, preset_inputs, real_bits
from waveq.method.price import next_dual, price_factor
from waveq.method.price import pressure as pressure_of
from waveq.method.seal import seal_of, warn_averaged, was_averaged
from waveq.method.settings import Settings, WaveLayer

__all__ = ["Progress"]

_DUAL_UNIT = 2.0**-32  # the buffer counts in these: whole numbers survive Module.to(dtype), and all devices have them
_STEP, _DUAL = ROOT_STATE


class Progress:
    """Step and dual variable as the model's buffers hold them, and what follows from them.

    Looking changes nothing. The two numbers are kept beside the buffers, which on a GPU have to be waited for, by
    ``notice``, ``move_price`` and ``advance`` alone; where somebody else has written the buffers since (a checkpoint, a
    moving average of models, a copy of model and handle), a look reads them.
    """

    def __init__(self, model: nn.Module, layers: Sequence[WaveLayer], settings: Settings) -> None:
        self._model: nn.Module | None = model
        self._layers = tuple(layers)
        self._settings = settings
        self._operands = tuple(operands_of(layers))
        self._learned = tuple(operand for operand in self._operands if operand.state.learns)
        self._first_bits = self._real_bits(layers)
        self._seal = seal_of(0, 0)
        self._kept, self._seen = self._read(), self._mark()

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        return self._look()[0]

    @property
    def phase(self) -> int:
        """1, 2 or 3."""
        return self._settings.schedule.phase(self.step)

    @property
    def learned(self) -> tuple[Operand, ...]:
        """The weights and inputs whose bits were free when the run began."""
        return self._learned

    @property
    def running(self) -> tuple[WaveLayer, ...]:
        """The layers that ran so far: what a budget is counted over; all of them before the first forward pass."""
        return tuple(layer for layer in self._layers if layer.state.ran) or self._layers

    @property
    def learning(self) -> bool:
        """Whether any bits are still free."""
        return any(operand.state.learns for operand in self._learned)

    @property
    def phase2_steps(self) -> int:
        """The length of phase 2, 1 at least."""
        schedule = self._settings.schedule
        return max(1, (schedule.fall or schedule.rise) - schedule.rise)

    @property
    def phase2_share(self) -> float:
        """How much of phase 2 is over, 0 to 1."""
        return min(1.0, max(0.0, (self.step - self._settings.schedule.rise) / self.phase2_steps))

    def strengths(self, pressure: float | None = None) -> tuple[float, float]:
        """(lambda_w, lambda_beta) now, the price as the budget has driven it.

        Args:
            pressure: where it is known already.
        """
        step, dual = self._look()
        lambda_w, lambda_beta = self._settings.schedule(step)
        if self._settings.budget is None:
            return lambda_w, lambda_beta
        return lambda_w, lambda_beta * price_factor(dual, self.pressure() if pressure is None else pressure)

    def bit_costs(self) -> Mapping[str, float]:
        """What one bit of each weight and input costs now, with mean 1 over all that are controlled."""
        pairs = self._settings.pairs
        return self._settings.bit_costs if pairs is None else pairs.relative(self._real_bits(self._layers))

    def preset_bits(self) -> dict[str, int]:
        """Total bits of the weights and, where a budget counts them, inputs that were never learned."""
        known = {each.name: each.state.bits_now for each in self._operands if each not in self._learned}
        budget = self._settings.budget
        return known | (preset_inputs(self._layers) if budget is not None and budget.counts_inputs else {})

    @property
    def dual(self) -> float:
        """The logarithm of how far a budget has moved the price."""
        return self._look()[1]

    def cost(self) -> float:
        """What the present bits cost, in the unit of the budget's limit; 0 without a budget."""
        if self._settings.budget is None:
            return 0.0
        return self._settings.budget.value(self._real_bits(self.running))

    def pressure(self) -> float:
        """How far the cost lies from the ramp that leads to the budget, -1 to 1; 0 without a budget."""
        budget = self._settings.budget
        if budget is None or not budget.ready:
            return 0.0
        start = budget.value(self._first_bits)
        return pressure_of(self.cost(), start=start, limit=budget.limit, progress=self.phase2_share)

    def _real_bits(self, layers: Sequence[WaveLayer]) -> dict[str, float]:
        """Real-valued bits by operand; of inputs too where costs depend on both."""
        if self._settings.pairs is None:
            return real_bits(layers)
        return real_bits(operands_of(layers)) | preset_inputs(layers)

    # ------------------------------------------------------------------ what changes it

    def notice(self) -> bool:
        """Keep what somebody else wrote into the buffers; whether there was anything.

        Raises:
            RuntimeError: the checkpoint learns bits that are preset here.
        """
        if self._mark() == self._seen:
            return False
        if self._averaged():
            step, dual = self._kept
            warn_averaged(f"step {int(self._buffer(_STEP))}", f"step {step}")
            self._buffer(_STEP).fill_(step)
            self._buffer(_DUAL).fill_(round(dual / _DUAL_UNIT))
        self._kept = self._look()
        self._put_seal()
        self._seen = self._mark()
        return True

    def settle_costs(self) -> None:
        """Keep what was counted for the budget up to the first step.

        Raises:
            ValueError: the budget is out of reach.
        """
        counter = self._settings.counter
        if counter is not None and counter.settle() and self._settings.budget is not None:
            least = {operand.name: 0 if operand.state.learns else operand.total_bits for operand in self._operands}
            self._settings.budget.check_reach(least | preset_inputs(self._layers))

    def move_price(self, pressure: float) -> None:
        """One step of the dual variable, up where ``pressure`` is positive, where a budget is set."""
        if self._settings.budget is None:
            return
        step, dual = self._look()
        units = round(next_dual(dual, pressure, self.phase2_steps) / _DUAL_UNIT)
        self._buffer(_DUAL).fill_(units)
        self._kept = step, units * _DUAL_UNIT

    def advance(self) -> None:
        """One optimiser step is done."""
        step, dual = self._look()
        self._buffer(_STEP).fill_(step + 1)
        self._kept, self._seen = (step + 1, dual), self._mark()
        self._put_seal()

    def leave(self) -> None:
        """Take the buffers off the model; what they said last can still be looked at."""
        assert self._model is not None
        self._kept = self._look()
        drop_root_state(self._model)
        self._model, self._seen = None, None

    # ------------------------------------------------------------------ the buffers

    def _buffer(self, name: str) -> Tensor:
        assert self._model is not None
        found = self._model._buffers[name]
        assert found is not None
        return found

    def _mark(self) -> tuple[int, int] | None:
        """Another one whenever anybody but ``advance`` wrote the step; copies of model and handle find out too."""
        if self._model is None:
            return None
        step: Any = self._buffer(_STEP)
        return id(step), step._version

    def _look(self) -> tuple[int, float]:
        """Step and dual variable."""
        if self._mark() == self._seen:
            return self._kept
        foreign = [each.name for each in self._operands if each.state.learns and each not in self._learned]
        if foreign:
            raise RuntimeError(
                f"the checkpoint is of a run that learns the bits of {', '.join(foreign)}, but they were attached with "
                'preset bits; attach with bits="learn" and the total_steps of that run'
            )
        return self._kept if self._averaged() else self._read()

    def _averaged(self) -> bool:
        """Whether what somebody wrote is no state of any run; a look then holds to the last that was."""
        return was_averaged(self._buffer(ROOT_SEAL), self._seal, int(self._buffer(_STEP)), int(self._buffer(_DUAL)))

    def _put_seal(self) -> None:
        step, dual = self._kept
        self._seal = seal_of(step, round(dual / _DUAL_UNIT))
        self._buffer(ROOT_SEAL).fill_(self._seal)

    def _read(self) -> tuple[int, float]:
        return int(self._buffer(_STEP)), int(self._buffer(_DUAL)) * _DUAL_UNIT
