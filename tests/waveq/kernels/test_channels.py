"""Rows of numbers for output channels: kernels against closed forms, gradients against autograd and differences."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import waveq
from tests.waveq.kernels import cases
from waveq import use_backend
from waveq._kernels.cpu.engine import NumbaEngine
from waveq._kernels.parts import Parts, in_parts, out_of_parts
from waveq._kernels.rounding import Formulas
from waveq.layers import Outputs


@pytest.mark.parametrize(("method", "scale"), cases.CHANNEL_METHODS)
def test_kernels_equal_their_closed_forms_channel_by_channel(method: str, scale: str) -> None:
    cases.check_channels(NumbaEngine(), method, scale)


def test_half_precision_by_channel() -> None:
    cases.check_channels(NumbaEngine(), "dorefa", "max", torch.bfloat16)


@pytest.mark.parametrize(("shape", "outputs"), cases.BY_CHANNEL)
def test_weights_are_laid_out_by_channel_and_back(shape: tuple[int, ...], outputs: Outputs) -> None:
    weight = torch.randn(shape)
    (laid,) = in_parts([weight], [outputs])
    assert laid is not None
    assert torch.equal(laid.reshape(outputs.count(weight), -1), outputs.rows(weight))
    assert torch.equal(out_of_parts([laid], [outputs], [weight])[0], weight)


def test_channels_are_runs_of_memory_whatever_the_layout() -> None:
    transposed, last = torch.randn(5, 4).T, torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    first, second = in_parts([transposed, last], [Outputs(), Outputs()])
    assert first is not None
    assert first.is_contiguous()
    assert torch.equal(first, transposed)
    assert second is last  # each channel is one run there as well


def test_some_of_the_layers_come_with_their_rows() -> None:
    parts = Parts((2, 3, 1, 4))
    assert parts.some([0, 3]).counts == (2, 4)
    assert parts.rows(slice(1, 3)) == slice(2, 6)
    assert parts.some(slice(1, 3)).spread(torch.tensor([5.0, 6.0])).tolist() == [5.0, 5.0, 5.0, 6.0]


def _network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.Tanh(),
        nn.ConvTranspose2d(4, 6, 2, groups=2),
        nn.Flatten(),
        nn.Linear(54, 3),
    ).to(dtype)
    with torch.no_grad():
        model[0].weight[1] = 0.0  # a channel of zeros
        model[2].weight.mul_(torch.tensor([1.0, 0.1, 0.01, 10.0], dtype=dtype).reshape(4, 1, 1, 1))
    return model


def _gradients(model: nn.Module, form: str, x: Tensor, **options: Any) -> list[Tensor]:
    """Loss, and the gradients of all that is learned, of a step in which wave, task and price act."""
    model = copy.deepcopy(model)
    options = {"total_steps": 10**6, "schedule": lambda _step: (0.2, 0.02), "granularity": "channel"} | options
    wq = waveq.attach(model, **options)
    wq.step()
    for layer in wq._layers.values():
        layer.state.strength.fill_(0.5)
        if layer.state.learns:
            layer.state.beta.data.fill_(2.4)
    with use_backend(form):
        loss = model(x).square().mean() + wq.penalty()
        loss.backward()
    betas = [layer.state.beta.grad for layer in wq._layers.values() if layer.state.beta.grad is not None]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [loss.detach(), *gradients, *betas]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("method", "scale"), cases.CHANNEL_METHODS)
def test_whole_steps_by_channel_give_the_gradients_of_the_formulas(method: str, scale: str, dtype: torch.dtype) -> None:
    model, x = _network(dtype), torch.linspace(-2, 2, 216, dtype=dtype).cos().reshape(3, 2, 6, 6)
    for options in ({"preset": "recommended"}, {"preset": "paper"}, {"bits": 3, "total_steps": None}):
        ours, theirs = (
            _gradients(model, form, x, quantizer=method, scale=scale, **options) for form in ("auto", "plain")
        )
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert cases.relative(one, other) < (2e-4 if dtype is torch.float32 else 1e-5)  # scales are float32


def test_gradients_of_some_layers_only() -> None:
    """A loss that reaches one layer of a group goes through that layer's rows."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4))
    wq = waveq.attach(model, bits=3, quantizer="lsq", granularity="channel")
    first, second = (layer.state.quantizer.step for layer in wq._layers.values())
    model(torch.randn(5, 3)).sum().backward()  # both are read together from now on
    wq.step()
    model.zero_grad()
    _, weight = model[0].weight, model[1].weight
    weight.sum().backward()
    assert first.grad is None
    assert second.grad is not None
    assert second.grad.shape == (4,)
    assert bool((second.grad != 0).all())


def test_the_wave_by_channel_passes_gradcheck() -> None:
    """The compiled path's own way back in float64, through weights and beta, each channel with its own span."""
    from waveq._kernels.closed_forms import TorchEngine
    from waveq._kernels.rounding import hand_out, records_of

    weight = (torch.randn(3, 5, dtype=torch.float64) * torch.tensor([[1.0], [0.1], [10.0]])).requires_grad_()
    state = cases.layer("lsq", "learned", weight, 2.4, outputs=Outputs())

    def wave(w: Tensor) -> Tensor:
        formulas = Formulas([state], [w], TorchEngine(), rounds=False, wave=True)
        (record,) = records_of(formulas, [w], TorchEngine(), keeps=False)
        sines = hand_out(record)[1]
        assert sines is not None
        return sines.by_weights

    assert torch.autograd.gradcheck(wave, (weight,), eps=1e-7, atol=1e-4)
