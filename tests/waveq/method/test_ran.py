"""Ranks that see other layers count one budget."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import waveq
from tests.ranks import in_two_ranks


def _rank(rank: int, folder: Path) -> None:
    torch.manual_seed(0)
    experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
    wq = waveq.attach(experts, total_steps=40, target={"mean_bits": 4.0})
    optimizer = torch.optim.SGD(experts.parameters(), lr=0.01)
    x = torch.randn(16, 4)
    while wq.phase < 3:
        # the second expert runs on rank 1 alone, the third on none
        y = sum(expert(x) for expert in experts[: 1 + rank])
        optimizer.zero_grad()
        (y.square().mean() + wq.penalty()).backward()
        optimizer.step()
        wq.step()
    torch.save((wq.betas(), wq.strengths(), wq.bits()), f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_a_layer_that_ran_on_one_rank_counts_on_all(tmp_path: Path) -> None:
    in_two_ranks(_rank, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first == second
    bits = first[2]
    assert bits["0"] + bits["1"] <= 8  # the third, which never ran, pays nothing into the budget
