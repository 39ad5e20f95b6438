"""What is done to a model after ``attach`` and cannot be followed is found at a step or at the end, by name."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import waveq
from tests.training import batches, mlp, train


def test_a_replaced_head_is_an_error_that_names_both() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3)
    model[4] = nn.Linear(24, 3)
    with pytest.raises(RuntimeError, match=r"^4: no longer part of the model, .*; 4: there instead, and not quantised"):
        train(model, wq, torch.optim.SGD(model.parameters(), lr=0.05), batches(1))
    with pytest.raises(RuntimeError, match="no longer part of the model"):
        wq.finalize()


def test_a_layer_replaced_in_the_middle_is_found_by_finalize() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3)
    train(model, wq, torch.optim.SGD(model.parameters(), lr=0.05), batches(3))
    head = model[4]
    model[4] = nn.Identity()
    with pytest.raises(RuntimeError, match=r"^4: no longer part of the model, replaced since attach\(\)\. Call"):
        wq.finalize()
    model[4] = head
    wq.finalize()
    assert model[4].weight.unique().numel() <= 8  # type: ignore[operator, union-attr]


def test_wrapping_a_layer_is_no_replacement() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3)
    model[4] = nn.Sequential(model[4], nn.Identity())
    train(model, wq, torch.optim.SGD(model.parameters(), lr=0.05), batches(2))
    wq.finalize()


class Adapted(nn.Module):
    """A layer with an update beside it, which peft's ``merge_and_unload`` puts into the weight."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = layer
        self.lora = nn.Linear(layer.in_features, layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x) + self.lora(x)  # type: ignore[no-any-return]


def test_adapters_that_are_merged_into_a_computed_weight_are_said() -> None:
    model = nn.Sequential(nn.Linear(6, 6), Adapted(nn.Linear(6, 3)))
    wq = waveq.attach(model, bits=3, skip=("1.lora",))
    train(model, wq, torch.optim.SGD(model.parameters(), lr=0.05), batches(2))
    adapted: Any = model[1]
    adapted.base_layer.weight.data += adapted.lora.weight.data
    model[1] = adapted.base_layer
    with pytest.warns(UserWarning, match=r"are gone since attach\(\): 1.base_layer \(in a Adapted\)\. If they merged"):
        wq.finalize()


def _initialise(model: nn.Module) -> None:
    model.apply(lambda module: nn.init.normal_(module.weight) if isinstance(module, nn.Linear) else None)  # type: ignore


@torch.no_grad()
def _scale(model: nn.Module) -> None:
    model[2].weight.mul_(0.5)  # type: ignore[index]


def _clamp(model: nn.Module) -> None:
    model[2].weight.data.clamp_(-0.01, 0.01)  # type: ignore[index]


@pytest.mark.parametrize(("write", "names"), [(_initialise, "0, 2, 4"), (_scale, "2"), (_clamp, "2")])
def test_writing_into_computed_weights_is_said(write: Callable[[nn.Module], None], names: str) -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3)
    write(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    with pytest.warns(UserWarning, match=rf"wrote into the quantised weights of {names} \(apply"):
        train(model, wq, optimizer, batches(1))
    train(model, wq, optimizer, batches(49))
    with pytest.warns(UserWarning, match=f"wrote into the quantised weights of {names} "):
        _write_and_go_on(model, wq, optimizer, write)


def _write_and_go_on(model: nn.Module, wq: waveq.WaveQ, optimizer: Any, write: Callable[[nn.Module], None]) -> None:
    model(batches(1)[0][0])
    write(model)
    train(model, wq, optimizer, batches(2))


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["lsq", "dsq", "wrpn"])
def test_scales_that_no_optimizer_moves_are_named(quantizer: str) -> None:
    for early in (True, False):
        for steps in (5, 22):
            model = mlp()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
            wq = waveq.attach(model, bits=3, quantizer=quantizer, scale="learned")
            if not early:
                optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                train(model, wq, optimizer, batches(steps))
                during = len(caught)
                wq.finalize()
            told = [str(warning.message) for warning in caught]
            assert (during, len(told)) == (int(early and steps == 22), int(early))
            assert all("no optimizer moves what is learned beside the weights of 0, 2, 4" in text for text in told)


def test_a_model_under_watch_can_be_copied() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3)
    model(torch.randn(2, 6)).sum().backward()
    twin, handle = copy.deepcopy((model, wq))
    train(twin, handle, torch.optim.SGD(twin.parameters(), lr=0.05), batches(2))
    handle.finalize()


@pytest.mark.slow
def test_nothing_is_said_of_an_ordinary_run() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=120, activation_bits=4, quantizer="lsq")
    optimizer: Any = torch.optim.Adam(model.parameters(), lr=3e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, wq, optimizer, batches(120))
        wq.finalize()
    assert isinstance(model[0].weight, Tensor)
