"""Runs that stop and go on, and runs under every optimizer of the user's."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import waveq
from tests.training import OPTIMIZERS, FunctionalNet, batches, beta_of, mlp, originals, train
from waveq.method.parametrization import parametrization_of
from waveq.method.presets import PRESETS

# ---------------------------------------------------------------------- resuming


@pytest.mark.slow
@pytest.mark.parametrize("target", [None, {"mean_bits": 4.0}])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_resumed_run_is_the_same_run(preset: str, optimizer: str, target: dict[str, float] | None) -> None:
    data = batches(48)
    options: dict[str, Any] = {"total_steps": 48, "preset": preset, "target": target, "quantizer": "wrpn"}

    whole = mlp()
    wq = waveq.attach(whole, **options)
    whole_optimizer = OPTIMIZERS[optimizer](whole.parameters())
    schedule = wq.settings.schedule
    assert schedule.fall is not None
    middle = (schedule.rise + schedule.fall) // 2
    train(whole, wq, whole_optimizer, data[:middle])
    assert wq.phase == 2
    file = io.BytesIO()
    torch.save({"model": whole.state_dict(), "optimizer": whole_optimizer.state_dict()}, file)
    train(whole, wq, whole_optimizer, data[middle:])

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = mlp(seed=99)
    again = waveq.attach(resumed, **options)
    resumed_optimizer = OPTIMIZERS[optimizer](resumed.parameters())
    resumed.load_state_dict(saved["model"])
    resumed_optimizer.load_state_dict(saved["optimizer"])
    assert again.steps == middle
    train(resumed, again, resumed_optimizer, data[middle:])

    for (name, ours), theirs in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert wq.betas() == again.betas()
    assert wq.policy().to_json() == again.policy().to_json()
    assert max(wq.betas().values()) < PRESETS[preset].beta_init  # something was learned


@pytest.mark.slow
def test_resuming_with_learned_scale_and_activation_bits() -> None:
    data = batches(40)
    options: dict[str, Any] = {"total_steps": 40, "quantizer": "wrpn", "scale": "learned", "activation_bits": 4}
    models = [mlp(), mlp(seed=5)]
    handles = [waveq.attach(model, **options) for model in models]
    optimizers = [OPTIMIZERS["adam"](model.parameters()) for model in models]
    train(models[0], handles[0], optimizers[0], data[:12])
    models[1].load_state_dict(copy.deepcopy(models[0].state_dict()))
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for model, wq, optimizer in zip(models, handles, optimizers, strict=True):
        train(model, wq, optimizer, data[12:])
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in models), strict=True))


def test_a_layer_is_rounded_alone_as_it_is_among_others() -> None:
    """The first step after loading rounds layer by layer, those before it rounded all of them in one call."""
    torch.manual_seed(0)
    models, handles = [], []
    for _ in range(2):
        model = nn.Sequential(*(nn.Linear(5, 5) for _ in range(40)))
        handles.append(waveq.attach(model, total_steps=20, activation_bits="learn", target={"bitops": 0.5}))
        models.append(model)
    model, wq = models[0], handles[0]
    for _ in range(3):  # betas are between whole numbers then
        (model(torch.randn(4, 5)).square().mean() + wq.penalty()).backward()
        wq.step()
        model.zero_grad()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in model:
            parametrization_of(layer).beta.copy_(1.0 + 6.0 * torch.rand((), generator=generator))
    model(torch.randn(4, 5)).sum().backward()
    models[1].load_state_dict(model.state_dict())
    for among, alone in zip(*models, strict=True):
        assert torch.equal(among.weight, alone.weight)


# ---------------------------------------------------------------------- any optimizer of the user's


def test_optimizers_do_not_see_beta() -> None:
    model = mlp()
    waveq.attach(model, total_steps=10)
    assert not any("beta" in name for name, _ in model.named_parameters())


@pytest.mark.slow
def test_same_weights_same_bits_whatever_the_optimizer() -> None:
    """Rate 0 keeps the weights the same; Adam's normalisation and AdamW's decay must not show in beta."""
    data = batches(60)
    found = []
    for make in (
        lambda p: torch.optim.SGD(p, lr=0.0, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.0),
        lambda p: torch.optim.AdamW(p, lr=0.0, weight_decay=10.0),
    ):
        model = mlp()
        wq = waveq.attach(model, total_steps=60, lambda_beta=0.05)
        train(model, wq, make(model.parameters()), data)
        found.append((wq.betas(), dict(wq.policy())))
    assert found[0] == found[1] == found[2]
    assert any(beta < 6.5 for beta in found[0][0].values())


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer_may_be_built_before_or_after(optimizer: str, before: bool) -> None:
    model = mlp()
    made = OPTIMIZERS[optimizer](model.parameters()) if before else None
    wq = waveq.attach(model, total_steps=30, quantizer="dorefa" if before else None)  # LSQ's steps are made by attach
    made = made or OPTIMIZERS[optimizer](model.parameters())
    start = originals(model)
    train(model, wq, made, batches(30))
    assert all(not torch.equal(start[name], p) for name, p in model.named_parameters() if "original" in name)
    assert wq.phase == 3


@pytest.mark.slow
def test_gradient_accumulation_is_one_large_batch() -> None:
    """Rate 0, so that rounding differences in the weights cannot grow: the betas see the same gradients."""
    data = batches(40, size=64)
    trajectories = []
    for parts in (1, 4):
        model = mlp()
        wq = waveq.attach(model, total_steps=40, lambda_beta=0.05)
        for x, y in data:
            for bx, by in zip(x.chunk(parts), y.chunk(parts), strict=True):
                ((F.cross_entropy(model(bx), by) + wq.penalty()) / parts).backward()
            model.zero_grad()
            wq.step()
        trajectories.append(list(wq.betas().values()))
    assert trajectories[0] == pytest.approx(trajectories[1], abs=1e-4)
    assert min(trajectories[0]) < 6.5


def test_gradient_clipping_leaves_beta_alone() -> None:
    x, y = batches(1)[0]
    slopes = []
    for clip in (False, True):
        model = mlp()
        wq = waveq.attach(model, total_steps=10, schedule="constant")
        (F.cross_entropy(model(x), y) + wq.penalty()).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 1e-6)
        slopes.append([beta_of(model, name).grad.item() for name in wq.names])  # type: ignore[union-attr]
    assert slopes[0] == slopes[1]


@pytest.mark.slow
def test_grad_scale_of_mixed_precision() -> None:
    """A loss scaled by 1024 and told so moves betas and the wave's balance as the plain loss does."""
    data = batches(30)
    ends = []
    for scaled in (False, True):
        model = mlp()
        wq = waveq.attach(model, total_steps=30, schedule="constant", lambda_w=0.3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=1024.0, growth_interval=10**6)
        for x, y in data:
            loss = F.cross_entropy(model(x), y) + wq.penalty()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            wq.step(grad_scale=scaler.get_scale() if scaled else 1.0)
            scaler.update()
        ends.append((list(wq.betas().values()), [float(parametrization_of(model[i]).strength) for i in (0, 2, 4)]))
    assert ends[0][0] == pytest.approx(ends[1][0], abs=1e-3)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-2)


@pytest.mark.slow
def test_bf16_autocast() -> None:
    model = FunctionalNet()
    wq = waveq.attach(model, total_steps=20, activation_bits=8)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for x, y in batches(20, shape=(3, 6, 6)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(x)
            loss = F.cross_entropy(output, y) + wq.penalty()
        assert output.dtype == torch.bfloat16
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
    assert wq.phase == 3
    assert all(beta_of(model, name).dtype == torch.float32 for name in wq.names)
    assert set(wq.policy()) == {"conv1", "depthwise", "grouped", "again", "fc"}
