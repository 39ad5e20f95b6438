"""Networks and datasets of the paper, and recipes that join them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from waveq._lazy import lazy_names

if TYPE_CHECKING:
    from waveq.zoo.datasets.data import Dataset as Dataset
    from waveq.zoo.datasets.data import data_status as data_status
    from waveq.zoo.datasets.data import dataset_names as dataset_names
    from waveq.zoo.datasets.data import load_data as load_data
    from waveq.zoo.datasets.sources import register_dataset as register_dataset
    from waveq.zoo.datasets.treebanks import Treebank as Treebank
    from waveq.zoo.datasets.treebanks import load_treebank as load_treebank
    from waveq.zoo.networks.models import Network as Network
    from waveq.zoo.networks.models import build as build
    from waveq.zoo.networks.models import network as network
    from waveq.zoo.networks.models import network_names as network_names
    from waveq.zoo.networks.models import register_network as register_network

__all__ = [
    "Dataset",
    "Network",
    "Treebank",
    "build",
    "data_status",
    "dataset_names",
    "load_data",
    "load_treebank",
    "network",
    "network_names",
    "register_dataset",
    "register_network",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "build": "waveq.zoo.networks.models",
        "data_status": "waveq.zoo.datasets.data",
        "Dataset": "waveq.zoo.datasets.data",
        "dataset_names": "waveq.zoo.datasets.data",
        "load_data": "waveq.zoo.datasets.data",
        "load_treebank": "waveq.zoo.datasets.treebanks",
        "Network": "waveq.zoo.networks.models",
        "network": "waveq.zoo.networks.models",
        "network_names": "waveq.zoo.networks.models",
        "register_dataset": "waveq.zoo.datasets.sources",
        "register_network": "waveq.zoo.networks.models",
        "Treebank": "waveq.zoo.datasets.treebanks",
    },
)
