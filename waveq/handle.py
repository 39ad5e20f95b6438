"""The handle that ``attach`` returns: penalty, step, policy, finalize."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from waveq._kernels.groups import Groups, forget_weights
from waveq.balance import rebalance_all
from waveq.beta_motion import move_betas
from waveq.diagnosis import BetaRecord, diagnose, forecast_sine, forecast_task
from waveq.float_road import TOLERANCE, bound_weights, find_bound, off_levels, rounded, share_on_levels
from waveq.functional import sine_penalty
from waveq.inputs import INPUTS, describe_inputs
from waveq.leaving import make_plain
from waveq.penalty import Strengths, penalty
from waveq.policy import Policy
from waveq.price import next_log_price, pressure, price_factor
from waveq.rectifiers import relus_left_out
from waveq.settings import Settings, WaveLayer

__all__ = ["WaveQ"]

_FORGOTTEN_AFTER = 100  # penalties without a step; gradient accumulation rarely goes that far
_BALANCE_EVERY = 10  # steps between two looks at the gradients' lengths
_PRICE_UNIT = 2.0**-32  # the buffer counts in these: whole numbers survive Module.to(dtype), and all devices have them


class WaveQ:
    """Learns or keeps the bits of the layers of one model; made by ``attach``.

    Attributes:
        names: the quantised layers, in ``named_modules()`` order.
        settings: everything that ``attach`` decided.
    """

    def __init__(
        self, model: nn.Module, layers: Mapping[str, WaveLayer], settings: Settings, hooks: Sequence[Any]
    ) -> None:
        self._model = model
        self._layers = dict(layers)
        self.settings = settings
        self.names = tuple(layers)
        self._learned = [layer for layer in layers.values() if layer.state.learns]
        self._left = ""  # how the model was left: "finalised" or "removed"
        self._last_policy: Policy | None = None
        self._loose: list[str] = []  # what ``diagnose`` said of weights off their levels
        self._pending = 0
        self._hooks = list(hooks)
        self._first_cost = 0.0 if settings.budget is None else settings.budget.value(self._real_bits())
        self._sync()
        self._enter_phase()  # schedules without a first phase quantise from the first step on

    # ------------------------------------------------------------------ progress

    def _sync(self) -> None:
        """Read what a checkpoint may have put into the model."""
        bound = [name for name, layer in self._layers.items() if layer.state.learns and layer not in self._learned]
        if bound:
            raise RuntimeError(
                f"the checkpoint is of a run that learns the bits of {', '.join(bound)}, but they were attached with "
                'preset bits; attach with bits="learn" and the total_steps of that run'
            )
        self._known_step = int(self._model.waveq_step)  # type: ignore[arg-type]
        self._seen = self._mark()
        self._log_price = int(self._model.waveq_dual) * _PRICE_UNIT  # type: ignore[arg-type]
        self._weigh()

    def _mark(self) -> tuple[int, int]:
        """Another one whenever anybody but ``step`` wrote the step; copies of model and handle find out too."""
        step: Any = self._model._buffers["waveq_step"]
        return id(step), step._version

    @property
    def _step(self) -> int:
        self._keep_up()
        return self._known_step

    def _keep_up(self) -> None:
        """Notice what a checkpoint may have put into the model."""
        if self._mark() != self._seen:
            self._sync()

    @property
    def steps(self) -> int:
        """Optimiser steps taken."""
        return self._step

    @property
    def total_steps(self) -> int | None:
        """Optimiser steps of the whole run, as told to ``attach``."""
        return self.settings.total_steps

    @property
    def phase(self) -> int:
        """1: task loss only, 2: bits are learned, 3: bits are fixed."""
        return self.settings.schedule.phase(self._step)

    @property
    def learning(self) -> bool:
        """Whether any layer's bits are still free."""
        return any(layer.state.learns for layer in self._learned)

    def strengths(self) -> tuple[float, float]:
        """(lambda_w, lambda_beta) now, the price as the budget has driven it."""
        lambda_w, lambda_beta = self.settings.schedule(self._step)  # reading the step refreshes the price too
        return lambda_w, lambda_beta * self._price_factor

    # ------------------------------------------------------------------ training

    def penalty(self) -> Tensor:
        """The two terms of eq. 2.2 at the present strengths, 0-dim float32; add it to the task loss.

        Call it once for every backward pass: under gradient accumulation it is divided like the task loss.

        Raises:
            RuntimeError: the model was finalised, or the method removed from it.
        """
        self._require_live("penalty")
        self._pending += torch.is_grad_enabled()  # looking at the value needs no step
        if self._pending == _FORGOTTEN_AFTER:
            warnings.warn(
                f"penalty() was called {_FORGOTTEN_AFTER} times without step(): the schedule stands still and no bits "
                "are learned. Call wq.step() after every optimizer.step().",
                stacklevel=2,
            )
        lambda_w, lambda_beta = self.strengths()
        strengths = Strengths(lambda_w, lambda_beta, learning=self.phase == 2)
        total = penalty(list(self._layers.values()), self.settings, strengths)
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
        self._pending = 0
        if self.settings.balance and self._step % _BALANCE_EVERY == 0 and self.strengths()[0] != 0.0:
            rebalance_all(list(self._layers.values()), self.settings)
        if self.phase == 2 and move_betas(self._learned, self.settings, grad_scale, self._phase2_progress):
            self._ascend()
        forget_weights()
        for layer in self._layers.values():
            layer.state.end_step()
        self._groups.end_step()
        self._known_step += 1
        self._model.waveq_step.fill_(self._known_step)  # type: ignore[operator]
        self._seen = self._mark()
        self._enter_phase()
        self._keep_bounds()
        self._weigh()

    def _ascend(self) -> None:
        """One step of the dual variable, where a budget is set."""
        if self.settings.budget is None:
            return
        units = round(next_log_price(self._log_price, self._push, self._phase2_steps) / _PRICE_UNIT)
        self._log_price = units * _PRICE_UNIT
        self._model.waveq_dual.fill_(units)  # type: ignore[operator]

    def _weigh(self) -> None:
        """What holds until the next step: what the budget makes of the schedule's price, and whether the wave is computed with the rounding."""
        riding = self.settings.wave_on != "raw" and self.settings.schedule(self._known_step)[0] != 0.0
        self._groups.wave = riding
        self._push, self._price_factor = 0.0, 1.0
        if self.settings.budget is None:
            return
        limit, cost = self.settings.budget.limit, self.settings.budget.value(self._real_bits())
        self._push = pressure(cost, start=self._first_cost, limit=limit, progress=self._phase2_progress)
        self._price_factor = price_factor(self._log_price, self._push)

    @property
    def _phase2_progress(self) -> float:
        return min(1.0, max(0.0, (self._step - self.settings.schedule.rise) / self._phase2_steps))

    @property
    def _phase2_steps(self) -> int:
        schedule = self.settings.schedule
        return max(1, (schedule.fall or schedule.rise) - schedule.rise)

    def _keep_bounds(self) -> None:
        """Where the range of the levels is fitted: fix it when its step comes, and keep the weights within it."""
        settings = self.settings
        if settings.bounds_from is None or self._step < settings.bounds_from:
            return
        layers = list(self._layers.values())
        if self._step == settings.bounds_from:
            for layer in layers:
                find_bound(layer)
        bound_weights(layers)

    @property
    def _groups(self) -> Groups:
        return next(iter(self._layers.values())).state.groups

    def _enter_phase(self) -> None:
        phase = self.phase
        if phase == 3 and self.learning:
            self.freeze()
        preset = self.settings.preset
        if self.settings.forward == "float":  # the task moves beta through quantised weights, or not at all
            wanted = phase == 2 and self.learning and preset.task_moves_beta
        elif phase >= preset.quantize_from_phase:
            wanted = True
        else:
            return
        for layer in self._layers.values():
            if layer.state.is_quantized is not wanted:
                layer.state.set_quantized(wanted)

    # ------------------------------------------------------------------ what has been learned

    def freeze(self) -> None:
        """Fix the bits now: ceil(beta - hysteresis), within the budget where one is set."""
        learned = {layer.name: layer.state for layer in self._learned if layer.state.learns}
        if not learned:
            return
        ceiled = {name: int(state.bits()) + 1 for name, state in learned.items()}
        if self.settings.budget is not None:
            fixed = {name: bits for name, bits in self.bits().items() if name not in learned}
            ceiled = self.settings.budget.round(self.betas(), ceiled, fixed)
        for name, state in learned.items():
            state.freeze(ceiled[name])
            if state.snap:  # otherwise the grid of the learned beta stays, and its range with it
                state.quantizer.restart(self._layers[name].weight.detach(), ceiled[name])

    def bits(self) -> dict[str, int]:
        """Total bits by layer, as they would be frozen now."""
        return {name: int(layer.state.bits()) + 1 for name, layer in self._layers.items()}

    def betas(self) -> dict[str, float]:
        """Real magnitude bits by layer."""
        return {name: layer.state.beta.detach().item() for name, layer in self._layers.items()}

    def _real_bits(self) -> dict[str, float]:
        return {
            name: layer.state.beta.detach().item() + 1.0 if layer.state.learns else float(layer.state.bits_now)
            for name, layer in self._layers.items()
        }

    @property
    def relus_left_out(self) -> dict[str, str]:
        """The ReLUs that are left out at present, each with the layer whose input quantiser does its work."""
        return relus_left_out(self._model)

    def mean_bits(self) -> float:
        """Mean total bits over layers; while they are learned beta + 1, so that a progress bar moves smoothly."""
        bits = self._real_bits()
        return sum(bits.values()) / len(bits)

    @torch.no_grad()
    def wave(self) -> dict[str, float]:
        """Mean sin^2 by layer (R0): 0 when all weights sit on their levels, 1/2 when they are spread evenly."""
        self._require_live("wave")
        return {
            name: float(
                sine_penalty(
                    layer.wave_input(self.settings.wave_on), layer.state.wave_beta(), grid=layer.state.grid, order=0
                )
            )
            for name, layer in self._layers.items()
        }

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
        with rounded(list(self._layers.values())):
            yield

    @torch.no_grad()
    def forecast(self) -> str:
        """What the strengths imply, to read before training."""
        self._require_live("forecast")
        preset, schedule = self.settings.preset, self.settings.schedule
        if not self.learning:
            return f"Bits are preset: {', '.join(f'{name} {bits}' for name, bits in self.bits().items())}."
        middle = (schedule.rise + (schedule.fall or schedule.rise)) // 2
        lambda_w, lambda_beta = schedule(middle)
        if self.settings.budget is not None:
            budget = f"{self.settings.budget.objective} <= {self.settings.budget.limit:g}"
            return forecast_task(lambda_beta, budget)
        if not preset.sine_moves_beta:
            return forecast_task(lambda_beta, None)
        spread = {
            layer.name: float(layer.wave_input(self.settings.wave_on).std(correction=0)) for layer in self._learned
        }
        return forecast_sine(
            lambda_w, lambda_beta, self.settings.order, self.settings.beta_range, spread, self.settings.bit_costs
        )

    def diagnose(self) -> list[str]:
        """After training: one sentence for each thing that makes the result doubtful."""
        if self.settings.forward == "float" and not self.learning and not self._left:
            self._loose = off_levels(list(self._layers.values()))
        return self._diagnose_bits() + self._loose

    def _diagnose_bits(self) -> list[str]:
        schedule = self.settings.schedule
        records = {
            layer.name: BetaRecord(
                start=self.settings.preset.beta_init,
                end=layer.state.beta.detach().item(),
                trend=float(layer.state.trend),
                bits=layer.state.bits_now,
            )
            for layer in self._learned
        }
        if not records:
            return []
        budget = self.settings.budget
        used = 0.0 if budget is None else budget.value(self._real_bits()) / budget.limit
        findings = diagnose(
            records, self._phase2_steps, budget_is_used=used > 0.9, task_moves_beta=self.settings.preset.task_moves_beta
        )
        if self.learning:
            findings.append(
                f"the bits are not frozen: step {self._step} of {self.total_steps}, phase {self.phase}; phase 3 begins "
                f"at step {schedule.fall}."
            )
        if budget is not None and not self.learning and used > 1.0 + 1e-6:
            findings.append(
                f"the budget {budget.objective} <= {budget.limit:g} was not met: {used * budget.limit:.4g}."
            )
        return findings

    def policy(self) -> Policy:
        """The bits with their betas, scales and provenance; after ``finalize`` those it was finalised with.

        Raises:
            RuntimeError: ``remove`` took the method off the model.
            ValueError: a layer's weights hold NaN or infinity.
        """
        if self._last_policy is not None:
            return self._last_policy
        self._require_live("policy")
        self._require_finite()
        layers = self._layers.values()
        return Policy(
            self.bits(),
            activation_bits={
                layer.name: layer.state.activation_bits for layer in layers if layer.state.activation_bits is not None
            },
            betas=self.betas(),
            scales={
                layer.name: scale for layer in layers if (scale := layer.state.level_scale(layer.weight)) is not None
            },
            weight_counts={layer.name: layer.weight.numel() for layer in layers},
            skipped=self.settings.skipped,
            quantizer=self.settings.quantizer,
            provenance={
                **self.settings.described,
                "steps": self._step,
                "torch": str(torch.__version__),
                INPUTS: describe_inputs({layer.name: layer.state for layer in layers}),
            },
        )

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
        self._require_finite()
        if self.learning:
            warnings.warn(
                f"finalize() at step {self._step} of {self.total_steps}: the bits were still being learned and are "
                "fixed as they stand.",
                stacklevel=3,  # no_grad's wrapper lies between
            )
            self.freeze()
        self._last_policy = self.policy()
        self.diagnose()  # what it says of the weights, it can say no more once they are rounded
        values = {name: layer.state.quantize(layer.weight.detach()) for name, layer in self._layers.items()}
        self._detach(values, "finalised")

    @torch.no_grad()
    def remove(self) -> None:
        """Undo ``attach``: plain layers with the float weights as they are now."""
        self._require_live("remove")
        self._detach({}, "removed")

    def _detach(self, values: Mapping[str, Tensor], how: str) -> None:
        for hook in self._hooks:
            hook.remove()
        for name, layer in self._layers.items():
            make_plain(layer, values.get(name))
        del self._model.waveq_step, self._model.waveq_dual
        self._left = how

    def _require_live(self, call: str) -> None:
        if self._left == "finalised":
            raise RuntimeError(
                f"{call}() on a finalised model: its weights are plain and on their grid. To train further, attach it "
                "again; to keep its bits, attach(model, bits=wq.policy())."
            )
        if self._left:
            raise RuntimeError(f"{call}() after remove(): the model is plain again. To train it, attach again.")

    def _require_finite(self) -> None:
        for layer in self._layers.values():
            if not bool(torch.isfinite(layer.weight).all()):
                raise ValueError(
                    f"the weights of layer {layer.name!r} hold NaN or infinity: training diverged, or the checkpoint "
                    "is damaged"
                )

    def __repr__(self) -> str:
        how = self._left or f"phase {self.phase}, step {self._step} of {self.total_steps}"
        return f"WaveQ({len(self.names)} layers, {self.settings.quantizer}, {how}, mean {self.mean_bits():.2f} bits)"
