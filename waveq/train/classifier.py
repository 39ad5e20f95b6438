"""The classifier that Lightning trains: its loss, the optimizer, its rate at every step. It knows no WaveQ."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from waveq.method.distillation import TEMPERATURE, WEIGHT, distillation_loss
from waveq.train.config import TrainConfig
from waveq.zoo.datasets.seeds import mixed_seed

__all__ = ["Classifier", "measure", "rate_at", "seed_step"]

_FINAL_SHARE = 0.01  # of the rate, at the end of the cosine


def rate_at(step: int, total_steps: int, rate: float, schedule: str) -> float:
    """Learning rate of a step: constant, or half a cosine from `rate` down to a hundredth of it.

    Example:
        >>> [round(rate_at(step, 101, 1.0, "cosine"), 3) for step in (0, 50, 100)]
        [1.0, 0.505, 0.01]
    """
    if schedule == "constant" or total_steps < 2:
        return rate
    share = 0.5 * (1 + math.cos(math.pi * min(step / (total_steps - 1), 1.0)))
    return rate * (_FINAL_SHARE + (1 - _FINAL_SHARE) * share)


class Classifier(LightningModule):
    """A network and its cross-entropy, mixed with a teacher's say where there is one; a callback adds the rest.

    Attributes:
        network: the module under training.
        task_loss: that loss of the last batch, 0-dim, detached.
    """

    def __init__(
        self,
        network: nn.Module,
        config: TrainConfig,
        *,
        rate: float,
        total_steps: int,
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.task_loss = torch.zeros(())
        self._config = config
        self._rate = rate
        self._total_steps = total_steps
        self._teacher = (teacher,)  # no module of this one: it is neither trained nor saved, and no process shares it

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the name of every hook here, some 45 times a step, and nn.Module looks into six registers
        # for every attribute. On small networks that is a tenth of the step.
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], _batch_index: int) -> Tensor:
        """Mean loss of the batch, 0-dim."""
        images, labels = batch
        logits = self.network(images)
        (teacher,) = self._teacher
        loss = F.cross_entropy(logits, labels) if teacher is None else self._taught(teacher, images, logits, labels)
        self.task_loss = loss.detach()
        return loss

    def _taught(self, teacher: nn.Module, images: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            told = teacher(images)
        c = self._config
        return distillation_loss(
            logits,
            told,
            labels,
            temperature=TEMPERATURE if c.distill_temperature is None else c.distill_temperature,
            weight=WEIGHT if c.distill_weight is None else c.distill_weight,
        )

    def on_fit_start(self) -> None:
        """Lightning moves its own modules alone."""
        (teacher,) = self._teacher
        if teacher is not None:
            teacher.to(self.device)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer of the config over all parameters; betas are none."""
        c = self._config
        parameters = self.network.parameters()
        if c.optimizer == "sgd":
            return torch.optim.SGD(parameters, lr=self._rate, momentum=c.momentum, weight_decay=c.weight_decay)
        if c.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=self._rate, weight_decay=c.weight_decay)
        return torch.optim.AdamW(parameters, lr=self._rate, weight_decay=c.weight_decay)

    def set_rate(self, step: int) -> float:
        """Give every parameter group the rate of a step, and return it."""
        rate = rate_at(step, self._total_steps, self._rate, self._config.lr_schedule)
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        for group in optimizer.param_groups:
            group["lr"] = rate
        return rate


@torch.no_grad()
def measure(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Mean cross-entropy and accuracy (a share) over batches, in eval mode; the mode is put back afterwards.

    Example:
        >>> batches = [(torch.eye(3), torch.tensor([0, 1, 1]))]
        >>> round(measure(nn.Identity(), batches)["accuracy"], 3)
        0.667
    """
    was_training = network.training
    network.eval()
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    dtype = next((p.dtype for p in network.parameters()), torch.float32)
    loss, right, count = 0.0, 0, 0
    for images, labels in batches:
        logits = network(images.to(device, dtype)).float()
        labels = labels.to(device)
        loss += float(F.cross_entropy(logits, labels, reduction="sum"))
        right += int((logits.argmax(1) == labels).sum())
        count += len(labels)
    network.train(was_training)
    return {"loss": loss / count, "accuracy": right / count}


def seed_step(*parts: int) -> None:
    """Make dropout of a step depend on these numbers alone: a resumed run then draws what it would have drawn."""
    seed = mixed_seed(*parts)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed looks for devices first: 150 us instead of 2
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)
