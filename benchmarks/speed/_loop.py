"""The training of `waveq train` as a plain loop, without Lightning, logs and checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from waveq.train.classifier import rate_at
from waveq.train.config import TrainConfig
from waveq.train.stage import make_loader
from waveq.zoo.datasets.data import Dataset

__all__ = ["steps_of"]


def steps_of(
    network: nn.Module,
    config: TrainConfig,
    dataset: Dataset,
    wq: waveq.WaveQ | None,
    *,
    stage: Literal["float", "wave"] = "wave",
    noise: float = 0.0,
) -> Iterator[Tensor]:
    """Train in place as one stage of a run, with or without WaveQ; the loss of every step that is over.

    ``noise`` is the standard deviation of what is added to the pixels, drawn from the config's seed.
    """
    loader = make_loader(config, dataset, stage)
    epochs, rate = (config.epochs, config.lr)
    if stage == "float":
        epochs, rate = (config.pretrain_epochs, config.pretrain_lr or config.lr)
    total, step = epochs * len(loader), 0
    optimizer = torch.optim.SGD(
        network.parameters(), lr=rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
    dtype, generator = next(network.parameters()).dtype, torch.Generator().manual_seed(config.seed)
    for _ in range(epochs):
        for x, y in loader:
            optimizer.param_groups[0]["lr"] = rate_at(step, total, rate, config.lr_schedule)
            images = x.to(dtype)
            if noise:
                images = images + noise * torch.randn(x.shape, generator=generator, dtype=dtype)
            loss = F.cross_entropy(network(images), y)
            if wq is not None:
                loss = loss + wq.penalty()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            if wq is not None:
                wq.step()
            step += 1
            yield loss.detach()
