"""Networks and datasets of the paper, and recipes that join them."""

from __future__ import annotations

from waveq.zoo.models import Network as Network
from waveq.zoo.models import build as build
from waveq.zoo.models import network as network
from waveq.zoo.models import network_names as network_names

__all__ = ["Network", "build", "network", "network_names"]
