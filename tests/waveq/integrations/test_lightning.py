"""WaveQ in anyone's LightningModule."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn

import waveq
from tests.training import train
from waveq.integrations.lightning import WaveQCallback
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


class Rows(Logger):
    """A logger of the user's."""

    name, version = "rows", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[int | None, dict[str, float]] = {}

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self.rows[step] = dict(metrics)

    def log_hyperparams(self, *_args: Any, **_kwargs: Any) -> None: ...


def fit(module: LightningModule, wave: waveq.WaveQ | WaveQCallback, **options: Any) -> Trainer:
    usual = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 1}
    callback = wave if isinstance(wave, WaveQCallback) else WaveQCallback(wave)
    path = options.pop("ckpt_path", None)
    with quiet_lightning():
        trainer = Trainer(accelerator="cpu", callbacks=[callback], enable_model_summary=False, **(usual | options))
        trainer.fit(module, Batches(), ckpt_path=path, weights_only=True)
    return trainer


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_any_module_trains_as_the_loop_by_hand(accumulate: int, scale: float) -> None:
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
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    plugins = [] if scale == 1.0 else [ScaledFloat32("16-mixed", "cpu", scaler)]
    fit(UsersModule(lightning), other, accumulate_grad_batches=accumulate, plugins=plugins)
    assert other.steps == wq.steps == steps
    torch.testing.assert_close(lightning.state_dict(), by_hand.state_dict(), rtol=1e-5, atol=1e-6)
    assert other.bits() == wq.bits()


class ScaledFloat32(MixedPrecision):
    """What "16-mixed" does with losses and gradients; the numbers stay as exact as the loop's by hand."""

    @contextmanager
    def forward_context(self) -> Iterator[None]:
        yield


@pytest.mark.slow
def test_attached_in_setup_logged_and_resumed_to_the_last_bit(tmp_path: Path) -> None:
    wave, rows = WaveQCallback(network="network", log_every=6), Rows()
    straight = UsersModule(small_network())
    fit(straight, wave, max_epochs=2, logger=rows)
    assert wave.wq.steps == wave.wq.total_steps == 2 * STEPS
    assert [step for step, row in rows.rows.items() if "bits/0" in row] == list(range(6, 2 * STEPS + 1, 6))
    names = {"phase", "mean_bits", "lambda_beta", "wave_loss", "beta/2", "bits/2", "wave/2", "price/2"}
    assert names <= set(rows.rows[2 * STEPS])
    assert rows.rows[2 * STEPS]["bits/2"] == wave.wq.bits()["2"]
    half, again = UsersModule(small_network()), UsersModule(small_network())
    told: Any = {"network": "network", "total_steps": 2 * STEPS}
    fit(half, WaveQCallback(**told)).save_checkpoint(tmp_path / "half.ckpt")
    fit(again, resumed := WaveQCallback(**told), max_epochs=2, ckpt_path=tmp_path / "half.ckpt")
    assert resumed.wq.betas() == wave.wq.betas()
    for name, value in straight.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


def test_the_whole_module_and_no_rows() -> None:
    module, rows = UsersModule(small_network()), Rows()
    fit(module, wave := WaveQCallback(bits=3, log_every=0), logger=rows, limit_train_batches=2)
    assert list(wave.wq.bits()) == ["network.0", "network.2"]
    assert not any("mean_bits" in row for row in rows.rows.values())


def test_an_optimizer_from_before_is_refused() -> None:
    module = UsersModule(small_network())
    early = torch.optim.SGD(module.parameters(), lr=0.1)
    module.configure_optimizers = lambda: early  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"built before attach\(\) and lacks what lsq learns"):
        fit(module, WaveQCallback(bits=3), limit_train_batches=1)


def test_steps_that_nobody_can_count_must_be_said() -> None:
    with pytest.raises(ValueError, match="total_steps"):
        fit(UsersModule(small_network()), WaveQCallback(), max_epochs=-1)


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
