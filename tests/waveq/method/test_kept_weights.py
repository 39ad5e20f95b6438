"""Evaluation rounds a layer's weights once, and again whenever anything changes that they follow from."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import waveq
from tests.training import OPTIMIZERS, batches, mlp, train
from waveq._kernels.groups import forget_weights
from waveq.method.parametrization import WaveParametrization, parametrization_of

SIZE = 64  # 4096 weights: more than are compared


def network(**options: Any) -> tuple[nn.Sequential, waveq.WaveQ]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(SIZE, SIZE), nn.ReLU(), nn.Linear(SIZE, SIZE))
    wq = waveq.attach(model, **{"bits": 3, **options})
    return model.eval(), wq


def original(layer: nn.Module) -> nn.Parameter:
    return layer.parametrizations.weight.original  # type: ignore[union-attr, index, return-value]


@pytest.fixture
def count(monkeypatch: pytest.MonkeyPatch) -> list[WaveParametrization]:
    """Every rounding, by who did it."""
    made: list[WaveParametrization] = []
    quantize = WaveParametrization.quantize

    def counted(self: WaveParametrization, weight: Tensor) -> Tensor:
        made.append(self)
        return quantize(self, weight)

    monkeypatch.setattr(WaveParametrization, "quantize", counted)
    return made


@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("quantizer", ["dorefa", "wrpn", "lsq", "lqnets"])
@pytest.mark.parametrize("bits", [2, 4])
def test_evaluation_rounds_once(count: list[Any], grad: Callable[[], Any], quantizer: str, bits: int) -> None:
    model, _ = network(quantizer=quantizer, bits=bits)
    x = torch.randn(4, SIZE)
    count.clear()  # torch looks at what it is given when it is registered
    with grad():
        first = model(x)
        for _ in range(5):
            assert torch.equal(model(x), first)
    assert len(count) == 2


def test_averaged_weights() -> None:
    """Swapped in and out, in place or not, between two evaluations without anything else between."""
    for swap in ("copy", "data"):
        model, _ = network()
        fresh = copy.deepcopy(model)
        averaged = {name: torch.randn_like(p) for name, p in model.named_parameters()}
        x = torch.randn(4, SIZE)
        with torch.no_grad():
            before = model(x)
            for twin in (model, fresh):
                for name, p in twin.named_parameters():
                    if swap == "copy":
                        p.data.copy_(averaged[name])
                    else:
                        p.data = averaged[name].clone()
            assert not torch.equal(model(x), before)
            assert torch.equal(model(x), fresh(x))


CHANGES: dict[str, Callable[[nn.Sequential, waveq.WaveQ], object]] = {
    "in place": lambda model, wq: original(model[0])[3, 5].add_(1.0),
    "all through .data": lambda model, wq: original(model[0]).data.mul_(0.9),
    "a small layer through .data": lambda model, wq: original(model[0]).data.view(-1)[:8].zero_(),
    "told": lambda model, wq: (original(model[0]).data[3, 5].add_(1.0), wq.forget_weights()),
    "optimizer": lambda model, wq: torch.optim.SGD(model.parameters(), lr=0.1).step(),
    "checkpoint": lambda model, wq: model.load_state_dict(network()[0].state_dict()),
    "learned": lambda model, wq: parametrization_of(model[0]).beta.detach().fill_(1.0),
    "frozen": lambda model, wq: wq.freeze(),
    "moved": lambda model, wq: model.double(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_a_weight_is_seen(change: str) -> None:
    model, wq = network(
        **({"bits": "learn", "total_steps": 10, "schedule": "constant"} if change in ("learned", "frozen") else {})
    )
    for layer in (model[0], model[2]):
        parametrization_of(layer).set_quantized(True)
    with torch.no_grad():
        _ = model[0].weight, model[2].weight
        if change == "optimizer":
            for p in model.parameters():
                p.grad = torch.ones_like(p)
        CHANGES[change](model, wq)
        read = model[0].weight
        forget_weights()
        assert torch.equal(read, model[0].weight)


def test_gradients_are_there_for_whoever_asks() -> None:
    model, _ = network()
    x = torch.randn(4, SIZE)
    with torch.inference_mode():
        model(x)
    with torch.no_grad():
        model(x)
    model(x).sum().backward()
    assert original(model[0]).grad is not None


def test_a_value_that_somebody_writes_into_is_not_handed_out_again() -> None:
    model, _ = network()
    with torch.no_grad():
        right = model[0].weight.clone()
        model[0].weight.zero_()
        assert torch.equal(model[0].weight, right)


def test_rounded_blocks_and_training_between() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3, forward="float", total_steps=20)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for batch in batches(6):
        train(model.train(), wq, optimizer, [batch])
        assert parametrization_of(model[0]).kept._value is None  # freed with the step
        with torch.no_grad(), wq.rounded():
            model.eval()(batch[0])
            rounded = model[0].weight
            assert len(rounded.unique()) <= 8
        with torch.no_grad():
            assert torch.equal(model[0].weight, original(model[0]))


def test_copies_and_files_start_empty() -> None:
    model, _ = network()
    with torch.no_grad():
        model(torch.randn(2, SIZE))
    kept = parametrization_of(model[0]).kept
    assert kept._value is not None
    assert copy.deepcopy(kept)._value is None
    assert pickle.loads(pickle.dumps(kept))._value is None


def test_a_kept_weight_is_copied_once_while_the_model_is_watched() -> None:
    model, _ = network()
    state = parametrization_of(model[0])
    with torch.no_grad():
        kept = model[0].weight
        copied = state.watched._copy  # type: ignore[union-attr]
        assert model[0].weight is kept
    assert copied is not None
    assert state.watched._copy is copied  # type: ignore[union-attr]
    kept.data.mul_(2.0)
    assert state.watched.was_written()  # type: ignore[union-attr]
