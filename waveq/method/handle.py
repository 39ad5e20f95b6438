"""The handle that ``attach`` returns: penalty, step, policy, finalize."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from waveq._kernels.groups import forget_weights
from waveq.method.beta_step import move_betas
from waveq.method.copies import finalize_copy
from waveq.method.float_road import keep_bounds, rounded
from waveq.method.freezing import keep_frozen
from waveq.method.input_signs import agree_on_signs
from waveq.method.learned_policy import require_finite
from waveq.method.penalty import Strengths, penalty
from waveq.method.penalty_gradients import add_penalty_gradients
from waveq.method.phases import enter_phase, freeze_bits
from waveq.method.ran import agree_on_layers
from waveq.method.settings import Settings, WaveLayer
from waveq.method.start import Start
from waveq.method.step_bounds import StepBounds
from waveq.method.surgery import require_same_weights
from waveq.method.task_gradients import TaskGradients
from waveq.method.view import View
from waveq.method.wave_layer import make_plain

__all__ = ["WaveQ"]

_FORGOTTEN_AFTER = 100  # penalties without a step; gradient accumulation rarely goes that far


class WaveQ(View):
    """Learns or keeps the bits of the layers of one model; made by ``attach``.

    ``penalty``, ``step``, ``freeze``, ``finalize`` and ``remove`` change the run, ``rounded`` what is seen meanwhile,
    ``finalize_copy`` a copy of the model; everything else is a look (``View``) and changes nothing.

    Attributes:
        names: the quantised layers, in ``named_modules()`` order.
        settings: everything that ``attach`` decided.
        start: the float weights from before, where bits are learned.
    """

    def __init__(
        self, model: nn.Module, layers: Mapping[str, WaveLayer], settings: Settings, hooks: Sequence[Any]
    ) -> None:
        super().__init__(model, layers, settings)
        self.start = Start(self) if self.learning else None
        bounds = StepBounds(self._all)
        found = [self._guards.probe, self._guards.shards, bounds]
        self._hooks = [*hooks, *found, *([] if self.start is None else [self.start])]
        self._pending = 0  # penalties since the last step
        self._gradients = TaskGradients(self._all, settings)
        enter_phase(self._all, settings, self.phase)  # schedules without a first phase quantise from the first step on
        self._tell_groups()
        self._gradients.plan(self.steps)

    # ------------------------------------------------------------------ training

    def penalty(self) -> Tensor:
        """The two terms of eq. 2.2 at the present strengths, 0-dim float32; add it to the task loss.

        Call it once for every backward pass: under gradient accumulation it is divided like the task loss.

        Raises:
            RuntimeError: the model was finalised, or the method removed from it.
            TypeError: weights that were sharded since ``attach`` by other means than ``fully_shard``, or with options
                that need whole weights.
        """
        self._require_live("penalty")
        self._guards.begin()
        self._notice()
        self._pending += torch.is_grad_enabled()  # looking at the value needs no step
        if self._pending == _FORGOTTEN_AFTER:
            warnings.warn(
                f"penalty() was called {_FORGOTTEN_AFTER} times without step(): the schedule stands still and no bits "
                "are learned. Call wq.step() after every optimizer.step().",
                stacklevel=2,
            )
        lambda_w, lambda_beta = self.strengths()
        learning = self.phase == 2
        costs = self._progress.bit_costs() if learning else {}
        strengths = Strengths(lambda_w, lambda_beta, learning, costs)
        total = penalty(self._all, self.settings, strengths, self._history.waves(self.steps))
        # without strengths there is nothing to differentiate: backward() on it alone must work all the same
        total = total if total.requires_grad or not torch.is_grad_enabled() else total.requires_grad_()
        self._guards.follow(total)
        return total

    def backward_penalty(self, *, grad_scale: float = 1.0) -> Tensor:
        """Add the penalty's gradients to those that the task's backward passes have left.

        For trainers whose loss nobody can add to. Call it once for every optimiser step, instead of ``penalty()`` in
        the loss: after the last backward pass, and after gradients were unscaled and clipped.

        Args:
            grad_scale: what a GradScaler has multiplied the loss with. The gradients of the weights must be unscaled
                by now (``GradScaler.unscale_``); those of the betas, which are in no optimizer, are unscaled here, so
                that ``step()`` needs no ``grad_scale``.

        Returns:
            The penalty, constant, 0-dim.

        Raises:
            RuntimeError: the model was finalised, or the method removed from it.

        Example:
            >>> net = nn.Sequential(nn.Linear(4, 2))
            >>> from waveq import attach
            >>> wq = attach(net, bits=3)
            >>> net(torch.ones(1, 4)).sum().backward()
            >>> wq.backward_penalty().requires_grad; wq.step()
            False
        """
        with torch.enable_grad():
            total = self.penalty()
        add_penalty_gradients(self._all, total, grad_scale)
        return total.detach()

    def step(self, *, grad_scale: float = 1.0) -> None:
        """Advance by one optimiser step; call it after ``optimizer.step()``.

        In phase 2 every beta takes its own plain SGD step (averaged over ranks where torch.distributed runs); when
        phase 3 begins the bits are frozen. On the float road more weights freeze on their levels, and those that are
        frozen are put back where the optimizer has moved them.

        Args:
            grad_scale: what the loss was multiplied with before ``backward()``: ``GradScaler.get_scale()``, read before
                ``update()``. Gradients of the weights are taken as the optimizer saw them, unscaled.

        Raises:
            RuntimeError: the model was finalised, or the method removed from it.
        """
        self._require_live("step")
        self._notice()
        self._pending = 0
        layers, settings, progress = self._all, self.settings, self._progress
        self._guards.look(progress.step)
        self._gradients.look()  # and measure the wave's strength by them
        wanted = self.learning or settings.schedule(progress.step)[0] != 0.0
        self._guards.judge_penalty(self._gradients, needed=wanted)
        progress.settle_costs()
        if progress.phase == 2:
            if settings.budget is not None:
                agree_on_layers(layers)
            pressure = progress.pressure()  # of the bits that the gradients speak of, not of those they lead to
            costs = progress.bit_costs()
            self._history.note(progress.step, pressure, costs)
            moved = move_betas(progress.learned, settings, grad_scale, progress.phase2_share, costs)
            if moved is not None:
                self._history.follow(moved)
                progress.move_price(pressure)
        else:
            self._history.note(progress.step, 0.0, {})  # no bit is paid for
        self._forget_gradients()
        progress.advance()
        if enter_phase(layers, settings, progress.phase):  # the bits freeze when phase 3 begins
            self._history.look_again()
        keep_bounds(layers, settings, progress.step)
        keep_frozen(layers, settings, progress.step)
        self._gradients.plan(progress.step)
        agree_on_signs([layer.state for layer in layers], progress.step)
        self._tell_groups()
        self._guards.remember()

    def freeze(self) -> None:
        """Fix the bits now: ceil(beta - hysteresis), within the budget where one is set."""
        if freeze_bits(self._all, self.settings):
            self._history.look_again()

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

    def forget_weights(self) -> None:
        """Round all weights anew at the next read.

        Evaluation keeps rounded weights while nothing changes. Steps of optimizers, writes that torch counts, tensors
        that were put in others' place, and averaged weights swapped in through ``.data`` are noticed; a change of
        single weights through ``.data`` in a layer of more than 1024 may not be: call this after one.
        """
        forget_weights()

    # ------------------------------------------------------------------ the layers that are rounded together

    def _notice(self) -> None:
        """Go on from what a checkpoint may have put into the model."""
        if self._progress.notice():
            self._history.go_on(self.steps)
            self._tell_groups()
            self._gradients.plan(self.steps)

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
        self._guards.shards.require_whole("finalize")
        self._guards.last_look()
        require_finite(self._all)
        if self.learning:
            warnings.warn(
                f"finalize() at step {self.steps} of {self.total_steps}: the bits were still being learned and are "
                "fixed as they stand.",
                stacklevel=3,  # no_grad's wrapper lies between
            )
            self.freeze()
        self._last_summary = self.summary()
        self._last_policy = self.policy()
        self._last_doubts = self._doubts_of_weights()  # nothing can be said of them once they are rounded
        values = {name: layer.state.quantize(layer.weight.detach()) for name, layer in self._layers.items()}
        with rounded(self._all):
            require_same_weights(self._model, self._all, values)
        self._leave(values, "finalised")

    def finalize_copy(self, copied: nn.Module) -> None:
        """Make a plain network of a copy of the model: its own weights, averaged ones say, on the grids of this run.

        The model and its run stay as they are. Bits, and signs and levels of inputs, are the run's; weights and learned
        scales are the copy's, and batch norm's statistics too (``waveq.reestimate_batch_norm``).

        Args:
            copied: made after ``attach`` by ``copy.deepcopy``, or an AveragedModel or another wrapper that holds one as
                ``module``; changed in place.

        Raises:
            RuntimeError: bits are still being learned; the model was finalised, or the method removed from it.
            ValueError: no such copy, or weights that hold NaN or infinity; the copy is then as it was.

        Example:
            >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
            >>> from waveq import attach
            >>> wq = attach(net, bits=2)
            >>> averaged = torch.optim.swa_utils.AveragedModel(net)
            >>> averaged.update_parameters(net); wq.finalize_copy(averaged)
            >>> averaged.module[0].weight.unique().numel() <= 4
            True
        """
        self._require_live("finalize_copy")
        self._guards.shards.require_whole("finalize_copy")
        if self.learning:
            raise RuntimeError(
                f"finalize_copy() at step {self.steps} of {self.total_steps}: the bits are still being learned; "
                "wq.freeze() fixes them as they stand"
            )
        finalize_copy(self._model, self._layers, self._hooks, copied)

    @torch.no_grad()
    def remove(self) -> None:
        """Undo ``attach``: plain layers with the float weights as they are now."""
        self._require_live("remove")
        self._guards.shards.require_whole("remove")
        self._leave({}, "removed")

    def _leave(self, values: Mapping[str, Tensor], how: str) -> None:
        self._gradients.leave()
        for name, layer in self._layers.items():
            make_plain(layer, values.get(name))
        for hook in self._hooks:
            hook.remove()
        self._progress.leave()
        self._left = how
