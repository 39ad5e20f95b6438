"""One stage of training through Lightning: from the weights it is given, or from its own checkpoint, to the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from torch import nn

from waveq.integrations.lightning import WaveQCallback
from waveq.train.batches import EpochLoader
from waveq.train.callbacks import Checkpoints, LastStep, Recorder, StepDiscipline
from waveq.train.checkpoint_files import LOADER_STATE, CheckpointFiles, read_newest
from waveq.train.classifier import Classifier
from waveq.train.config import TrainConfig
from waveq.train.divergence import StopsWhenDiverged, require_numbers
from waveq.train.logs import MetricsCsv, quiet_lightning
from waveq.train.progress_bar import Bar
from waveq.train.ranks import ALONE, Ranks
from waveq.train.recomputing import recomputed
from waveq.train.run_folder import StageFolder
from waveq.zoo.datasets.seeds import mixed_seed

if TYPE_CHECKING:
    from waveq.method.handle import WaveQ
    from waveq.zoo.datasets.data import Dataset

__all__ = ["Stage", "make_loader", "on_cpu", "steps_per_epoch"]

_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "64-true"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "64": "64-true",
}


def on_cpu(config: TrainConfig) -> bool:
    """Whether a run trains on the CPU."""
    return config.accelerator == "cpu" or not torch.cuda.is_available()


def make_loader(config: TrainConfig, dataset: Dataset, name: str, ranks: Ranks = ALONE) -> EpochLoader:
    """A process's share of the training data in an order of the stage's own; one of one process has all."""
    return EpochLoader(
        dataset.train,
        batch_size=config.batch_size,
        seed=mixed_seed(config.seed, *name.encode()),
        augmentation=dataset.augmentation if config.augment else None,
        rank=ranks.rank,
        world_size=ranks.size,
    )


def steps_per_epoch(config: TrainConfig, loader: EpochLoader) -> int:
    """Optimizer steps of an epoch; what is left of an incomplete accumulation is a step too."""
    return -(-len(loader) // config.accumulate)


def _ddp(processes: int) -> DDPStrategy:
    """DDP whose sums are rounded alike in every step.

    It puts gradients into buckets anew after the first step, which changes the order in which more than two processes
    add them up: a run that goes on from a checkpoint would differ in the last bits. With this flag it leaves them.
    """
    return DDPStrategy(find_unused_parameters=processes > 2)


def _leave_signals() -> None:
    """They are noted by ``stopping``."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage that is ready to run."""

    name: str
    folder: StageFolder
    config: TrainConfig
    dataset: Dataset
    loader: EpochLoader
    total_steps: int
    """Optimizer steps of the whole stage; its last epoch may be a part of one."""
    rate: float
    stop: Callable[[], bool]
    """Whether the run was asked to stop."""
    ranks: Ranks = ALONE
    teacher: nn.Module | None = None
    """A float network in evaluation mode, whose say is part of the loss."""

    def run(self, network: nn.Module, wq: WaveQ | None = None) -> dict[str, float]:
        """Train the network in place, from the stage's checkpoint where there is one.

        Returns:
            The last validation loss and accuracy.

        Raises:
            StopRequested: the checkpoint is written; another `run` with the same arguments goes on.
            Diverged: a loss or a weight is NaN or infinite; the checkpoints are of before.
            ValueError: the newest checkpoint is damaged.
        """
        wave = None if wq is None else WaveQCallback(wq, log_every=0)  # rows are the recorder's
        module = Classifier(network, self.config, rate=self.rate, total_steps=self.total_steps, teacher=self.teacher)
        checkpoint, from_step = self._go_on_from()
        discipline = StepDiscipline(mixed_seed(self.config.seed, *self.name.encode()))
        validation = self.dataset.loader("validation")
        recorder = Recorder(discipline, wave, validation, every=self.config.log_every)
        watch = StopsWhenDiverged(self.name, every=self.config.log_every)  # after the wave, which adds to the loss
        saver = Checkpoints(
            self.folder.checkpoint,
            seconds=self.config.checkpoint_seconds,
            stop=self.stop,
            check=lambda step: require_numbers(network, stage=self.name, step=step),
        )
        callbacks = [discipline, *([wave] if wave else []), watch, LastStep(self.total_steps), recorder, saver]
        if self.config.progress:
            callbacks.append(Bar(self.name, self.total_steps, wave))
        recomputing = recomputed(network) if self.config.checkpoint_activations else nullcontext()
        with quiet_lightning(), recomputing:
            trainer = self._trainer(callbacks, self._loggers(wq, from_step))
            trainer.fit(module, self.loader, ckpt_path=checkpoint, weights_only=True)
        require_numbers(network, stage=self.name, step=self.total_steps)
        return recorder.last or recorder.accuracy(network)  # a checkpoint of the last step leaves nothing to train

    def _go_on_from(self) -> tuple[Path | None, int]:
        """Put the loader where the newest checkpoint left it; its path and optimizer steps, None and 0 without one.

        Lightning restores the loader itself within an epoch, but not when the checkpoint is of the end of one.
        """
        newest = read_newest(self.folder)
        if newest is None:
            return None, 0
        path, content = newest
        self.loader.load_state_dict(content[LOADER_STATE])
        return path, int(content["global_step"])

    def _trainer(self, callbacks: list[Any], loggers: list[Any]) -> Trainer:
        c = self.config
        environment = [self.ranks.environment] if self.ranks.environment is not None else []
        trainer = Trainer(
            max_epochs=-(-self.total_steps // steps_per_epoch(c, self.loader)),
            accelerator="cpu" if on_cpu(c) else "gpu",
            devices=self.ranks.devices,
            num_nodes=self.ranks.nodes,
            strategy=_ddp(self.ranks.size) if self.ranks.size > 1 else "auto",
            sync_batchnorm=c.sync_batch_norm,
            precision=_PRECISION[c.precision],
            accumulate_grad_batches=c.accumulate,
            gradient_clip_val=c.clip_norm,
            callbacks=callbacks,
            plugins=[CheckpointFiles(self.folder), *environment],
            logger=loggers,
            default_root_dir=self.folder.path,
            enable_checkpointing=False,  # Checkpoints writes them, at whole steps
            enable_progress_bar=c.progress,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # EpochLoader shares the batches
        )
        # its handler of SIGTERM calls a collective wherever the rank is when it comes, and waits for others for ever
        trainer._signal_connector.register_signal_handlers = _leave_signals  # type: ignore[method-assign]
        return trainer

    def _loggers(self, wq: WaveQ | None, from_step: int) -> list[Any]:
        if not self.ranks.leads:
            return []
        names = ["epoch", "rate", "task_loss", "validation_loss", "validation_accuracy"]
        if wq is not None:
            if wq.settings.forward == "float":
                names += ["unrounded_validation_loss", "unrounded_validation_accuracy"]
            names += ["wave_loss", "mean_bits", "phase", "lambda_w", "lambda_beta"]
            names += [f"{kind}/{layer}" for kind in ("beta", "wave") for layer in wq.names]
            names += [f"input_beta/{layer}" for layer in wq.input_betas()]
        behind: dict[str, Any] = {"purge_step": from_step + 1} if from_step else {}
        board = TensorBoardLogger(self.folder.path, name="", version="", default_hp_metric=False, **behind)
        return [MetricsCsv(self.folder.metrics, tuple(names), from_step=from_step), board]
