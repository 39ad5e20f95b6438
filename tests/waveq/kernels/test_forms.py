"""Complete default runs on digits: the kernels' closed forms and the kernels themselves beside the plain form."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from waveq._kernels.backends import use_backend
from waveq.method.parametrization import parametrization_of
from waveq.zoo import build, load_data

EPOCHS, BATCH, RATE = 5, 64, 0.02


def images(noise: float) -> tuple[Tensor, Tensor]:
    """Training images. With noise no two sums in a pooling window are equal: pixels are whole numbers, levels equally
    far apart, and of two equal maxima the last bit of a sum chooses the one that gets the gradient."""
    split = load_data("digits").train
    x, y = split.batch(torch.arange(len(split)))
    return x + noise * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), y


def steps(data: tuple[Tensor, Tensor], epochs: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for part in torch.randperm(len(data[0]), generator=generator).split(BATCH)[:-1]:
            yield data[0][part], data[1][part]


@pytest.fixture(scope="module")
def float_network() -> nn.Module:
    """Where every run starts."""
    torch.manual_seed(0)
    model = build("digitsnet")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for x, y in steps(images(0.0), 3, seed=2):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model


def length(data: tuple[Tensor, Tensor]) -> int:
    return EPOCHS * (-(-len(data[0]) // BATCH) - 1)


def loss_of(model: nn.Module, handle: waveq.WaveQ, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y) + handle.penalty()


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=1e-4)


def widen(model: nn.Module, handle: waveq.WaveQ) -> None:
    """Keep what is learned beside the weights in float64 too; it is float32 in every model."""
    for name in handle.names:
        state = parametrization_of(model.get_submodule(name))
        for buffer in ("strength", "velocity", "trend", "bound"):
            setattr(state, buffer, getattr(state, buffer).double())
        state.beta = state.beta.detach().double().requires_grad_(state.learns)


def whole_run(start: nn.Module, form: str) -> tuple[dict[str, int], list[list[float]], list[float], set[int]]:
    """Bits at the end; betas and loss at every step; the phases seen. In float64."""
    x, y = images(0.01)
    data = (x.double(), y)
    model = copy.deepcopy(start).double()
    betas, losses, phases = [], [], set()
    with use_backend(form):
        handle = waveq.attach(model, total_steps=length(data))
        widen(model, handle)
        optimizer = optimizer_of(model)
        for batch in steps(data, EPOCHS, seed=3):
            phases.add(handle.phase)
            loss = loss_of(model, handle, *batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            handle.step()
            betas.append(list(handle.betas().values()))
            losses.append(loss.item())
    return handle.bits(), betas, losses, phases


@pytest.mark.slow
def test_a_whole_run_in_float64_is_the_same_with_the_closed_forms_as_with_the_plain_ones(
    float_network: nn.Module,
) -> None:
    """All three phases: the same bits; at every step betas within 1e-11 and the loss within 1e-10."""
    bits, betas, losses, phases = whole_run(float_network, "plain")
    our_bits, our_betas, our_losses, _ = whole_run(float_network, "torch")
    assert phases == {1, 2, 3}
    assert max(betas[0]) - min(betas[-1]) > 2.0  # they have learned
    assert our_bits == bits
    torch.testing.assert_close(torch.tensor(our_betas), torch.tensor(betas), rtol=0.0, atol=1e-11)
    torch.testing.assert_close(torch.tensor(our_losses), torch.tensor(losses), rtol=0.0, atol=1e-10)


def gradients(model: nn.Module, handle: waveq.WaveQ, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Of weights and betas; what was there before is cleared."""
    model.zero_grad()
    for name in handle.names:
        parametrization_of(model.get_submodule(name)).beta.grad = None
    loss_of(model, handle, *batch).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    for name in handle.names:
        slope = parametrization_of(model.get_submodule(name)).beta.grad
        if slope is not None:
            found[f"beta of {name}"] = slope.clone()
    return found


def weights(model: nn.Module, handle: waveq.WaveQ) -> Tensor:
    """All quantised weights, each in units of its layer's largest."""
    found = [model.get_submodule(name).weight.detach().flatten() for name in handle.names]
    return torch.cat([weight / weight.abs().max() for weight in found])


@pytest.mark.slow
def test_at_every_step_of_a_whole_run_the_kernels_take_the_plain_form_s_step(float_network: nn.Module) -> None:
    """In float32 the kernels are put where the plain form has come to: a weight flips only beside a threshold."""
    data = images(0.01)
    models, handles = [], []
    for form in ("plain", "numba"):
        models.append(copy.deepcopy(float_network))
        with use_backend(form):
            handles.append(waveq.attach(models[-1], quantizer="dorefa", total_steps=length(data)))
    (plain, fused), (handle, ours) = models, handles
    optimizer = optimizer_of(plain)
    flips, largest = 0, 0.0
    for batch in steps(data, EPOCHS, seed=3):
        with use_backend("plain"):
            expected = gradients(plain, handle, batch)
            want = weights(plain, handle)
        fused.load_state_dict(plain.state_dict())
        with use_backend("numba"):
            found = gradients(fused, ours, batch)
            apart = (weights(fused, ours) - want).abs()
            ours.step()  # where it leads does not matter: the state is loaded again
        flipped = int((apart > 1e-3).sum())
        flips += flipped
        assert float(apart[apart <= 1e-3].max()) < 1e-6
        if not flipped:
            largest = max(largest, apart_most(found, expected))
        with use_backend("plain"):
            optimizer.step()
            handle.step()
    assert flips <= length(data) // 10
    assert largest < 1e-3


def apart_most(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative difference of the gradients; below 1e-4 it is an absolute one, in units of 1e-4."""
    assert found.keys() == expected.keys()
    return max(float((found[name] - value).norm() / value.norm().clamp_min(1e-4)) for name, value in expected.items())
