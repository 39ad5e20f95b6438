from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch.optim.swa_utils
from torch import nn

import waveq
from tests.training import OPTIMIZERS, FunctionalNet, batches, mlp, train
from waveq.method.parametrization import STATE, WaveParametrization, parametrization_of

MOVES: dict[str, Callable[[nn.Module], Any]] = {
    "double": lambda m: m.double(),
    "bfloat16": lambda m: m.bfloat16(),
    "half": lambda m: m.half(),
    "to dtype": lambda m: m.to(torch.float64),
    "to device": lambda m: m.to("cpu"),
    "to both": lambda m: m.to("cpu", torch.bfloat16),
    "float": lambda m: m.float(),
    "channels last": lambda m: m.to(memory_format=torch.channels_last),
    "share memory": lambda m: m.share_memory(),
}


def states(model: nn.Module) -> list[WaveParametrization]:
    return [m for m in model.modules() if isinstance(m, WaveParametrization)]


@pytest.mark.parametrize("move", MOVES)
def test_moving_keeps_beta_a_float32_leaf(move: str) -> None:
    model = FunctionalNet()
    waveq.attach(model, total_steps=10)
    dtypes = [{name: getattr(state, name).dtype for name in STATE} for state in states(model)]
    MOVES[move](model)
    for state, before in zip(states(model), dtypes, strict=True):
        assert state.beta.is_leaf
        assert state.beta.requires_grad
        assert {name: getattr(state, name).dtype for name in STATE} == before
    assert model.waveq_step.dtype == model.waveq_dual.dtype == torch.int64


@pytest.mark.slow
@pytest.mark.parametrize("move", ["double", "bfloat16", "to both", "channels last"])
def test_a_moved_model_goes_on_learning(move: str) -> None:
    model = FunctionalNet()
    wq = waveq.attach(model, total_steps=20, activation_bits=4, target={"mean_bits": 4.0})
    MOVES[move](model)
    dtype = model.fc.bias.dtype
    data = [(x.to(dtype), y) for x, y in batches(20, shape=(3, 5, 5))]
    train(model, wq, torch.optim.SGD(model.parameters(), lr=0.01), data)
    assert wq.phase == 3
    assert wq.policy().mean_bits <= 4.0
    assert model.conv1.weight.dtype == dtype
    wq.finalize()
    assert model.conv1.weight.dtype == dtype
    assert bool(torch.isfinite(model(data[0][0])).all())


def test_frozen_beta_stays_frozen_when_moved() -> None:
    model = mlp()
    waveq.attach(model, bits=4)
    model.double()
    assert not any(state.beta.requires_grad for state in states(model))


def test_a_copy_is_a_model_of_its_own() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=40)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    train(model, wq, optimizer, batches(8))
    twin = copy.deepcopy(model)
    x = torch.randn(4, 6)
    assert torch.equal(twin(x), model(x))
    before = copy.deepcopy(twin.state_dict())
    train(model, wq, optimizer, batches(8))
    assert all(torch.equal(twin.state_dict()[name], before[name]) for name in before)
    assert all(state.beta.is_leaf and state.beta.requires_grad for state in states(twin))


@pytest.mark.slow
def test_model_and_handle_copied_together_train_alike() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=40, target={"mean_bits": 4.0})
    train(model, wq, torch.optim.SGD(model.parameters(), lr=0.05), batches(10))
    twin, twin_wq = copy.deepcopy((model, wq))
    for one, handle in ((model, wq), (twin, twin_wq)):
        train(one, handle, torch.optim.SGD(one.parameters(), lr=0.05), batches(30, seed=9))
    assert twin_wq.policy().to_json() == wq.policy().to_json()
    twin_wq.finalize()
    assert wq.penalty().item() >= 0
    assert torch.nn.utils.parametrize.is_parametrized(model[0])
    assert list(twin.state_dict()) == list(mlp().state_dict())


def test_a_copied_handle_follows_the_checkpoints_of_its_own_model() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=40)
    twin, twin_wq = copy.deepcopy((model, wq))
    for _ in range(5):
        wq.step()
    assert (wq.steps, twin_wq.steps) == (5, 0)
    twin.load_state_dict(model.state_dict())
    assert twin_wq.steps == 5


def test_weights_changed_from_outside_are_seen_at_once() -> None:
    """Whatever is remembered of a quantised weight, averaging and swapping must not meet a stale one.

    In training mode, what leaves no trace on the tensor (``.data``, numpy) is seen from the next optimizer step or
    backward pass on; in evaluation at once.
    """
    model = mlp()
    wq = waveq.attach(model, bits=3, quantizer="wrpn")
    original = model[0].parametrizations.weight.original  # type: ignore[union-attr, index]
    x = torch.randn(4, 6)
    changes: list[Callable[[], Any]] = [
        lambda: original.data.mul_(2.0),
        lambda: original.data.copy_(torch.randn(24, 6)),
        lambda: setattr(original, "data", torch.randn(24, 6)),
        lambda: nn.utils.vector_to_parameters(torch.randn(24 * 6), [original]),
        lambda: nn.init.normal_(original),
        lambda: original.detach().numpy().fill(0.25),
    ]
    for place, change in enumerate([*changes, *changes[3:5]]):
        model.train(place >= len(changes))
        model(x)
        wq.penalty()
        with torch.no_grad():
            change()
        seen = model[0].weight
        state = parametrization_of(model[0])
        expected = state.quantizer(original, state.bits(), state.stretch())
        torch.testing.assert_close(seen, expected, msg=f"change {place}")


def test_a_tensor_that_took_another_one_s_place_in_memory_is_not_taken_for_it() -> None:
    model = mlp()
    waveq.attach(model, bits=3, forward="float", total_steps=10)
    state = parametrization_of(model[0])
    place = model[0].parametrizations.weight.original.detach().numpy().copy()
    first = state.quantize(torch.from_numpy(place)).clone()
    place *= -1  # as if it had been given back and taken by somebody else: same address, version 0 again
    assert torch.equal(state.quantize(torch.from_numpy(place)), -first)


def test_an_optimizer_that_writes_through_data_is_followed() -> None:
    """Many published optimizers update ``p.data`` by hand."""
    data, ends = batches(12), []
    for by_hand in (False, True):
        model = mlp()
        wq = waveq.attach(model, bits=3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for x, y in data:
            optimizer.zero_grad()
            (F.cross_entropy(model(x), y) + wq.penalty()).backward()
            if by_hand:
                for p in model.parameters():
                    assert p.grad is not None
                    p.data.add_(p.grad.data, alpha=-0.05)
            else:
                optimizer.step()
            wq.step()
        ends.append(copy.deepcopy(model.state_dict()))
    for ours, theirs in zip(ends[0].values(), ends[1].values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_beta_changed_from_outside_is_seen_at_once() -> None:
    model = mlp()
    waveq.attach(model, total_steps=9, schedule="constant", quantizer="wrpn")
    state = parametrization_of(model[0])
    coarse = []
    for beta in (7.0, 1.0, 3.5):
        with torch.no_grad():
            state.beta.fill_(beta)
        coarse.append(len(model[0].weight.unique()))
    assert coarse[1] <= 3 < coarse[2] < coarse[0]


@pytest.mark.slow
def test_a_moving_average_of_the_model_follows_its_phases() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=40, lambda_beta=0.2)
    ema = torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=ema)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for batch in batches(60):
        train(model, wq, optimizer, [batch])
        average.update_parameters(model)
    average(torch.randn(2, 6))
    for state, ours in zip(states(average), states(model), strict=True):
        assert state.is_quantized
        assert state.bits_now == ours.bits_now > 0
    assert len(average.module[0].weight.unique()) <= 2 ** wq.bits()["0"]


def test_gradients_do_not_leak_between_forward_passes() -> None:
    """Twice forward and backward gives twice the gradient, also when the second pass meets remembered weights."""
    model = FunctionalNet()
    waveq.attach(model, total_steps=9, schedule="constant", preset="recommended")
    x, y = batches(1, shape=(3, 5, 5))[0]
    F.cross_entropy(model(x), y).backward()
    once = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    beta_once = [state.beta.grad.clone() for state in states(model) if state.beta.grad is not None]
    F.cross_entropy(model(x), y).backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, 2 * once[name])
    assert len(beta_once) == 5
    for state, slope in zip(states(model), beta_once, strict=True):
        torch.testing.assert_close(state.beta.grad, 2 * slope)


@pytest.mark.slow
def test_evaluation_between_training_steps_changes_nothing() -> None:
    data, ends = batches(30), []
    for evaluates in (False, True):
        model = mlp()
        wq = waveq.attach(model, total_steps=30)
        optimizer = OPTIMIZERS["adam"](model.parameters())
        for batch in data:
            train(model, wq, optimizer, [batch])
            if evaluates:
                model.eval()
                with torch.no_grad():
                    model(batch[0])
                    wq.penalty()
                with torch.inference_mode():
                    model(batch[0])
                model.train()
        ends.append(copy.deepcopy(model.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(ends[0].values(), ends[1].values(), strict=True))


def test_channels_last_gives_the_same_network() -> None:
    x = torch.randn(4, 3, 6, 6)
    outputs = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = FunctionalNet().to(memory_format=layout)  # type: ignore[call-overload]
        wq = waveq.attach(model, bits=3, quantizer="wrpn", activation_bits=4)
        outputs.append(model(x.to(memory_format=layout)))
        wq.finalize()
        outputs.append(model(x.to(memory_format=layout)))
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=1e-4, atol=1e-5)


# ---------------------------------------------------------------------- inputs of layers


def test_inputs_are_quantised_where_asked_and_signs_are_seen() -> None:
    model = FunctionalNet()
    seen: dict[str, torch.Tensor] = {}
    waveq.attach(model, bits=8, activation_bits={"conv1": 3, "fc": 2}, activation_quantizer="dorefa")
    for name in ("conv1", "grouped", "fc"):
        model.get_submodule(name).register_forward_pre_hook(lambda _m, args, n=name: seen.update({n: args[0]}))
    model(torch.randn(8, 3, 6, 6))
    assert len(seen["conv1"].unique()) <= 7  # signed: 2^3 - 1 levels
    assert float(seen["conv1"].min()) == -1
    assert set(seen["fc"].unique().tolist()) <= {0.0, 1 / 3, 2 / 3, 1.0} | set(torch.tensor([1 / 3, 2 / 3]).tolist())
    assert len(seen["grouped"].unique()) > 50
    assert parametrization_of(model.conv1).signed_now == 1
    assert parametrization_of(model.fc).signed_now == 0


def test_a_dry_run_on_zeros_or_meta_tensors_decides_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    waveq.attach(model, bits=8, activation_bits={"0": 4, "1": 4})
    model(torch.zeros(2, 4))
    assert parametrization_of(model[0]).signed_now == -1
    copy.deepcopy(model).to("meta")(torch.empty(2, 4, device="meta"))
    model(-torch.ones(2, 4))
    assert parametrization_of(model[0]).signed_now == 1


def test_inputs_given_by_keyword_are_quantised_too() -> None:
    class ByKeyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(input=x)  # type: ignore[no-any-return]

    model, x = ByKeyword(), torch.rand(8, 4)
    wq = waveq.attach(model, bits=8, activation_bits={"fc": 1}, activation_quantizer="dorefa")
    expected = F.linear(x.round(), model.fc.weight, model.fc.bias)
    torch.testing.assert_close(model(x), expected)
    wq.finalize()
    torch.testing.assert_close(model(x), expected)


def test_a_new_attachment_replaces_finalised_input_quantisers() -> None:
    model = FunctionalNet()
    waveq.attach(model, bits=4, activation_bits=1, activation_quantizer="range").finalize()
    waveq.attach(model, bits=4, activation_bits=8)
    seen = []
    model.fc.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    model(torch.rand(64, 3, 6, 6))
    assert len(seen[0].unique()) > 2
