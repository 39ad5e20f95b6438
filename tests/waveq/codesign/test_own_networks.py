"""The steps after training on networks of one's own: attention, recurrence, and layers that share a weight."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stripes_sim import Stripes
from tests.waveq.conftest import tiny_config
from waveq.codesign.placement import place_run
from waveq.codesign.score import OBJECTIVES, price_policies, score_run
from waveq.codesign.space import enumerate_run, run_sensitivity
from waveq.train.run import train
from waveq.train.trained_run import TrainedRun
from waveq.zoo import register_network


class Rows(nn.Module):
    """Reads an image row by row: attention over the rows, an LSTM along them, and two heads that share a weight.

    The shared layers see another number of vectors each, so that the workload has a row for both.
    """

    def __init__(self, num_classes: int, in_channels: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        width = in_channels * input_size[1]
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.lstm = nn.LSTM(width, 8, batch_first=True)
        self.each, self.last = nn.Linear(8, 8), nn.Linear(8, 8)
        self.last.weight = self.each.weight
        self.head = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2).flatten(2)
        rows = rows + self.attention(rows, rows, rows, need_weights=False)[0]
        seen = torch.relu(self.each(self.lstm(rows)[0])).mean(dim=1)
        return self.head(torch.relu(self.last(seen)))  # type: ignore[no-any-return]


LAYERS = ["attention.in_proj_weight", "attention.out_proj", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "each", "head"]


@pytest.fixture
def run(tmp_path: Path, as_new: Callable[[], None]) -> TrainedRun:
    register_network("rows", in_channels=1, input_size=8, num_classes=10)(Rows)
    train(tiny_config(tmp_path / "run", model="rows", pretrain_epochs=4), say=lambda _line: None)
    return TrainedRun(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:policies are evaluated one by one")  # the LSTM rounds otherwise in chunks
def test_every_policy_is_measured_and_priced(run: TrainedRun) -> None:
    assert sorted(run.policy) == sorted(LAYERS)
    frame = enumerate_run(run, Stripes(), choices=(2, 8), progress=False)
    assert len(frame) in (64, 65)  # and the run's own
    narrow, wide = (frame[(frame[LAYERS] == bits).all(axis=1)].iloc[0] for bits in (2, 8))
    assert narrow["accuracy"] < wide["accuracy"]
    assert 3.5 < wide["weight_bytes"] / narrow["weight_bytes"] <= 4.0
    assert place_run(run, frame).own["energy_pj"] == pytest.approx(score_run(run, Stripes()).energy_pj)
    table = run_sensitivity(run)
    assert set(table["layer"]) == set(LAYERS)
    before = table["layer"].map(run.policy)
    assert (table["changed_bits"] - before).abs().eq(1).all()


@pytest.mark.slow
def test_layers_that_share_a_weight_share_its_bits(run: TrainedRun) -> None:
    shapes = [layer for layer in run.layers if layer.has_weights]
    assert {layer.name for layer in shapes} == set(LAYERS)
    assert {layer.tokens for layer in shapes if layer.name == "each"} == {1, 8}
    assert run.weight_bits() == dict(run.policy)
    policies = np.full((2, len(LAYERS)), 4, dtype=np.uint8)
    policies[1, LAYERS.index("each")] = 2
    priced = price_policies(run, Stripes(), LAYERS, policies)
    for row, bits in zip(priced.to_dict("records"), policies.tolist(), strict=True):
        whole = Stripes().run(run.layers, dict(zip(LAYERS, bits, strict=True)), run.activation_bits()).score
        assert [row[name] for name in OBJECTIVES] == pytest.approx([whole[name] for name in OBJECTIVES])
