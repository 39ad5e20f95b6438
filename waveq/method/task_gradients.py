"""The wave's balance is measured right after the optimizer's step, before anybody clears the gradients."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from waveq.method.settings import Settings, WaveLayer
from waveq.method.wave_strength import UNMEASURED, rebalance_all

__all__ = ["TaskGradients"]

_EVERY = 10  # steps between two looks at the gradients' lengths


class TaskGradients:
    """When the gradients of one model's layers are looked at, and by whom.

    Any of torch's optimizers that has stepped over some of the weights brings their gradients as it saw them, so that
    ``zero_grad()`` may come before or after ``WaveQ.step``. For other optimizers ``WaveQ.step`` itself looks.

    Attributes:
        wonders: whether anybody wants to know if an optimizer steps over the weights.
        stepped: whether one has since the last step, as far as anybody wanted to know.
    """

    def __init__(self, layers: Sequence[WaveLayer], settings: Settings) -> None:
        self._layers, self._settings = tuple(layers), settings
        self._due = self._measured = False
        self._done: set[str] = set()
        self.wonders, self.stepped = True, False
        _watching.add(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)  # a copy listens too
        _watching.add(self)

    def plan(self, step: int) -> None:
        """Decide whether the optimizer's next step is looked at; ``step`` is the number of steps taken."""
        self._done.clear()
        self._due = self.stepped = False
        if not self._settings.balance or (now := self._settings.schedule(step)[0]) == 0.0 == self._after(step):
            return
        if not self._measured:  # also just before the wave begins, so that it begins with its balance
            self._measured = any(float(layer.state.strength) != UNMEASURED for layer in self._layers)
        self._due = not self._measured or (step % _EVERY == 0 and now != 0.0)

    def listen(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped."""
        if not (self._due or self.wonders):
            return
        moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
        ours = [layer for layer in self._layers if id(layer.weight) in moved]
        self.stepped = self.stepped or bool(ours)
        if self._due:
            self._look(ours)

    def look(self) -> None:
        """``WaveQ.step`` looks at what no optimizer has brought."""
        if self._due:
            self._look(self._layers)

    def leave(self) -> None:
        """The method is taken off the model: there is nothing to listen to any more."""
        self._due = self.wonders = False
        _watching.discard(self)

    @property
    def missing(self) -> bool:
        """Whether gradients were to be looked at, and there were none."""
        return self._due and not self._done

    def _after(self, step: int) -> float:
        return self._settings.schedule(step + 1)[0]

    def _look(self, layers: Sequence[WaveLayer]) -> None:
        fresh = [layer for layer in layers if layer.name not in self._done and layer.weight.grad is not None]
        if fresh:
            rebalance_all(fresh, self._settings)
            self._done.update(layer.name for layer in fresh)


_watching: weakref.WeakSet[TaskGradients] = weakref.WeakSet()


def _after_step(optimizer: Optimizer, *_unused: Any) -> None:
    for gradients in list(_watching):
        gradients.listen(optimizer)


register_optimizer_step_post_hook(_after_step)
