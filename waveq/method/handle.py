"""The handle that ``attach`` returns: penalty, step, policy, finalize."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from waveq._kernels.groups import forget_weights
from waveq.functional import sine_penalty
from waveq.method.beta_step import move_betas
from waveq.method.diagnosis import diagnose_bits
from waveq.method.float_road import TOLERANCE, keep_bounds, off_levels, rounded, share_on_levels
from waveq.method.forecast import forecast
from waveq.method.learned_policy import policy_of, require_finite
from waveq.method.penalty import Strengths, penalty
from waveq.method.phases import enter_phase, freeze_bits
from waveq.method.progress import Progress
from waveq.method.relus import relus_left_out
from waveq.method.settings import Settings, WaveLayer
from waveq.method.wave_layer import make_plain
from waveq.method.wave_strength import rebalance_all
from waveq.policy import Policy

__all__ = ["WaveQ"]

_FORGOTTEN_AFTER = 100  # penalties without a step; gradient accumulation rarely goes that far
_BALANCE_EVERY = 10  # steps between two looks at the gradients' lengths


class WaveQ:
    """Learns or keeps the bits of the layers of one model; made by ``attach``.

    Only ``penalty``, ``step``, ``freeze``, ``finalize`` and ``remove`` change anything; all else looks.

    Attributes:
        names: the quantised layers, in ``named_modules()`` order.
        settings: everything that ``attach`` decided.
    """

    def __init__(
        self, model: nn.Module, layers: Mapping[str, WaveLayer], settings: Settings, hooks: Sequence[Any]
    ) -> None:
        self.names = tuple(layers)
        self.settings = settings
        self._model = model
        self._layers = dict(layers)
        self._hooks = list(hooks)
        self._progress = Progress(model, self._all, settings)
        self._pending = 0  # penalties since the last step
        self._left = ""  # how the model was left: "finalised" or "removed"
        self._last_policy: Policy | None = None
        self._last_doubts: list[str] = []  # of weights off their levels, before they were rounded
        enter_phase(self._all, settings, self.phase)  # schedules without a first phase quantise from the first step on
        self._tell_groups()

    @property
    def _all(self) -> list[WaveLayer]:
        return list(self._layers.values())

    # ------------------------------------------------------------------ progress

    @property
    def steps(self) -> int:
        """Optimiser steps taken."""
        return self._progress.step

    @property
    def total_steps(self) -> int | None:
        """Optimiser steps of the whole run, as told to ``attach``."""
        return self.settings.total_steps

    @property
    def phase(self) -> int:
        """1: task loss only, 2: bits are learned, 3: bits are fixed."""
        return self._progress.phase

    @property
    def learning(self) -> bool:
        """Whether any layer's bits are still free."""
        return self._progress.learning

    def strengths(self) -> tuple[float, float]:
        """(lambda_w, lambda_beta) now, the price as the budget has driven it."""
        return self._progress.strengths()

    # ------------------------------------------------------------------ training

    def penalty(self) -> Tensor:
        """The two terms of eq. 2.2 at the present strengths, 0-dim float32; add it to the task loss.

        Call it once for every backward pass: under gradient accumulation it is divided like the task loss.

        Raises:
            RuntimeError: the model was finalised, or the method removed from it.
        """
        self._require_live("penalty")
        self._notice()
        self._pending += torch.is_grad_enabled()  # looking at the value needs no step
        if self._pending == _FORGOTTEN_AFTER:
            warnings.warn(
                f"penalty() was called {_FORGOTTEN_AFTER} times without step(): the schedule stands still and no bits "
                "are learned. Call wq.step() after every optimizer.step().",
                stacklevel=2,
            )
        lambda_w, lambda_beta = self.strengths()
        total = penalty(self._all, self.settings, Strengths(lambda_w, lambda_beta, learning=self.phase == 2))
        # without strengths there is nothing to differentiate: backward() on it alone must work all the same
        return total if total.requires_grad or not torch.is_grad_enabled() else total.requires_grad_()

    def step(self, *, grad_scale: float = 1.0) -> None:
        """Advance by one optimiser step; call it after ``optimizer.step()``.

        In phase 2 every beta takes its own plain SGD step (averaged over ranks where torch.distributed runs); when
        phase 3 begins the bits are frozen.

        Args:
            grad_scale: what the loss was multiplied with before ``backward()``: ``GradScaler.get_scale()``, read before
                ``update()``. Gradients of the weights are taken as the optimizer saw them, unscaled.

        Raises:
            RuntimeError: the model was finalised, or the method removed from it.
        """
        self._require_live("step")
        self._notice()
        self._pending = 0
        self._balance_strengths()
        self._move_betas_and_price(grad_scale)
        self._forget_gradients()
        self._progress.advance()
        enter_phase(self._all, self.settings, self.phase)
        keep_bounds(self._all, self.settings, self.steps)
        self._tell_groups()

    def _balance_strengths(self) -> None:
        """The wave's strength in each layer, measured anew every few steps while there is a wave."""
        step = self.steps
        if self.settings.balance and step % _BALANCE_EVERY == 0 and self.settings.schedule(step)[0] != 0.0:
            rebalance_all(self._all, self.settings)

    def _move_betas_and_price(self, grad_scale: float) -> None:
        """In phase 2: beta's own step, and where a budget is set that of the dual variable."""
        if self.phase != 2:
            return
        progress = self._progress
        pressure = progress.pressure()  # of the bits that the gradients speak of, not of those they lead to
        if move_betas(progress.learned, self.settings, grad_scale, progress.phase2_share):
            progress.raise_price(pressure)

    # ------------------------------------------------------------------ the layers that are rounded together

    def _notice(self) -> None:
        """Go on from what a checkpoint may have put into the model."""
        if self._progress.notice():
            self._tell_groups()

    def _forget_gradients(self) -> None:
        """Free what this step's weights and gradients left."""
        forget_weights()
        for layer in self._layers.values():
            layer.state.end_step()
        self._all[0].state.groups.end_step()

    def _tell_groups(self) -> None:
        """Whether the wave is computed along with the rounding until the next step."""
        strength = self.settings.schedule(self.steps)[0]
        self._all[0].state.groups.wave = self.settings.wave_on != "raw" and strength != 0.0

    # ------------------------------------------------------------------ what has been learned

    def freeze(self) -> None:
        """Fix the bits now: ceil(beta - hysteresis), within the budget where one is set."""
        freeze_bits(self._all, self.settings)

    def bits(self) -> dict[str, int]:
        """Total bits by layer, as they would be frozen now."""
        return {name: layer.total_bits for name, layer in self._layers.items()}

    def betas(self) -> dict[str, float]:
        """Real magnitude bits by layer."""
        return {name: layer.beta for name, layer in self._layers.items()}

    def mean_bits(self) -> float:
        """Mean total bits over layers; while they are learned beta + 1, so that a progress bar moves smoothly."""
        return sum(layer.real_bits for layer in self._layers.values()) / len(self._layers)

    @property
    def relus_left_out(self) -> dict[str, str]:
        """The ReLUs that are left out at present, each with the layer whose input quantiser does its work."""
        return relus_left_out(self._model)

    @torch.no_grad()
    def wave(self) -> dict[str, float]:
        """Mean sin^2 by layer (R0): 0 when all weights sit on their levels, 1/2 when they are spread evenly."""
        self._require_live("wave")
        found = {}
        for name, layer in self._layers.items():
            u = layer.wave_input(self.settings.wave_on)
            found[name] = float(sine_penalty(u, layer.state.wave_beta(), grid=layer.state.grid, order=0))
        return found

    def on_levels(self, tolerance: float = TOLERANCE) -> dict[str, float]:
        """Share of the weights by layer within ``tolerance`` of a level, in units of the distance between levels."""
        self._require_live("on_levels")
        return {name: share_on_levels(layer, tolerance) for name, layer in self._layers.items()}

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """``with wq.rounded(): evaluate(model)`` sees the weights on their grids, whatever training sees.

        On the float road (``forward="float"``) that is the accuracy that ``finalize`` will leave. While bits are
        learned the grid is that of the present beta. Nothing in the model's ``state_dict`` changes; blocks may be
        nested, and an exception ends them.

        Raises:
            RuntimeError: the model was finalised, or the method removed from it.
        """
        self._require_live("rounded")
        with rounded(self._all):
            yield

    def forecast(self) -> str:
        """What the strengths imply, to read before training."""
        self._require_live("forecast")
        return forecast(self._all, self.settings)

    def diagnose(self) -> list[str]:
        """After training: one sentence for each thing that makes the result doubtful."""
        return diagnose_bits(self._progress, self.settings) + self._doubts_of_weights()

    def _doubts_of_weights(self) -> list[str]:
        if self._left:
            return self._last_doubts
        return off_levels(self._all) if self.settings.forward == "float" and not self.learning else []

    def policy(self) -> Policy:
        """The bits with their betas, scales and provenance; after ``finalize`` those it was finalised with.

        Raises:
            RuntimeError: ``remove`` took the method off the model.
            ValueError: a layer's weights hold NaN or infinity.
        """
        if self._last_policy is not None:
            return self._last_policy
        self._require_live("policy")
        return policy_of(self._all, self.settings, self.steps)

    # ------------------------------------------------------------------ leaving

    @torch.no_grad()
    def finalize(self) -> None:
        """Make plain layers whose weights lie on their grids; activation quantisers stay, without state.

        Bits that are still free are frozen first, with a warning. Afterwards the model has its own classes and plain
        ``state_dict`` keys, and of the handle only what was learned is left: ``policy()``, ``bits()``, ``betas()``.

        Raises:
            RuntimeError: the model was finalised before.
            ValueError: a layer's weights hold NaN or infinity.
        """
        self._require_live("finalize")
        require_finite(self._all)
        if self.learning:
            warnings.warn(
                f"finalize() at step {self.steps} of {self.total_steps}: the bits were still being learned and are "
                "fixed as they stand.",
                stacklevel=3,  # no_grad's wrapper lies between
            )
            self.freeze()
        self._last_policy = self.policy()
        self._last_doubts = self._doubts_of_weights()  # nothing can be said of them once they are rounded
        values = {name: layer.state.quantize(layer.weight.detach()) for name, layer in self._layers.items()}
        self._leave(values, "finalised")

    @torch.no_grad()
    def remove(self) -> None:
        """Undo ``attach``: plain layers with the float weights as they are now."""
        self._require_live("remove")
        self._leave({}, "removed")

    def _leave(self, values: Mapping[str, Tensor], how: str) -> None:
        for hook in self._hooks:
            hook.remove()
        for name, layer in self._layers.items():
            make_plain(layer, values.get(name))
        self._progress.leave()
        self._left = how

    def _require_live(self, call: str) -> None:
        if self._left == "finalised":
            raise RuntimeError(
                f"{call}() on a finalised model: its weights are plain and on their grid. To train further, attach it "
                "again; to keep its bits, attach(model, bits=wq.policy())."
            )
        if self._left:
            raise RuntimeError(f"{call}() after remove(): the model is plain again. To train it, attach again.")

    def __repr__(self) -> str:
        how = self._left or f"phase {self.phase}, step {self.steps} of {self.total_steps}"
        return f"WaveQ({len(self.names)} layers, {self.settings.quantizer}, {how}, mean {self.mean_bits():.2f} bits)"
