from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn

import waveq
import waveq.quantizers
from tests.training import OPTIMIZERS, FunctionalNet, batches, mlp, train
from waveq.method.parametrization import parametrization_of


def floats() -> dict[str, Any]:
    return FunctionalNet(seed=7).state_dict()


def same_weights(model: nn.Module, plain: dict[str, Any]) -> bool:
    """Whether an attached model trains the weights of a plain checkpoint."""
    now = model.state_dict()
    inner = {name: name.replace(".weight", ".parametrizations.weight.original") for name in plain}
    return all(torch.equal(now[inner[name] if inner[name] in now else name], plain[name]) for name in plain)


def test_a_plain_checkpoint_loads_before_and_after_attaching() -> None:
    for load_first in (True, False):
        model = FunctionalNet()
        if load_first:
            model.load_state_dict(floats(), strict=True)
        waveq.attach(model, total_steps=10, skip=("conv1",), activation_bits=4)
        if not load_first:
            result = model.load_state_dict(floats(), strict=True)
            assert (result.missing_keys, result.unexpected_keys) == ([], [])
        assert same_weights(model, floats())


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["none", "max", "learned"])
def test_a_plain_checkpoint_keeps_what_it_does_not_know(scale: str) -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=40, quantizer="wrpn", scale=scale)  # type: ignore[arg-type]
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(10))
    betas, steps = wq.betas(), wq.steps
    model.load_state_dict(mlp(seed=4).state_dict())
    assert wq.betas() == betas
    assert wq.steps == steps == 10
    assert all(parametrization_of(model[i]).beta.requires_grad for i in (0, 2, 4))


def test_loading_changes_no_dictionary_of_the_user() -> None:
    plain = floats()
    before = {name: value.clone() for name, value in plain.items()}
    model = FunctionalNet()
    waveq.attach(model, bits=4)
    model.load_state_dict(plain)
    assert list(plain) == list(before)
    assert all(torch.equal(plain[name], before[name]) for name in before)


def test_missing_and_unexpected_keys_are_still_reported() -> None:
    model = FunctionalNet()
    waveq.attach(model, total_steps=10)
    truncated = floats()
    del truncated["fc.weight"], truncated["conv1.bias"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"conv1\.bias".*"fc\.parametrizations\.weight\.original"'):
        model.load_state_dict(truncated)
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"extra"'):
        model.load_state_dict({**floats(), "extra": torch.zeros(1)})
    own = copy.deepcopy(model.state_dict())
    for key in ("waveq_step", "fc.parametrizations.weight.0.beta", "again.parametrizations.weight.original"):
        with pytest.raises(RuntimeError, match="Missing key.*" + key.replace(".", r"\.")):
            model.load_state_dict({name: value for name, value in own.items() if name != key})


def test_wrong_shapes_are_still_reported() -> None:
    model = FunctionalNet()
    waveq.attach(model, bits=4)
    with pytest.raises(RuntimeError, match="size mismatch for fc"):
        model.load_state_dict({**floats(), "fc.weight": torch.zeros(2, 2)})


def test_nested_models_load_too() -> None:
    """As Lightning does it: the attached model is a part of a larger module."""

    class Wrapper(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.network = FunctionalNet(seed)
            self.other = nn.Linear(2, 2)

    outer = Wrapper(0)
    wq = waveq.attach(outer.network, total_steps=10)
    outer.load_state_dict(Wrapper(7).state_dict())
    assert same_weights(outer.network, floats())
    for _ in range(3):
        wq.step()
    fresh = Wrapper(1)
    again = waveq.attach(fresh.network, total_steps=10)
    fresh.load_state_dict(outer.state_dict())
    assert again.steps == 3


@pytest.mark.slow
def test_a_frozen_run_loads_frozen() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=20, lambda_beta=0.2)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(20))
    fresh = mlp(seed=3)
    again = waveq.attach(fresh, total_steps=20, lambda_beta=0.2)
    assert again.learning
    fresh.load_state_dict(model.state_dict())
    assert not again.learning
    assert again.phase == 3
    assert again.bits() == wq.bits()
    x = torch.randn(3, 6)
    assert torch.equal(fresh(x), model(x))
    again.finalize()


@pytest.mark.slow
def test_assigning_instead_of_copying() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=30)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(12))
    fresh = mlp(seed=3)
    again = waveq.attach(fresh, total_steps=30)
    fresh.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    assert again.steps == 12
    assert again.betas() == wq.betas()
    for one, handle in ((model, wq), (fresh, again)):
        train(one, handle, torch.optim.SGD(one.parameters(), lr=0.05), batches(18, seed=5))
    assert again.policy().to_json() == wq.policy().to_json()


def test_a_learning_checkpoint_does_not_slip_into_preset_bits() -> None:
    learning, preset = mlp(), mlp()
    waveq.attach(learning, total_steps=20)
    wq = waveq.attach(preset, bits=4)
    preset.load_state_dict(learning.state_dict())
    with pytest.raises(RuntimeError, match=r'learns the bits of 0, 2, 4, but .* attach with bits="learn"'):
        wq.penalty()


def test_checkpoints_are_safe_to_load() -> None:
    model = FunctionalNet()
    waveq.attach(model, total_steps=10, activation_bits=4)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = FunctionalNet(3)
    waveq.attach(fresh, total_steps=10, activation_bits=4)
    fresh.load_state_dict(torch.load(file, weights_only=True))


def test_a_finalised_checkpoint_loads_into_plain_and_attached_models() -> None:
    model = FunctionalNet()
    waveq.attach(model, bits=4).finalize()
    plain = FunctionalNet(3)
    plain.load_state_dict(model.state_dict())
    attached = FunctionalNet(4)
    waveq.attach(attached, bits=4)
    attached.load_state_dict(model.state_dict())
    assert same_weights(attached, dict(model.state_dict()))


# ---------------------------------------------------------------------- checkpoints that do not fit


def state_of(**options: Any) -> dict[str, Any]:
    model = mlp()
    wq = waveq.attach(model, **{"total_steps": 20, **options})
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(20))
    return model.state_dict()


def same_values(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(torch.equal(one[key], other[key]) for key in one if not key.endswith("_extra_state"))


MISFITS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "quantizer": (
        {"bits": 3, "quantizer": "wrpn", "scale": "max"},
        {"bits": 3, "quantizer": "dorefa", "scale": "max"},
        r"quantizer 'wrpn' there, 'dorefa' here \(layers 0, 2, 4\)",
    ),
    "scale": (
        {"bits": 3, "scale": "max", "quantizer": "dorefa"},
        {"bits": 3, "scale": "none", "quantizer": "dorefa"},
        "scale 'max' there, 'none' here",
    ),
    "another default": (
        {"bits": 3, "quantizer": "dorefa"},
        {"bits": 3},
        r"quantizer 'dorefa' there, 'lsq' here \(layers 0, 2, 4\)",
    ),
    "learned scale": (
        {"bits": 3, "scale": "max", "quantizer": "wrpn"},
        {"bits": 3, "scale": "learned", "quantizer": "wrpn"},
        "scale 'max' there, 'learned' here",
    ),
    "bits of the inputs": (
        {"bits": 3, "activation_bits": 4},
        {"bits": 3, "activation_bits": 2},
        r"activation_bits 4 there, 2 here \(layers 2, 4\)",
    ),
    "no inputs": (
        {"bits": 3, "activation_bits": {"4": 4}, "activation_quantizer": "dorefa"},
        {"bits": 3},
        r"activation_quantizer 'dorefa' there, None here \(layer 4\); activation_bits 4 there, None here \(layer 4\)",
    ),
    "method of the inputs": (
        {"bits": 3, "activation_bits": 4, "activation_quantizer": "dorefa"},
        {"bits": 3, "activation_bits": 4, "activation_quantizer": "pact"},
        "activation_quantizer 'dorefa' there, 'pact' here",
    ),
    "preset into learned": ({"bits": 3}, {"bits": "learn"}, "bits 3 there, 'learn' here"),
    "other bits": ({"bits": 3}, {"bits": {"0": 3, "2": 4, "4": 3}}, r"bits 3 there, 4 here \(layer 2\)"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_checkpoints_that_do_not_fit_are_refused_before_anything_is_loaded(what: str) -> None:
    saved, own, sentence = MISFITS[what]
    state = state_of(**saved)
    model = mlp(seed=5)
    waveq.attach(model, **{"total_steps": 20, **own})
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        RuntimeError, match=f"does not fit the way this model was attached: {sentence}.*Nothing was loaded"
    ):
        model.load_state_dict(state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    if what in ("quantizer", "scale", "bits of the inputs", "other bits"):  # the same keys
        model.load_state_dict({key: value for key, value in state.items() if not key.endswith("_extra_state")})
        assert same_values(model.state_dict(), state)


@pytest.mark.parametrize("steps", [5, 20])
def test_a_run_of_another_length_is_said(steps: int) -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=20, lambda_beta=0.2)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(steps))
    fresh = mlp()
    again = waveq.attach(fresh, total_steps=60, lambda_beta=0.2)
    then = "its bits are fixed already and stay" if steps == 20 else "its schedule goes on"
    with pytest.warns(UserWarning, match=f"a run with total_steps=20, this one has total_steps=60: {then}"):
        fresh.load_state_dict(model.state_dict())
    assert again.steps == steps


def test_learned_bits_go_on_as_preset_ones() -> None:
    state = state_of(lambda_beta=0.2)
    bits = {name: int(state[f"{name}.parametrizations.weight.0.total_bits"]) for name in ("0", "2", "4")}
    model = mlp()
    waveq.attach(model, bits=bits)
    model.load_state_dict(state)


def test_checkpoints_from_before_the_note_still_load() -> None:
    state = {key: value for key, value in state_of(bits=3).items() if not key.endswith("_extra_state")}
    for name in ("0", "2", "4"):
        state[f"{name}.parametrizations.weight.0.bound"] = torch.tensor(float("inf"))
    model = mlp()
    waveq.attach(model, bits=3)
    model.load_state_dict(state)
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())


@pytest.mark.parametrize("quantizer", waveq.quantizers.quantizer_names())
def test_a_fresh_state_dict_holds_finite_tensors_alone(quantizer: str) -> None:
    model = mlp()
    waveq.attach(model, bits=2, quantizer=quantizer, activation_bits=4)
    for key, value in model.state_dict().items():
        assert isinstance(value, torch.Tensor), key
        assert bool(torch.isfinite(value).all()), key


def test_notes_survive_half_precision() -> None:
    state = {key: value.half() for key, value in state_of(bits=3, quantizer="wrpn", scale="max").items()}
    model = mlp()
    waveq.attach(model, bits=3, quantizer="dorefa", scale="max")
    with pytest.raises(RuntimeError, match="quantizer 'wrpn' there, 'dorefa' here"):
        model.load_state_dict(state)


@pytest.mark.parametrize("method", ["dorefa", "pact", "lsq", "dsq", "lqnets"])
def test_training_goes_on_from_a_finalised_network_with_its_input_quantisers(method: str) -> None:
    model = mlp()
    options: dict[str, Any] = {"bits": 3, "activation_bits": 3, "activation_quantizer": method}
    wq = waveq.attach(model, **options)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(5))
    wq.finalize()
    fresh = mlp(seed=3)
    waveq.attach(fresh, **options)
    fresh.load_state_dict(model.state_dict())
    for name in ("2", "4"):
        state = parametrization_of(fresh.get_submodule(name))
        fixed = model.get_submodule(name).waveq_restore_inputs
        x = torch.randn(9, 24)
        assert state.signed_now == int(fixed.signed)  # type: ignore[arg-type]
        assert torch.equal(state.activation.eval()(x, signed=bool(fixed.signed)), fixed(x))  # type: ignore[operator, union-attr]
    other = mlp()
    waveq.attach(other, bits=3, activation_bits=2)
    with pytest.raises(RuntimeError, match="activation_bits 3 there, 2 here"):
        other.load_state_dict(model.state_dict())
