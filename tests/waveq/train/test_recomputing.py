"""Blocks that are computed anew leave the same numbers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import waveq
from waveq.train.recomputing import blocks_of, recomputed
from waveq.zoo import build


def after_two_steps(network: nn.Module, *, anew: bool) -> tuple[dict[str, torch.Tensor], int]:
    """The state, and how often the first convolution of a block ran."""
    wq = waveq.attach(network, bits=3, activation_bits=4)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    runs: list[int] = []
    layer = next(each for each in blocks_of(network)[0].modules() if isinstance(each, nn.Conv2d))
    layer.register_forward_hook(lambda *_: runs.append(1))

    def train() -> None:
        for step in range(2):
            x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            (network(x).square().mean() + wq.penalty()).backward()
            optimizer.step()
            wq.step()

    if anew:
        with recomputed(network):
            train()
        assert all("forward" not in vars(block) for block in blocks_of(network))
    else:
        train()
    return network.state_dict(), len(runs)


@pytest.mark.slow
def test_weights_statistics_and_scales_are_the_same_for_one_more_pass() -> None:
    network = build("resnet20", width=0.25)
    (one, once), (two, twice) = (after_two_steps(copy.deepcopy(network), anew=anew) for anew in (False, True))
    assert (once, twice) == (2, 4)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


def test_a_network_without_blocks_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="checkpoint_activations: Sequential has no blocks"),
        recomputed(nn.Sequential(nn.Linear(2, 2), nn.ReLU())),
    ):
        pass
