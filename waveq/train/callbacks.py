"""What happens around Lightning's steps: rates and random numbers, rows of metrics, checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from waveq.integrations.lightning import WaveQCallback
from waveq.train.batches import EpochLoader
from waveq.train.checkpoint_files import LOADER_STATE
from waveq.train.classifier import Classifier, measure, seed_step
from waveq.train.stopping import StopRequested

__all__ = ["Checkpoints", "LastStep", "Recorder", "StepDiscipline", "WaveQCallback"]


class StepDiscipline(Callback):
    """Makes rate and random numbers of a step functions of the step alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.rate = 0.0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, _batch: object, batch_index: int
    ) -> None:
        """Before each forward pass."""
        assert isinstance(pl_module, Classifier)
        self.rate = pl_module.set_rate(trainer.global_step)
        seed_step(self._seed, trainer.current_epoch, batch_index, trainer.global_rank)


class LastStep(Callback):
    """Ends a stage within an epoch. Lightning's own `max_steps` would, but then resumes at an epoch's end otherwise."""

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps

    def on_train_batch_end(self, trainer: Trainer, *_unused: object) -> None:
        """The epoch ends with this batch."""
        if trainer.global_step >= self._total_steps:
            trainer.should_stop = True


class Recorder(Callback):
    """A row of metrics every few steps, and one with the validation accuracy at the end of every epoch."""

    def __init__(
        self,
        discipline: StepDiscipline,
        wave: WaveQCallback | None,
        validation: Iterable[tuple[Tensor, Tensor]],
        *,
        every: int,
    ) -> None:
        self._discipline = discipline
        self._wave = wave
        self._validation = validation
        self._every = every
        self._last_row = 0
        self.last: dict[str, float] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The row of the step that a checkpoint was written at is in the file already."""
        self._last_row = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_unused: object) -> None:
        """Write a row when one is due."""
        step = trainer.global_step
        if step % self._every == 0 and step != self._last_row:
            self._last_row = step
            self._write(trainer, self._row(trainer, pl_module))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the held-out images."""
        assert isinstance(pl_module, Classifier)
        self.last = self.accuracy(pl_module.network)
        self._write(trainer, self._row(trainer, pl_module) | self.last)

    def accuracy(self, network: nn.Module) -> dict[str, float]:
        """On the held-out images, of the weights on their grids; on the float road of those under training too."""
        if self._wave is None:
            return _named("validation", measure(network, self._validation))
        wq = self._wave.wq
        with wq.rounded():
            found = _named("validation", measure(network, self._validation))
        if wq.settings.forward == "float":
            found |= _named("unrounded_validation", measure(network, self._validation))
        return found

    def _row(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        assert isinstance(pl_module, Classifier)
        row = {
            "epoch": float(trainer.current_epoch),
            "rate": self._discipline.rate,
            "task_loss": float(pl_module.task_loss),
        }
        if self._wave is None:
            return row
        return row | {"wave_loss": float(self._wave.wave_loss)} | self._wave.wq.metrics()

    @staticmethod
    def _write(trainer: Trainer, row: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.global_step)


def _named(prefix: str, found: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{key}": value for key, value in found.items()}


class Checkpoints(Callback):
    """Writes `last.ckpt` after whole optimizer steps: every so many seconds, and when asked to stop.

    With several processes all of them agree on the step.
    """

    def __init__(self, path: Path, *, seconds: float, stop: Callable[[], bool], check: Callable[[int], None]) -> None:
        self._path = path
        self._check = check  # raises where the weights after that step are not worth keeping
        self._seconds = seconds
        self._stop = stop
        self._last_time = time.monotonic()
        self._seen_steps = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting where the checkpoint left off."""
        self._seen_steps = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, _outputs: object, _batch: object, batch_index: int
    ) -> None:
        """Within an epoch; what is due at its last batch waits for `on_train_epoch_end`."""
        last = batch_index + 1 == trainer.num_training_batches or trainer.should_stop
        if trainer.global_step == self._seen_steps or last:
            return
        self._seen_steps = trainer.global_step
        self._save_when_due(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """After the last step of an epoch."""
        self._seen_steps = trainer.global_step
        self._save_when_due(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the place in the data."""
        loader = trainer.train_dataloader
        assert isinstance(loader, EpochLoader)
        checkpoint[LOADER_STATE] = loader.state_dict()

    def _save_when_due(self, trainer: Trainer) -> None:
        stop, due = self._agreed(trainer)
        if stop or due:
            self._save(trainer)
        if stop:
            raise StopRequested

    def _agreed(self, trainer: Trainer) -> tuple[bool, bool]:
        due = time.monotonic() - self._last_time > self._seconds
        if trainer.world_size == 1:
            return self._stop(), due
        # two flags, the largest of all processes
        flags = torch.tensor([float(self._stop()), float(due)], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
        return bool(flags[0]), bool(flags[1])

    def _save(self, trainer: Trainer) -> None:
        self._check(trainer.global_step)
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self._path, weights_only=False)  # all gather, the first writes: `CheckpointFiles`
        self._last_time = time.monotonic()
