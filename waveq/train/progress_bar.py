"""The progress bar of a stage."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from waveq.integrations.lightning import WaveQCallback
from waveq.train.classifier import Classifier

__all__ = ["Bar"]


class Bar(ProgressBar):
    """Task loss, wave loss and mean bits beside the bar, drawn at most ten times a second."""

    def __init__(self, title: str, total_steps: int, wave: WaveQCallback | None) -> None:
        super().__init__()
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._wave = wave
        self._next = 0.0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            auto_refresh=False,  # no thread beside the training
        )
        self._task = self._progress.add_task(title, total=total_steps, figures="")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar."""
        if self._enabled_here(trainer):
            self._progress.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_unused: Any) -> None:
        """Draw when a tenth of a second has passed."""
        now = time.monotonic()
        if now >= self._next and self._enabled_here(trainer):
            self._next = now + 0.1
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the last state."""
        if self._enabled_here(trainer):
            self._draw(trainer, pl_module)
            self._progress.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._progress.stop()

    def disable(self) -> None:
        """Lightning calls this on all processes but the first; `_enabled_here` already knows."""

    @staticmethod
    def _enabled_here(trainer: Trainer) -> bool:
        return bool(trainer.is_global_zero)

    def figures(self, pl_module: LightningModule) -> str:
        """The numbers beside the bar."""
        assert isinstance(pl_module, Classifier)
        text = f"task {float(pl_module.task_loss):.4f}"
        if self._wave is not None:
            text += f"  wave {float(self._wave.wave_loss):.4f}  bits {self._wave.wq.mean_bits():.2f}"
        return text

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._progress.update(self._task, completed=trainer.global_step, figures=self.figures(pl_module))
        self._progress.refresh()
