"""The classifier, its rate, its measure."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from waveq.method.distillation import distillation_loss
from waveq.train.classifier import Classifier, measure, rate_at, seed_step
from waveq.train.config import TrainConfig


def test_cosine_falls_from_the_rate_to_a_hundredth_of_it() -> None:
    rates = [rate_at(step, 50, 0.3, "cosine") for step in range(60)]
    assert rates[0] == 0.3
    assert rates[49] == pytest.approx(0.003)
    assert rates[50:] == [rates[49]] * 10
    assert all(a > b for a, b in pairwise(rates[:50]))
    assert rate_at(7, 50, 0.3, "constant") == 0.3
    assert rate_at(0, 1, 0.3, "cosine") == 0.3


def test_measure_is_the_mean_over_images_whatever_the_batches() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.9)).train()
    x, y = torch.randn(23, 5), torch.randint(0, 3, (23,))
    found = measure(network, zip(x.split(7), y.split(7), strict=True))
    logits = network.eval()(x)
    assert found["accuracy"] == int((logits.argmax(1) == y).sum()) / 23
    assert found["loss"] == pytest.approx(float(F.cross_entropy(logits, y).detach()), rel=1e-6)


def test_measure_puts_the_mode_back() -> None:
    network = nn.Linear(2, 2)
    measure(network, [(torch.ones(1, 2), torch.zeros(1, dtype=torch.long))])
    assert network.training


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("sgd", torch.optim.SGD, {"lr": 0.2, "momentum": 0.8, "weight_decay": 0.01}),
        ("adam", torch.optim.Adam, {"lr": 0.2, "weight_decay": 0.01}),
        ("adamw", torch.optim.AdamW, {"lr": 0.2, "weight_decay": 0.01}),
    ],
)
def test_optimizer_of_the_config(name: str, kind: type, expected: dict[str, float]) -> None:
    config = TrainConfig.model_validate({"optimizer": name, "momentum": 0.8, "weight_decay": 0.01})
    network = nn.Linear(3, 2)
    optimizer = Classifier(network, config, rate=0.2, total_steps=10).configure_optimizers()
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["params"] == [network.weight, network.bias]
    assert {key: group[key] for key in expected} == expected


def test_seeded_steps_draw_the_same() -> None:
    def draw(*parts: int) -> list[float]:
        seed_step(*parts)
        return torch.rand(4).tolist()

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({tuple(draw(a, b)) for a in range(3) for b in range(3)}) == 9


def test_names_of_hooks_do_not_disturb_the_modules() -> None:
    module = Classifier(nn.Linear(1, 1), TrainConfig(), rate=0.1, total_steps=1)
    module._current_fx_name = "on_train_start"
    assert module._current_fx_name == "on_train_start"
    assert [name for name, _ in module.named_parameters()] == ["network.weight", "network.bias"]


def test_a_teacher_is_asked_and_nothing_else_is_done_with_it() -> None:
    torch.manual_seed(0)
    network, teacher = nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).eval()
    config = TrainConfig(distill=True, pretrain_epochs=1, distill_temperature=2.0)
    module = Classifier(network, config, rate=0.1, total_steps=1, teacher=teacher)
    x, y = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])
    loss = module.train().training_step((x, y), 0)
    torch.testing.assert_close(loss, distillation_loss(network(x), teacher(x), y, temperature=2.0))
    assert torch.equal(module.task_loss, loss.detach())
    loss.backward()
    assert not teacher.training
    assert teacher[0].weight.grad is None
    assert list(module.state_dict()) == ["network.weight", "network.bias"]
