"""Many policies trained as one: the same as each alone, and the same as attach() in an ordinary loop."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from waveq.evaluate.finetune import PolicyFinetuner, finetune_policies
from waveq.evaluate.finetune_group import Group, Recipe
from waveq.method.chosen import choose_weights

# float64, so that the order of additions cannot push a weight over a rounding boundary
POLICIES = np.array([[8, 4, 3], [2, 2, 2], [1, 5, 1], [3, 1, 8]], dtype=np.uint8)
DOREFA: dict[str, Any] = {"quantizer": "dorefa"}  # it has one bit


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(6, 3),
    ).double()


def data(count: int = 50, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 6, 6, generator=generator, dtype=torch.float64)
    return x, (x.mean(dim=(1, 2, 3)) * 12).round().clamp(-1, 1).long() + 1


def recipe(**changes: object) -> Recipe:
    usual = {"quantizer": "dorefa", "scale": "max", "epochs": 2, "batch_size": 16, "lr": 0.05, "momentum": 0.9}
    return Recipe(**{**usual, "weight_decay": 1e-3, "seed": 3, **changes})  # type: ignore[arg-type]


def trained(rows: np.ndarray, settings: Recipe) -> Group:
    model = network()
    group = Group(model, choose_weights(model).weights, rows, settings)
    group.train(*data())
    return group


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{}, {"quantizer": "wrpn"}, {"scale": "none"}, {"quantizer": "wrpn", "scale": "learned"}]
)
def test_together_equals_one_at_a_time(settings: dict[str, object]) -> None:
    together = trained(POLICIES, recipe(**settings))
    for index in range(len(POLICIES)):
        alone = trained(POLICIES[[index]], recipe(**settings))
        for kind in ("parameters", "buffers"):
            mine, shared = getattr(alone, kind), getattr(together, kind)
            assert mine.keys() == shared.keys()
            for name in mine:
                torch.testing.assert_close(shared[name][index], mine[name], rtol=1e-9, atol=1e-11)
        assert torch.equal(together.predict(data()[0])[index], alone.predict(data()[0])[0])
    moved = together.parameters["model.0.weight"]
    assert not torch.allclose(moved[0], moved[1])


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_one_policy_equals_attach_in_an_ordinary_loop(granularity: Any) -> None:
    model, row, settings = network(), POLICIES[0], dataclasses.replace(recipe(), granularity=granularity)
    bits = dict(zip(("0", "4", "8"), map(int, row), strict=True))
    wq = waveq.attach(model, quantizer="dorefa", bits=bits, scale="max", granularity=granularity, lambda_w=0.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    x, y = data()
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    model.train()
    for _ in range(settings.epochs):
        for batch in torch.randperm(len(y), generator=generator).split(settings.batch_size):
            loss = F.cross_entropy(model(x[batch]), y[batch]) + wq.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            wq.step()
    group = trained(POLICIES[[0]], settings)
    torch.testing.assert_close(
        group.parameters["model.4.weight"], model[4].parametrizations.weight.original, rtol=1e-9, atol=1e-11
    )
    torch.testing.assert_close(group.buffers["model.1.running_var"], model[1].running_var, rtol=1e-9, atol=1e-11)
    with torch.no_grad():
        assert torch.equal(group.predict(x)[0], model.eval()(x).argmax(dim=1))


def test_quantised_inputs_are_those_of_attach() -> None:
    model = network()
    model[7] = nn.Identity()
    common: dict[str, Any] = {**DOREFA, "activation_bits": 3}
    tuner = PolicyFinetuner(model, data(), data(), **common, batch_size=16, lr=0.05, together=2)
    assert tuner.activation_bits == {"4": 3, "8": 3}
    together = tuner.correct(POLICIES[:2])
    row = dict(zip(tuner.names, map(int, POLICIES[0]), strict=True))
    wq = waveq.attach(model, bits=row, scale="max", lambda_w=0.0, **common)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = data()
    for batch in torch.randperm(len(y), generator=torch.Generator().manual_seed(0)).split(16):
        loss = F.cross_entropy(model.train()(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
    with torch.no_grad():
        assert np.array_equal(together[0], (model.eval()(x).argmax(dim=1) == y).numpy())


def test_accuracies_do_not_depend_on_the_grouping_and_leave_everything_alone() -> None:
    model, before, state = network(), copy.deepcopy(network().state_dict()), torch.get_rng_state()
    found, seen = [], []
    for together in (1, 3, 4):
        tuner = PolicyFinetuner(model, data(), data(40, seed=2), **DOREFA, batch_size=16, lr=0.05, together=together)
        torch.set_rng_state(state)
        found.append(tuner.accuracy(POLICIES, progress=lambda done, total: seen.append((done, total))))
        assert torch.equal(torch.get_rng_state(), state)
    assert all(np.array_equal(found[0], other) for other in found)
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4), (3, 4), (4, 4), (4, 4)]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["plain", "dropout"])
def test_threads_do_not_change_the_answer(kind: str) -> None:
    model, before = network(), torch.get_num_threads()
    if kind == "plain":
        model[7] = nn.Identity()
    tuner = PolicyFinetuner(model, data(), data(40, seed=2), **DOREFA, batch_size=16, lr=0.05, together=1)
    assert tuner._draws_random_numbers(POLICIES) == (kind == "dropout")
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(tuner.correct(POLICIES))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert np.array_equal(*found)


@pytest.mark.slow
def test_fine_tuning_repairs_what_rounding_broke() -> None:
    torch.manual_seed(0)
    x = torch.randn(400, 2)
    y = (x[:, 0] * x[:, 1] > 0).long()
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    row = np.array([[1, 1]], dtype=np.uint8)
    rounded = waveq.PolicyEvaluator(model, (x, y), **DOREFA, scale="none").accuracy(row)[0]
    tuned = finetune_policies(model, row, (x, y), (x, y), **DOREFA, scale="none", epochs=10, batch_size=50, lr=0.05)[0]
    assert tuned > rounded + 0.03


def test_auto_measures_and_takes_the_faster_way(monkeypatch: pytest.MonkeyPatch) -> None:
    tuner = PolicyFinetuner(network(), data(), data(), **DOREFA, batch_size=16)
    tuner.accuracy(POLICIES[:1])
    assert tuner.group is None  # a single policy decides nothing
    monkeypatch.setattr("waveq.evaluate.finetune.seconds_per_policy", lambda group, x, y: 1.0 / group.size)
    assert tuner.accuracy(POLICIES).shape == (4,)
    assert (tuner.group, tuner.timings) == (4, {1: 1.0, 4: 0.25})


class NotBatchable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return -y if float(y.detach().sum()) > 1e9 else y


def test_what_cannot_be_batched_is_trained_one_at_a_time() -> None:
    x, y = torch.randn(20, 4), torch.randint(3, (20,))
    for together in ("auto", 2):
        tuner = PolicyFinetuner(NotBatchable(), (x, y), (x, y), together=together)
        with pytest.warns(UserWarning, match=r"trained one at a time: vmap: .*\.item\(\)"):
            tuner.accuracy(np.array([[2], [4]], dtype=np.uint8))
        assert tuner.group == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantizer": "dorafa"}, "did you mean 'dorefa'"),
        ({"scale": "big"}, "scale must be one of"),
        ({"epochs": 0}, "epochs must be a whole number >= 1, not 0"),
        ({"lr": -1.0}, "lr must be a finite number >= 0"),
        ({"together": 0}, "together must be a whole number >= 1"),
        ({"train_data": []}, "train_data gave no batch"),
        ({"test_data": (torch.zeros(3, 1, 6, 6), torch.zeros(3))}, "test_data: batch 0 .* class numbers"),
        ({"train_data": [(torch.zeros(1, 1, n, n), torch.zeros(1).long()) for n in (6, 7)]}, "samples of one shape"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, object], message: str) -> None:
    arguments = {"train_data": data(), "test_data": data(), **change}
    with pytest.raises(ValueError, match=message):
        PolicyFinetuner(network(), **arguments)  # type: ignore[arg-type]
