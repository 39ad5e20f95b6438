"""The data and the network that a config names, which a run begins with and whoever looks at it afterwards again."""

from __future__ import annotations

import torch
from torch import nn

from waveq.train.config import TrainConfig
from waveq.train.given import own_data, own_network
from waveq.train.user_modules import is_own
from waveq.zoo import Dataset, build, load_data, network
from waveq.zoo.datasets.seeds import drawn_from, mixed_seed

__all__ = ["make_dataset", "make_network"]


def make_dataset(config: TrainConfig) -> Dataset:
    """The dataset, in the size and channels that the network takes.

    Raises:
        ValueError: unknown names, missing or damaged files, functions that do not give loaders.
    """
    from waveq.zoo.datasets.data import source

    if is_own(config.dataset):
        return own_data(config.dataset, config.split_seed)
    entry = source(config.dataset)
    least = 1 if is_own(config.model) else network(config.model).smallest_size
    size = config.input_size or max(entry.size, least)
    return load_data(
        config.dataset,
        data_dir=config.data_dir,
        download=config.download,
        channels=config.in_channels,
        size=size,
        validation=config.validation,
        split_seed=config.split_seed,
        workers=config.workers,
    )


def make_network(config: TrainConfig, dataset: Dataset) -> nn.Module:
    """The network for the dataset, with the initial weights that the seed gives.

    Raises:
        ValueError: unknown network, images too small for it; a factory that does not give one.
    """
    if is_own(config.model):
        with drawn_from(mixed_seed(config.seed)):
            return own_network(config.model)
    if len(dataset.size) != 2:
        raise ValueError(f"model: {config.model} takes images (n, channels, height, width), not x of {dataset.shape}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(config.seed))
        return build(
            config.model,
            num_classes=len(dataset.classes),
            in_channels=dataset.channels,
            input_size=(dataset.size[0], dataset.size[1]),
            width=config.width,
        )
