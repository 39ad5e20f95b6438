"""One training run: float network, learned bits, final network, in one run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waveq._lazy import lazy_names

if TYPE_CHECKING:
    from waveq.train.config import TrainConfig as TrainConfig
    from waveq.train.config import load_recipe as load_recipe
    from waveq.train.given import own_config as own_config
    from waveq.train.materials import make_dataset as make_dataset
    from waveq.train.materials import make_network as make_network
    from waveq.train.result import TrainResult as TrainResult
    from waveq.train.run import TrainingInterrupted as TrainingInterrupted
    from waveq.train.run import train as train

__all__ = [
    "TrainConfig",
    "TrainResult",
    "TrainingInterrupted",
    "load_recipe",
    "make_dataset",
    "make_network",
    "own_config",
    "train",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "TrainConfig": "waveq.train.config",
        "TrainResult": "waveq.train.result",
        "TrainingInterrupted": "waveq.train.run",
        "load_recipe": "waveq.train.config",
        "own_config": "waveq.train.given",
        "make_dataset": "waveq.train.materials",
        "make_network": "waveq.train.materials",
        "train": "waveq.train.run",
    },
)
