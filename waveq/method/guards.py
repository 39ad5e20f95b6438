"""What is done to a model or forgotten in a loop while a run goes on: looked for at every step, and said by name."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor, nn

from waveq.method.formulas import FormulaProbe
from waveq.method.penalty_watch import PenaltyWatch
from waveq.method.settings import Settings, WaveLayer
from waveq.method.sharding import Shards
from waveq.method.surgery import Parents, UnmovedScales, require_layers, watch, written_over
from waveq.method.task_gradients import TaskGradients

__all__ = ["Guards"]

_LOOK_EVERY = 50  # steps between two looks for what was done to the model since attach


class Guards:
    """All of a run's looks at what it does not own.

    Attributes:
        probe: a hook that finds weights read through other formulas; removed with the run's other hooks.
        shards: whether FSDP2 has sharded the weights; a hook likewise.
    """

    def __init__(self, model: nn.Module, layers: Sequence[WaveLayer], settings: Settings) -> None:
        self._model, self._layers, self._settings = model, layers, settings
        self.shards, self._begun = Shards(model, layers, settings), False  # whose refusals come before the probe begins
        self.probe, self._scales = FormulaProbe(model, layers), UnmovedScales(layers)
        self._parents = Parents(model, layers)
        self._watching = True  # from the start, when initialisations come too late
        watch(layers, on=True)
        self._penalty = PenaltyWatch(self._versions())

    @property
    def finding(self) -> str:
        """What to say of the bits if no backward pass goes through the penalty; empty while there is nothing to say."""
        return self._penalty.finding

    def begin(self) -> None:
        """Before a penalty: whether weights were sharded meanwhile is seen at the first one."""
        if not self._begun:
            self.shards.look()
            self._begun = True
        if self.shards.sharded:
            self.shards.part()

    def follow(self, penalty: Tensor) -> None:
        """A penalty has been handed out."""
        self._penalty.follow(penalty)

    def look(self, step: int) -> None:
        """At the beginning of a step: layers that are gone are an error, the rest is warned of; most looks are rare."""
        self.probe.remove()
        self.shards.remove()
        self._scales.look()
        found = self._scales.unmoved() + self.probe.unseen()
        if step % _LOOK_EVERY == 0:
            require_layers(self._model, self._layers, self._settings)
            self.shards.look()
            found += self._parents.gone(self._model)
        if self._watching:
            found += written_over(self._layers)
        self._watching = (step + 1) % _LOOK_EVERY == 0
        watch(self._layers, on=self._watching)
        for sentence in found:
            warnings.warn(sentence, stacklevel=3)

    def judge_penalty(self, gradients: TaskGradients, *, needed: bool) -> None:
        """Say so where the penalty is never called, or no backward pass goes through it."""
        if gradients.missing or not self._penalty.works:
            self._penalty.judge(
                versions=self._versions(), trained=gradients.stepped, needed=needed, missing=gradients.missing
            )
            gradients.wonders = not self._penalty.works

    def remember(self) -> None:
        """At the end of a step."""
        self._scales.remember()

    def last_look(self) -> None:
        """Before the model is left."""
        require_layers(self._model, self._layers, self._settings)
        self.shards.look()
        found = self._scales.unmoved(at_end=True) + self.probe.unseen() + self._parents.gone(self._model)
        for sentence in found + written_over(self._layers):
            warnings.warn(sentence, stacklevel=4)  # no_grad's wrapper lies between

    def _versions(self) -> int:
        """Another number after every step of an optimizer that writes in place, as all of torch's do."""
        return sum(layer.weight._version for layer in self._layers)
