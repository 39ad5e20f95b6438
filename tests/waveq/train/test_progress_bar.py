"""The progress bar."""

from __future__ import annotations

import torch
from torch import nn

import waveq
from waveq.train.callbacks import WaveQCallback
from waveq.train.classifier import Classifier
from waveq.train.config import TrainConfig
from waveq.train.progress_bar import Bar


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))


def test_the_bar_shows_task_wave_and_bits() -> None:
    network = small_network()
    wq = waveq.attach(network, bits={"0": 3, "2": 4})
    module = Classifier(network, TrainConfig(), rate=0.1, total_steps=10)
    module.task_loss = torch.tensor(1.25)
    wave = WaveQCallback(wq)
    wave.wave_loss = torch.tensor(0.5)
    assert Bar("wave", 10, wave).figures(module) == "task 1.2500  wave 0.5000  bits 3.50"
    assert Bar("float", 10, None).figures(module) == "task 1.2500"
