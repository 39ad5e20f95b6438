"""Networks and datasets of the paper, and recipes that join them."""

from __future__ import annotations

from waveq.zoo.data import Dataset as Dataset
from waveq.zoo.data import data_status as data_status
from waveq.zoo.data import dataset_names as dataset_names
from waveq.zoo.data import load_data as load_data
from waveq.zoo.models import Network as Network
from waveq.zoo.models import build as build
from waveq.zoo.models import network as network
from waveq.zoo.models import network_names as network_names

__all__ = [
    "Dataset",
    "Network",
    "build",
    "data_status",
    "dataset_names",
    "load_data",
    "network",
    "network_names",
]
