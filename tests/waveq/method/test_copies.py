"""Averages and copies of a model under training."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

import waveq
from tests.training import OPTIMIZERS, FunctionalNet, batches, mlp, train
from waveq.method.parametrization import parametrization_of
from waveq.method.seal import seal_of, was_averaged

NAMES = ("0", "2", "4")
AVERAGES: dict[str, dict[str, Any]] = {
    "equal weights": {},
    "moving, many at once": {"multi_avg_fn": get_ema_multi_avg_fn(0.9)},
    "moving, one by one": {"avg_fn": get_ema_avg_fn(0.9)},
}


def run(
    average: dict[str, Any], *, use_buffers: bool, **options: Any
) -> tuple[nn.Sequential, waveq.WaveQ, AveragedModel]:
    model = mlp()
    learn = {} if "bits" in options else {"total_steps": 40, "lambda_beta": 0.2}
    wq = waveq.attach(model, activation_bits=4, **learn, **options)
    averaged = AveragedModel(model, use_buffers=use_buffers, **average)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for batch in batches(40):
        train(model, wq, optimizer, [batch])
        averaged.update_parameters(model)
    return model, wq, averaged


def on_grids(network: nn.Module, bits: dict[str, int]) -> bool:
    return all(network.get_submodule(name).weight.unique().numel() <= 2**b for name, b in bits.items())  # type: ignore[union-attr, operator]


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["dorefa", "lsq", "dsq"])
@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("average", AVERAGES)
def test_an_averaged_copy_becomes_a_network_on_the_grids_of_the_run(
    average: str, use_buffers: bool, quantizer: str
) -> None:
    model, wq, averaged = run(AVERAGES[average], use_buffers=use_buffers, quantizer=quantizer)
    bits, before = wq.bits(), copy.deepcopy(model.state_dict())
    assert min(bits.values()) < 8
    floats = [averaged.module.get_submodule(name).parametrizations.weight.original.detach().clone() for name in NAMES]  # type: ignore[union-attr, index, operator]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the averaged numbers are replaced
        wq.finalize_copy(averaged)
    assert on_grids(averaged.module, bits)
    for name, weight in zip(NAMES, floats, strict=True):  # its own weights, not the run's
        rounded = averaged.module.get_submodule(name).weight
        assert not torch.equal(rounded, model.get_submodule(name).weight)  # type: ignore[arg-type]
        if quantizer == "dorefa":  # no learned scale of its own
            assert torch.equal(rounded, parametrization_of(model.get_submodule(name)).quantize(weight))  # type: ignore[arg-type]
    assert [key for key in averaged.module.state_dict() if "waveq_restore_inputs" not in key] == list(
        mlp().state_dict()
    )
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    twin = mlp()
    waveq.restore_inputs(twin, averaged.module.state_dict())
    twin.load_state_dict(averaged.module.state_dict())
    x = torch.randn(5, 6)
    assert torch.equal(twin(x), averaged(x))
    wq.finalize()
    assert on_grids(model, bits)


@pytest.mark.slow
@pytest.mark.parametrize("average", AVERAGES)
def test_averaged_whole_numbers_are_found_and_restored(average: str) -> None:
    model, wq, averaged = run(AVERAGES[average], use_buffers=True)
    bits, step = wq.bits(), wq.steps
    with pytest.warns(UserWarning, match=r"averaged whole numbers of a quantised model.*wq\.finalize_copy"):
        model.load_state_dict(averaged.module.state_dict())
    with pytest.warns(UserWarning, match=f"averaged whole numbers.*as they were before.*step {step}"):
        wq.penalty()
    assert (wq.bits(), wq.steps, wq.phase) == (bits, step, 3)
    assert dict(wq.policy()) == bits
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once
        wq.penalty()
        saved = copy.deepcopy(model.state_dict())
        model.load_state_dict(saved)
        assert wq.steps == step
    fresh = mlp()
    again = waveq.attach(fresh, total_steps=40, activation_bits=4, lambda_beta=0.2)
    fresh.load_state_dict(saved)
    assert (again.bits(), again.steps) == (bits, step)


@pytest.mark.slow
def test_an_averaged_copy_computes_with_bits_that_exist() -> None:
    _, _, averaged = run(AVERAGES["moving, many at once"], use_buffers=True, bits=3)
    with pytest.warns(UserWarning, match="averaged whole numbers"):
        averaged(torch.randn(3, 6))
    for name in NAMES:
        state = parametrization_of(averaged.module.get_submodule(name))
        assert (state.bits_now, int(state.total_bits), state.is_quantized) == (3, 3, True)


def test_an_average_over_a_state_dict_is_found_too() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=20, lambda_beta=0.2)
    mean = copy.deepcopy(model.state_dict())
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for batch in batches(20):
        train(model, wq, optimizer, [batch])
        for key, value in model.state_dict().items():
            if not key.endswith("_extra_state"):
                mean[key].copy_(0.9 * mean[key] + 0.1 * value)
    bits = wq.bits()
    with pytest.warns(UserWarning, match="averaged whole numbers"):
        model.load_state_dict(mean)
    assert wq.bits() == bits
    with pytest.warns(UserWarning, match="step 20"):
        wq.step()
    assert wq.steps == 21


def test_copies_of_whole_numbers_are_taken_as_they_are() -> None:
    """Moving averages that copy what is not floating point, as timm's do."""
    model = mlp()
    wq = waveq.attach(model, total_steps=20, lambda_beta=0.2)
    averaged = copy.deepcopy(model)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in batches(20):
            train(model, wq, optimizer, [batch])
            for mean, value in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, 0.1)
                else:
                    mean.copy_(value)
        averaged(torch.randn(3, 6))
        assert {name: parametrization_of(averaged.get_submodule(name)).bits_now for name in NAMES} == wq.bits()
        wq.finalize_copy(averaged)
    assert on_grids(averaged, wq.bits())


def test_seals() -> None:
    states = [(bits, quantized) for bits in range(10) for quantized in (0, 1)]
    seals = {state: seal_of(*state) for state in states}
    assert len(set(seals.values())) == len(states)
    for state, seal in seals.items():
        assert not was_averaged(torch.tensor(seal), 0, *state)
        assert not was_averaged(torch.tensor(float(seal)), 0, *state)
        assert not was_averaged(torch.tensor(float(seal)).half(), 0, *state)  # infinite
        assert not was_averaged(torch.tensor(float(seal)).bfloat16(), 0, *state)
        for other, theirs in seals.items():
            if other != state:
                assert was_averaged(torch.tensor((9 * seal + theirs) // 10), seal, *state) or state == other


# ---------------------------------------------------------------------- copies


@pytest.mark.parametrize("how", ["finalize", "remove"])
def test_a_copy_that_is_left_leaves_the_original_alone(how: str) -> None:
    model = FunctionalNet()
    wq = waveq.attach(model, bits=3, activation_bits=4)
    x = torch.randn(2, 3, 5, 5)
    expected = model(x)
    twin, handle = copy.deepcopy((model, wq))
    getattr(handle, how)()
    assert torch.equal(model(x), expected)
    (model(x).sum() + wq.penalty()).backward()
    if how == "finalize":
        assert torch.equal(twin(x), expected)
    wq.finalize()
    assert torch.equal(model(x), expected)


def test_only_copies_of_the_model_are_finished() -> None:
    model, other = mlp(), mlp()
    wq = waveq.attach(model, bits=3)
    waveq.attach(other, bits=3, skip=("2",))
    for wrong, message in (
        (mlp(), "a copy of the attached model is expected, or AveragedModel with one, not this Sequential"),
        (other, "the copy's layer '2' is no copy"),
        (model, "the copy's layer '0' is no copy"),
    ):
        before = copy.deepcopy(wrong.state_dict())
        with pytest.raises(ValueError, match=message):
            wq.finalize_copy(wrong)
        assert list(wrong.state_dict()) == list(before)
    learning = mlp()
    handle = waveq.attach(learning, total_steps=20)
    with pytest.raises(RuntimeError, match=r"bits are still being learned; wq\.freeze\(\)"):
        handle.finalize_copy(copy.deepcopy(learning))
    handle.freeze()
    twin = copy.deepcopy(learning)
    handle.finalize_copy(twin)
    with pytest.raises(ValueError, match="finish each copy once"):
        handle.finalize_copy(twin)
    assert on_grids(twin, handle.bits())
