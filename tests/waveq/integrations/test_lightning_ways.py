"""What people do with Lightning's Trainer beside fit(): each is right, or refused by name."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    EarlyStopping,
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.tuner import Tuner
from torch import Tensor, nn
from torch.utils.data import DataLoader

import waveq
from tests.docs_blocks import first_block
from waveq.integrations.lightning import WaveQCallback
from waveq.train.logs import quiet_lightning

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:"),  # Lightning's own use of torch
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You're using the WeightAveraging callback with a model that overrides"),
    pytest.mark.filterwarnings("ignore:.*callbacks used to create the checkpoint need to be provided"),
]

ROWS, SIZE = 192, 16
STEPS = 2 * ROWS // SIZE


def network(*, norm: bool = False, width: int = 12) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, width), *([nn.BatchNorm1d(width)] if norm else []), nn.ReLU(), nn.Linear(width, 3)
    )


def rows(count: int = ROWS) -> list[tuple[Tensor, int]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(6, generator=generator), place % 3) for place in range(count)]


class Net(LightningModule):
    """A module as people write it, with the attributes that Tuner looks for."""

    def __init__(self, *, width: int = 12, norm: bool = False, batch_size: int = SIZE, lr: float = 0.01) -> None:
        super().__init__()
        self.batch_size, self.lr = batch_size, lr
        self.network: Any = network(norm=norm, width=width)

    def training_step(self, batch: Any, _index: int) -> Any:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: Any, _index: int) -> None:
        self.log("val_loss", F.cross_entropy(self.network(batch[0]), batch[1]), batch_size=len(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def train_dataloader(self) -> Any:
        return DataLoader(rows(), batch_size=self.batch_size)  # type: ignore[arg-type]

    def val_dataloader(self) -> Any:
        return DataLoader(rows(32), batch_size=32)  # type: ignore[arg-type]


class InSetup(Net):
    """Has its network from ``setup`` on, beside a layer that is there before."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.head = None, nn.Linear(3, 3)

    def setup(self, stage: str) -> None:
        self.network = self.network or network()

    def training_step(self, batch: Any, _index: int) -> Any:
        return F.cross_entropy(self.head(self.network(batch[0])), batch[1])


class InConfigureModel(InSetup):
    setup = LightningModule.setup

    def configure_model(self) -> None:
        self.network = self.network or network()


def trainer(*callbacks: Callback, **options: Any) -> Trainer:
    usual = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 2}
    with quiet_lightning():
        return Trainer(accelerator="cpu", callbacks=list(callbacks), enable_model_summary=False, **(usual | options))


def trained(module: Net, *before: Callback, **options: Any) -> tuple[Net, WaveQCallback]:
    """A module after fit, with other callbacks before WaveQ's."""
    wave, path = WaveQCallback(network="network"), options.pop("ckpt_path", None)
    with quiet_lightning():
        trainer(*before, wave, **options).fit(module, weights_only=False, ckpt_path=path)
    return module, wave


def require_same(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.fixture(name="plain", scope="module")
def _plain() -> tuple[Net, WaveQCallback]:
    module, wave = trained(Net())
    assert wave.wq.steps == wave.wq.total_steps == STEPS
    return module, wave


# ---------------------------------------------------------------------- when the layers and the steps are known


@pytest.mark.parametrize("kind", [InSetup, InConfigureModel])
def test_layers_that_are_made_late_are_attached_all(kind: type[InSetup], tmp_path: Path) -> None:
    module, wave = kind(), WaveQCallback(total_steps=3 * STEPS // 2)
    with quiet_lightning():
        run = trainer(wave)
        run.fit(module)
        run.save_checkpoint(tmp_path / "whole.ckpt")
        again, resumed = kind(), WaveQCallback()
        trainer(resumed, max_epochs=3).fit(again, ckpt_path=tmp_path / "whole.ckpt", weights_only=False)
    assert set(wave.wq.bits()) == {"head", "network.0", "network.2"}
    assert "configure_model" not in module.__dict__
    assert (wave.wq.steps, resumed.wq.steps) == (STEPS, 3 * STEPS // 2)
    assert resumed.wq.total_steps == 3 * STEPS // 2


def test_a_network_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"network='netwrk'.*: Net has no such module; did you mean 'network'\?"):
        trainer(WaveQCallback(network="netwrk")).fit(Net())


def test_steps_are_counted_with_an_accumulation_that_changes() -> None:
    _, wave = trained(Net(), GradientAccumulationScheduler({0: 1, 1: 5}))
    assert wave.wq.steps == wave.wq.total_steps == 12 + 3
    _, wave = trained(Net(), GradientAccumulationScheduler({0: 1, 1: 5}), max_steps=13)
    assert wave.wq.steps == wave.wq.total_steps == 13


def test_a_batch_size_found_before_fit_is_counted_with(plain: tuple[Net, WaveQCallback], tmp_path: Path) -> None:
    module, wave = Net(batch_size=4), WaveQCallback(network="network")
    run = trainer(wave, default_root_dir=tmp_path)
    with quiet_lightning():
        assert Tuner(run).scale_batch_size(module, max_trials=3, init_val=4) == SIZE
        assert wave.wq.total_steps == 4 * STEPS
        run.fit(module)
    assert wave.wq.steps == wave.wq.total_steps == STEPS
    require_same(plain[0], module)


def test_a_batch_size_that_is_found_after_the_count_is_refused() -> None:
    with pytest.raises(ValueError, match=r"BatchSizeFinder changes the steps .*Tuner\(trainer\).scale_batch_size"):
        trained(Net(), BatchSizeFinder(max_trials=1))


def test_a_learning_rate_is_found_without_a_trace(tmp_path: Path) -> None:
    module, wave = Net(), WaveQCallback(network="network")
    run = trainer(wave, default_root_dir=tmp_path, enable_progress_bar=False)
    with quiet_lightning():
        Tuner(run).lr_find(module, num_training=10)
        run.fit(module)
    assert wave.wq.history()["step"].is_monotonic_increasing
    require_same(trained(Net(lr=module.lr))[0], module)


@pytest.mark.parametrize(
    ("options", "steps"),
    [({"overfit_batches": 3}, 6), ({"fast_dev_run": 2}, 2), ({"max_steps": 7, "max_epochs": -1}, 7)],
)
def test_short_runs_are_counted(options: dict[str, Any], steps: int) -> None:
    _, wave = trained(Net(), **options)
    assert wave.wq.steps == wave.wq.total_steps == steps


# ---------------------------------------------------------------------- validation, and runs in parts


@pytest.mark.parametrize("options", [{}, {"bits": 3}])
def test_validation_before_fit_sees_the_network_as_it_is(options: dict[str, Any]) -> None:
    module, wave = Net(), WaveQCallback(network="network", **options)
    run = trainer(wave)
    with quiet_lightning():
        run.validate(module, verbose=False)
        assert not hasattr(module.network[0], "parametrizations")
        run.fit(module)
        straight, other = Net(), WaveQCallback(network="network", **options)
        trainer(other).fit(straight)
    assert wave.wq.total_steps == STEPS
    require_same(straight, module)


def test_a_checkpoint_is_validated_in_a_new_process(plain: tuple[Net, WaveQCallback], tmp_path: Path) -> None:
    module, wave = trained(Net())
    with quiet_lightning():
        run = trainer()
        (told,) = run.validate(module, verbose=False)
        run.save_checkpoint(tmp_path / "whole.ckpt")
        again, other = Net(), WaveQCallback(network="network")
        (found,) = trainer(other).validate(again, ckpt_path=tmp_path / "whole.ckpt", verbose=False, weights_only=False)
    assert found == told
    assert other.wq.bits() == wave.wq.bits()
    assert "on_load_checkpoint" not in again.__dict__


def test_stopped_early_and_gone_on_to_the_last_bit(plain: tuple[Net, WaveQCallback], tmp_path: Path) -> None:
    stops, keeps = EarlyStopping("val_loss", patience=1, min_delta=10.0), ModelCheckpoint(tmp_path, save_last=True)
    _, stopped = trained(Net(), stops, keeps, max_epochs=6, enable_checkpointing=True)
    assert stopped.wq.learning
    assert stopped.wq.steps == STEPS
    whole, _ = trained(Net(), max_epochs=6)
    again, _ = trained(Net(), max_epochs=6, ckpt_path=tmp_path / "last.ckpt")
    require_same(whole, again)


def test_two_callbacks_of_one_handle_are_refused() -> None:
    wave = WaveQCallback(network="network")
    with pytest.raises(ValueError, match="two WaveQCallbacks of one handle"):
        trainer(wave, wave).fit(Net())
    module = Net()
    wq = waveq.attach(module.network, bits=3)
    with pytest.raises(ValueError, match="two WaveQCallbacks of one handle"):
        trainer(WaveQCallback(wq), WaveQCallback(wq)).fit(module)


# ---------------------------------------------------------------------- other people's callbacks


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_stochastic_weight_averaging(norm: bool, first: bool) -> None:
    average, module = StochasticWeightAveraging(0.05, swa_epoch_start=1), Net(norm=norm)
    wave = WaveQCallback(network="network")
    with quiet_lightning():
        trainer(*((average, wave) if first else (wave, average))).fit(module)
    assert wave.wq.steps == STEPS  # an epoch that only measures batch norm has none
    averaged = dict(average._average_model.named_parameters())
    for name, value in module.named_parameters():
        assert torch.equal(value, averaged[name]), name
    wave.wq.finalize()


class SeenAtValidation(Callback):
    def __init__(self) -> None:
        self.seen: list[tuple[int, int, list[int]]] = []

    def on_validation_epoch_end(self, _trainer: Trainer, pl_module: Any) -> None:
        first = pl_module.network[0].parametrizations.weight[0]
        self.seen.append((int(pl_module.network.waveq_step), first.bits_now, first.wave_beta().item()))


@pytest.mark.parametrize("first", [False, True])
def test_moving_averages_keep_the_bits_of_the_run(
    plain: tuple[Net, WaveQCallback], tmp_path: Path, first: bool
) -> None:
    sees, average, module = SeenAtValidation(), EMAWeightAveraging(decay=0.9), Net()
    wave = WaveQCallback(network="network")
    run = trainer(*((average, wave) if first else (wave, average)), sees, num_sanity_val_steps=0)
    with quiet_lightning():
        run.fit(module)
        run.save_checkpoint(tmp_path / "average.ckpt")
        (told,) = run.validate(module, verbose=False)
        again, other = Net(), WaveQCallback(network="network")
        (found,) = trainer(other).validate(
            again, ckpt_path=tmp_path / "average.ckpt", verbose=False, weights_only=False
        )
    assert [step for step, _, _ in sees.seen[:2]] == [STEPS // 2, STEPS]
    bits = plain[1].wq.bits()
    assert sees.seen[1][1] == bits["0"]
    assert wave.wq.bits() == other.wq.bits() == bits  # what is averaged does not train
    assert found == told
    original = plain[0].network[0].parametrizations.weight.original
    assert not torch.equal(module.network[0].parametrizations.weight.original, original)


class Thaws(BaseFinetuning):
    def freeze_before_training(self, pl_module: Any) -> None:
        self.freeze(pl_module.network[0])

    def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.network[0], optimizer)


def test_layers_that_are_thawed_later() -> None:
    module = Net()
    module.configure_optimizers = lambda: torch.optim.Adam(  # type: ignore[method-assign]
        [each for each in module.parameters() if each.requires_grad], lr=0.01
    )
    wave = WaveQCallback(network="network")
    with quiet_lightning():
        trainer(wave, Thaws()).fit(module)
    assert wave.wq.steps == STEPS
    assert not torch.equal(module.network[0].parametrizations.weight.original, network()[0].weight)


class TwoOptimizers(Net):
    """Manual optimization, with calls of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.waves = [waveq.attach(self.network, total_steps=STEPS)]

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.network[place].parameters(), lr=0.1) for place in (0, 2)]

    def training_step(self, batch: Any, index: int) -> None:
        loss = super().training_step(batch, index) + self.waves[0].penalty()
        for each in self.optimizers():  # type: ignore[union-attr]
            each.zero_grad()
        self.manual_backward(loss)
        for each in self.optimizers():  # type: ignore[union-attr]
            each.step()
        self.waves[0].step()


def test_two_optimizers_by_hand() -> None:
    module, by_hand = TwoOptimizers(), network()
    with quiet_lightning():
        trainer().fit(module)
    wq = waveq.attach(by_hand, total_steps=STEPS)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.1)
    for _ in range(2):
        for x, y in module.train_dataloader():
            optimizer.zero_grad()
            (F.cross_entropy(by_hand(x), y) + wq.penalty()).backward()
            optimizer.step()
            wq.step()
    require_same(by_hand, module.network)


def test_the_recipe_of_the_page_with_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As LightningCLI reads it; with LightningCLI itself: tests/benchmarks/reach/test_trainers.py."""
    monkeypatch.chdir(tmp_path)
    recipe = yaml.safe_load(first_block("lightning.md", "LightningCLI", "yaml"))
    made: dict[str, list[Any]] = {}
    for role in ("callbacks", "logger"):
        for each in recipe["trainer"].pop(role):
            module, _, name = each["class_path"].rpartition(".")
            kind = getattr(importlib.import_module(module), name)
            made.setdefault(role, []).append(kind(**each["init_args"], **each.get("dict_kwargs", {})))
    with quiet_lightning():
        Trainer(**recipe["trainer"], **made, enable_model_summary=False).fit(Net(**recipe["model"]))
    assert made["callbacks"][0].wq.policy().mean_bits <= 4.0
    header = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()[0].split(",")
    assert {"bits/0", "beta/2", "wave/0", "phase", "price/2", "cost"} <= set(header)
