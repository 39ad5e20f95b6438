"""What can be read of a run: nothing here changes anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from waveq.functional import sine_penalty
from waveq.method.coverage import Summary, count_weights, never_ran, summarize
from waveq.method.diagnosis import diagnose_bits
from waveq.method.float_road import TOLERANCE, forecast_rounding, off_levels, share_on_levels
from waveq.method.forecast import forecast
from waveq.method.freezing import forecast_freezing
from waveq.method.guards import Guards
from waveq.method.history import History
from waveq.method.learned_policy import policy_of
from waveq.method.learning_plot import plot_learning
from waveq.method.lost_layers import lost_layers
from waveq.method.operands import InputOperand, operands_of
from waveq.method.progress import Progress
from waveq.method.relus import relus_left_out
from waveq.method.settings import Settings, WaveLayer
from waveq.method.sharding import scales_of
from waveq.policy import Policy

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["View"]


class View:
    """The half of the handle that only looks.

    Attributes:
        names: the quantised layers, in ``named_modules()`` order.
        settings: everything that ``attach`` decided.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, WaveLayer], settings: Settings) -> None:
        self.names = tuple(layers)
        self.settings = settings
        self._model = model
        self._layers = dict(layers)
        self._progress = Progress(model, self._all, settings)
        self._history = History(operands_of(self._all), self._progress)
        self._guards = Guards(model, self._all, settings)
        self._left = ""  # how the model was left: "finalised" or "removed"
        self._last_policy: Policy | None = None
        self._last_summary: Summary | None = None
        self._share = sum(layer.weight.numel() for layer in self._all) / max(1, count_weights(model))
        self._last_doubts: list[str] = []  # of weights off their levels, before they were rounded

    @property
    def _all(self) -> list[WaveLayer]:
        return list(self._layers.values())

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

    def bits(self) -> dict[str, int]:
        """Total bits by layer, as they would be frozen now."""
        return {name: layer.total_bits for name, layer in self._layers.items()}

    def betas(self) -> dict[str, float]:
        """Real magnitude bits by layer."""
        return {name: layer.beta for name, layer in self._layers.items()}

    def input_bits(self) -> dict[str, int]:
        """Bits of the inputs by layer, as they would be frozen now; without those in floating point."""
        found = {layer.name: InputOperand(layer).total_bits for layer in self._all if layer.state.inputs is not None}
        known = {name: layer.state.activation_bits for name, layer in self._layers.items()}
        return {name: found.get(name, bits) for name, bits in known.items() if bits is not None}

    def input_betas(self) -> dict[str, float]:
        """Real bits of the inputs less one by layer, where they are or were learned."""
        return {layer.name: InputOperand(layer).beta for layer in self._all if layer.state.inputs is not None}

    def cost(self) -> float:
        """What the present bits cost, in the unit of the target's limit (a share, or mean bits); 0 without a target.

        Raises:
            RuntimeError: nothing is known of the cost before the first forward pass has been counted.
        """
        return self._progress.cost()

    def mean_bits(self) -> float:
        """Mean total bits over layers; while they are learned beta + 1, so that a progress bar moves smoothly."""
        return sum(layer.real_bits for layer in self._layers.values()) / len(self._layers)

    def clipped_inputs(self) -> dict[str, float]:
        """Share of each layer's first inputs outside a range that does not come from data ("dorefa", "pact")."""
        shares = {name: layer.state.sign.clipped for name, layer in self._layers.items()}
        return {name: share for name, share in shares.items() if share is not None}

    @property
    def relus_left_out(self) -> dict[str, str]:
        """The ReLUs that are left out at present, each with the layer whose input quantiser does its work."""
        return relus_left_out(self._model)

    def scales(self) -> set[nn.Parameter]:
        """Steps and ranges, learned beside the weights: ``fully_shard(model, ignored_params=wq.scales())``."""
        return scales_of(self._all)

    @torch.no_grad()
    def wave(self) -> dict[str, float]:
        """Mean sin^2 by layer (R0): 0 when all weights sit on their levels, 1/2 when they are spread evenly."""
        self._require_live("wave")
        found = {}
        for name, layer in self._layers.items():
            u = layer.wave_input(self.settings.wave_on)
            found[name] = float(sine_penalty(u, layer.state.wave_beta(), grid=layer.state.grid, order=0))
        return found

    def metrics(self) -> dict[str, float]:
        """Where the run stands, as loggers want it: one number a name.

        Returns:
            "phase", "lambda_w", "lambda_beta" (0 outside of phase 2), "mean_bits", "cost" with a target once it is
            known, and for each layer "bits/NAME", "beta/NAME", "wave/NAME" (mean sin^2) and "price/NAME" (of one bit,
            lambda_beta c_i; 0 where its bits are fixed). Inputs whose bits are learned have "input_bits/NAME",
            "input_beta/NAME" and "input_price/NAME".

        Raises:
            RuntimeError: the model was finalised, or the method removed from it.

        Example:
            >>> from waveq import attach
            >>> wq = attach(nn.Sequential(nn.Linear(4, 2)), bits=3)
            >>> {name: value for name, value in wq.metrics().items() if name.endswith("/0")}
            {'bits/0': 3, 'beta/0': 2.0, 'price/0': 0.0, 'wave/0': ...}
        """
        self._require_live("metrics")
        found = self._history.latest() | {"mean_bits": self.mean_bits()}
        if self.settings.budget is not None and self.settings.budget.ready:
            found["cost"] = self.cost()
        return found | {f"wave/{name}": value for name, value in self.wave().items()}

    def on_levels(self, tolerance: float = TOLERANCE) -> dict[str, float]:
        """Share of the weights by layer within ``tolerance`` of a level, in units of the distance between levels."""
        self._require_live("on_levels")
        return {name: share_on_levels(layer, tolerance) for name, layer in self._layers.items()}

    def frozen_weights(self) -> dict[str, float]:
        """Share of the weights by layer that stay on their levels; empty without freezing."""
        self._require_live("frozen_weights")
        return {
            name: layer.state.frozen.share for name, layer in self._layers.items() if layer.state.frozen is not None
        }

    def forecast(self) -> str:
        """What the strengths imply, and how much of the model is quantised, to read before training.

        On the float road also what rounding would do to the weights now, and when they freeze.
        """
        self._require_live("forecast")
        lines = [forecast(self._all, self.settings)]
        if self.settings.forward == "float":
            lines += [forecast_rounding(self._all, self.settings), forecast_freezing(self.settings)]
        return "\n".join([*filter(None, lines), self._totals().totals])

    def summary(self) -> Summary:
        """Every parameter tensor of the model, quantised or not and why; after ``finalize`` as it was before.

        Rows name module, shape, share of all weights, calls, bits, beta, input bits and distance to levels; the text of
        the whole is a table.

        Raises:
            RuntimeError: ``remove`` took the method off the model.
        """
        if self._last_summary is not None:
            return self._last_summary
        self._require_live("summary")
        return summarize(self._model, self._all, self.settings)

    def _totals(self) -> Summary:
        return summarize(self._model, self._all, self.settings, distances=False)

    def diagnose(self, *, task_kept: bool = False) -> list[str]:
        """After training: one sentence for each thing that makes the result doubtful.

        Args:
            task_kept: whether held-out images say that the network is as good as it was in floating point. Then bits at
                their lower limit are enough, and no sign that the price of a bit is too high.
        """
        idle = never_ran(self._all, self.steps)
        return (
            diagnose_bits(self._progress, self.settings, unpriced=self._guards.finding, task_kept=task_kept)
            + idle
            + self._doubts_of_weights()
        )

    def _doubts_of_weights(self) -> list[str]:
        if self._left:
            return self._last_doubts
        if self.learning:
            return []
        return lost_layers(self._all) + (off_levels(self._all) if self.settings.forward == "float" else [])

    def history(self) -> pd.DataFrame:
        """What the run went through, a row for each recorded step and each weight, or inputs whose bits are learned.

        Recorded by itself: every step at first, evenly thinned as the run grows, at most 1,000 steps with the first
        one always among them; the present comes last. It can still be read after ``finalize`` and ``remove``. It does
        not travel in checkpoints: a process that goes on from one begins it anew at that step. Loading an earlier step
        of the same run forgets what came after it. ``rewind`` gives a handle whose history is its own.

        Returns:
            Columns ``step`` (optimiser steps taken), ``phase``, ``layer`` (its name, "conv1 (inputs)" for inputs),
            ``beta`` (real bits less one), ``bits`` (total, as they are or would be fixed), ``wave`` (mean sin^2 as
            ``penalty`` met it; NaN without wave or penalty, where no compiled kernel computed it, for inputs, and for
            the present), ``strength`` (of the wave, lambda_w), ``lambda_beta`` (as a budget has driven it; 0 outside of
            phase 2, where no bit is paid for), ``price`` (of one bit of this layer, lambda_beta c_i of eq. 2.2; 0 where
            its bits are fixed).

        Raises:
            ModuleNotFoundError: pandas is not installed.

        Example:
            >>> from waveq import attach
            >>> net = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
            >>> wq = attach(net, bits=4)
            >>> (net(torch.ones(3, 8)).sum() + wq.penalty()).backward(); wq.step()
            >>> wq.history()[["step", "layer", "beta", "bits"]].values.tolist()
            [[0, '0', 3.0, 4], [0, '2', 3.0, 4], [1, '0', 3.0, 4], [1, '2', 3.0, 4]]
        """
        return self._history.frame()

    def plot(self) -> Figure:
        """The bits over the steps, ``waveq.plot_learning(wq.history())``.

        Raises:
            ModuleNotFoundError: pandas or matplotlib is not installed.
        """
        return plot_learning(self.history())

    def policy(self) -> Policy:
        """The bits with their betas, scales and provenance; after ``finalize`` those it was finalised with.

        Raises:
            RuntimeError: ``remove`` took the method off the model.
            ValueError: a layer's weights hold NaN or infinity.
        """
        if self._last_policy is not None:
            return self._last_policy
        self._require_live("policy")
        return policy_of(self._all, self.settings, self.steps, self._totals())

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
        share = f"{100 * self._share:.1f} % of the weights"
        return (
            f"WaveQ({len(self.names)} layers, {share}, {self.settings.quantizer}, {how}, "
            f"mean {self.mean_bits():.2f} bits)"
        )
