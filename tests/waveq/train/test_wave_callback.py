"""WaveQ in anyone's LightningModule."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

import waveq
from tests.training import train
from waveq.train.callbacks import WaveQCallback
from waveq.train.logs import quiet_lightning

STEPS = 24


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))


class Batches:
    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1)
        for _ in range(STEPS):
            yield torch.randn(16, 6, generator=generator), torch.randint(0, 3, (16,), generator=generator)


class UsersModule(LightningModule):
    """A module as a user writes it: it knows nothing of WaveQ."""

    def __init__(self, network: nn.Module, *, automatic: bool = True) -> None:
        super().__init__()
        self.network = network
        self.automatic_optimization = automatic

    def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def fit(module: LightningModule, wq: waveq.WaveQ, **options: object) -> None:
    with quiet_lightning():
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            callbacks=[WaveQCallback(wq)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,  # type: ignore[arg-type]
        )
        trainer.fit(module, Batches())


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 4])
def test_any_module_trains_as_the_loop_by_hand(accumulate: int) -> None:
    by_hand, lightning = small_network(), small_network()
    steps = STEPS // accumulate
    wq = waveq.attach(by_hand, total_steps=steps)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=0.01)
    for index, (x, y) in enumerate(Batches()):
        loss = F.cross_entropy(by_hand(x), y) + wq.penalty()
        (loss / accumulate).backward()
        if (index + 1) % accumulate == 0:
            optimizer.step()
            wq.step()
            optimizer.zero_grad()
    other = waveq.attach(lightning, total_steps=steps)
    fit(UsersModule(lightning), other, accumulate_grad_batches=accumulate)
    assert other.steps == wq.steps == steps
    torch.testing.assert_close(lightning.state_dict(), by_hand.state_dict(), rtol=1e-5, atol=1e-6)
    assert other.bits() == wq.bits()


def test_manual_optimization_is_refused() -> None:
    network = small_network()
    wq = waveq.attach(network, bits=3)
    with pytest.raises(ValueError, match="needs automatic optimization"):
        fit(UsersModule(network, automatic=False), wq)


@pytest.mark.slow
def test_a_search_and_the_training_that_follows_are_two_fits() -> None:
    by_hand, lightning = small_network(), small_network()
    handles = []
    for network in (by_hand, lightning):
        start = copy.deepcopy(network.state_dict())
        wq = waveq.attach(network, schedule="search", total_steps=STEPS)
        module = UsersModule(network)
        for part in ("search", "training"):
            if network is lightning:
                fit(module, wq)
            else:
                train(network, wq, torch.optim.Adam(network.parameters(), lr=0.01), list(Batches()))
            if part == "search":
                wq = waveq.rewind(wq, start, total_steps=STEPS)
        handles.append(wq)
    assert handles[0].bits() == handles[1].bits()
    assert [wq.steps for wq in handles] == [STEPS, STEPS]
    for name, value in by_hand.state_dict().items():
        assert torch.equal(value, lightning.state_dict()[name]), name
