from __future__ import annotations

import io
import math
import warnings

import pytest
import torch
import torch.nn.functional as F

import waveq
from tests.training import OPTIMIZERS, FunctionalNet, batches, beta_of, mlp, spread_layer, train
from waveq.functional import sine_penalty
from waveq.method.parametrization import parametrization_of
from waveq.method.presets import PRESETS

# ---------------------------------------------------------------------- the penalty


def test_penalty_is_eq_2_2_with_preset_bits() -> None:
    model = mlp()
    wq = waveq.attach(model, quantizer="wrpn", bits={"0": 4, "2": 3, "4": 8}, preset="paper", lambda_w=0.7)
    expected = 0.0
    for name, bits in (("0", 4), ("2", 3), ("4", 8)):
        weight = model.get_submodule(name).parametrizations.weight.original  # type: ignore[union-attr]
        expected += 0.7 * float(sine_penalty(weight.clamp(-1, 1), torch.tensor(bits - 1.0)).detach())  # type: ignore[operator]
    assert wq.penalty().item() == pytest.approx(expected, rel=1e-5)


def test_penalty_adds_the_price_of_bits_in_phase_2_only() -> None:
    wq = waveq.attach(mlp(), total_steps=300, preset="paper", lambda_w=0.0, lambda_beta=0.1)
    assert wq.phase == 1
    assert wq.penalty().item() == 0.0
    for _ in range(200):
        wq.step()
    assert wq.phase == 2
    assert wq.penalty().item() == pytest.approx(0.1 * 3 * 7.0, rel=1e-3)
    for _ in range(50):
        wq.step()
    assert wq.phase == 3
    assert wq.penalty().item() == 0.0


def test_layer_costs_weigh_the_price() -> None:
    model = mlp()
    costs = {"0": 1.0, "2": 4.0, "4": 1.0}
    wq = waveq.attach(
        model, total_steps=10, schedule="constant", preset="paper", lambda_w=0.0, lambda_beta=0.1, layer_costs=costs
    )
    wq.penalty().backward()
    slopes = [beta_of(model, name).grad.item() for name in ("0", "2", "4")]  # type: ignore[union-attr]
    assert slopes == pytest.approx([0.05, 0.2, 0.05])


def test_sine_and_task_reach_beta_as_the_preset_says() -> None:
    x, y = batches(1)[0]
    for preset, sine, task in (("paper", True, False), ("recommended", False, True)):
        model = mlp()
        wq = waveq.attach(model, total_steps=10, schedule="constant", preset=preset, quantizer="wrpn", scale="max")
        with torch.no_grad():
            for name in wq.names:
                beta_of(model, name).fill_(2.6)
        wq.penalty().backward()
        price = wq.strengths()[1]
        by_sine = [beta_of(model, name).grad.item() - price for name in wq.names]  # type: ignore[union-attr]
        assert all((abs(slope) > 1e-6) is sine for slope in by_sine), (preset, by_sine)
        for name in wq.names:
            beta_of(model, name).grad = None
        F.cross_entropy(model(x), y).backward()
        assert all((beta_of(model, name).grad is not None) is task for name in wq.names), preset


def test_penalty_in_no_grad_is_a_number_and_needs_no_step() -> None:
    wq = waveq.attach(mlp(), bits=3)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        values = [wq.penalty() for _ in range(150)]
    assert not values[0].requires_grad


def test_forgotten_step_warns_once() -> None:
    wq = waveq.attach(mlp(), bits=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(250):
            wq.penalty()
    assert [warning.filename for warning in caught] == [__file__]
    assert str(caught[0].message).startswith("penalty() was called 100 times without step(): the schedule stands still")
    assert str(caught[0].message).endswith("Call wq.step() after every optimizer.step().")


# ---------------------------------------------------------------------- phases, freezing, hysteresis


@pytest.mark.parametrize(("preset", "phase"), [("paper", 1), ("recommended", 2), ("released", 3)])
def test_forward_is_quantised_from_the_presets_phase_on(preset: str, phase: int) -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=60, preset=preset)
    while True:
        for name in wq.names:
            layer = model.get_submodule(name)
            is_float = torch.equal(layer.weight, layer.parametrizations.weight.original)  # type: ignore[union-attr, arg-type]
            assert is_float is (wq.phase < phase), (wq.steps, name)
        if wq.steps == 60:
            break
        wq.penalty().backward()
        wq.step()


def test_schedules_without_a_first_phase_quantise_at_once() -> None:
    model = mlp()
    waveq.attach(model, total_steps=60, schedule="exponential")
    assert not torch.equal(model[0].weight, model[0].parametrizations.weight.original)


def test_bits_freeze_once_with_hysteresis() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=40)  # recommended: hysteresis 0.05
    with torch.no_grad():
        for name, beta in (("0", 3.04), ("2", 3.06), ("4", 1.0)):
            beta_of(model, name).fill_(beta)
    assert wq.bits() == {"0": 4, "2": 5, "4": 2}
    assert wq.mean_bits() == pytest.approx((4.04 + 4.06 + 2) / 3)
    wq.freeze()
    assert not wq.learning
    assert wq.bits() == {"0": 4, "2": 5, "4": 2}
    with torch.no_grad():
        for name in wq.names:
            beta_of(model, name).fill_(6.0)
    wq.freeze()
    assert wq.bits() == {"0": 4, "2": 5, "4": 2}
    assert not any(beta_of(model, name).requires_grad for name in wq.names)


@pytest.mark.parametrize("preset", PRESETS)
def test_bits_stay_fixed_in_phase_3(preset: str) -> None:
    model, data = mlp(), batches(40)
    wq = waveq.attach(model, total_steps=40, preset=preset, lambda_beta=0.1)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    seen = []
    for batch in data:
        train(model, wq, optimizer, [batch])
        if wq.phase == 3:
            seen.append((wq.bits(), wq.betas()))
    assert len(seen) >= 8
    assert all(entry == seen[0] for entry in seen)


def test_paper_keeps_the_stretched_grid_and_recommended_snaps() -> None:
    for preset, stretched in (("paper", True), ("recommended", False)):
        model = mlp()
        wq = waveq.attach(model, total_steps=40, preset=preset, quantizer="wrpn", scale="max")
        with torch.no_grad():
            beta_of(model, "0").fill_(2.6)
        wq.freeze()
        state = parametrization_of(model[0])
        c = (2**3 - 1) / (2**2.6 - 1)
        assert float(state.stretch()) == pytest.approx(c if stretched else 1.0, rel=1e-5)
        assert wq.bits()["0"] == 4


# ---------------------------------------------------------------------- policy and leaving


def test_policy_says_what_was_decided() -> None:
    model = FunctionalNet()
    wq = waveq.attach(model, bits=3, skip=("conv1",), activation_bits=4, preset="paper")
    policy = wq.policy()
    assert dict(policy) == {"depthwise": 3, "grouped": 3, "again": 3, "fc": 3}
    assert policy.skipped == ("conv1",)
    assert policy.quantizer == "dorefa"
    assert dict(policy.activation_bits) == dict.fromkeys(policy, 4)
    assert policy.weight_counts["depthwise"] == 72
    assert policy.provenance["preset"] == "paper"
    assert policy.provenance["steps"] == 0


@pytest.mark.parametrize("scale", ["none", "max", "learned"])
@pytest.mark.parametrize("quantizer", ["dorefa", "wrpn"])
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8, 9])
def test_finalised_weights_lie_on_the_grid_that_the_policy_names(quantizer: str, scale: str, bits: int) -> None:
    model = mlp()
    wq = waveq.attach(model, bits=bits, quantizer=quantizer, scale=scale)  # type: ignore[arg-type]
    policy = wq.policy()
    wq.finalize()
    shift = 0.5 if quantizer == "dorefa" or bits == 1 else 0.0
    for name in policy:
        weight = model.get_submodule(name).weight.detach().double()  # type: ignore[union-attr, operator]
        index = weight / policy.scales[name] - shift
        assert float((index - index.round()).abs().max()) < 1e-4
        values = model.get_submodule(name).weight.unique()  # type: ignore[union-attr, operator]
        assert len(values) <= 2**bits - (quantizer == "wrpn" and bits > 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:layer .* of its first inputs lie outside:UserWarning")
@pytest.mark.parametrize("preset", PRESETS)
def test_finalising_changes_no_output(preset: str) -> None:
    model = FunctionalNet()
    wq = waveq.attach(model, total_steps=30, preset=preset, activation_bits=4, lambda_beta=0.1)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(30, shape=(3, 6, 6)))
    model.eval()
    x = torch.randn(5, 3, 6, 6, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        attached = model(x)
        wq.finalize()
        assert torch.equal(model(x), attached)


@pytest.mark.parametrize("activation_bits", [None, 4])
def test_finalised_models_are_plain_again(activation_bits: int | None) -> None:
    model, plain = FunctionalNet(), FunctionalNet()
    identities = {name: id(p) for name, p in model.named_parameters()}
    wq = waveq.attach(model, bits=4, activation_bits=activation_bits)
    wq.finalize()
    if activation_bits is None:
        assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    else:
        assert all(isinstance(model.get_submodule(name), type(m)) for name, m in plain.named_modules())
        waveq.restore_inputs(plain, model.state_dict())
    assert list(model.state_dict()) == list(plain.state_dict())
    assert {name: id(p) for name, p in model.named_parameters()} == identities
    assert all(p.requires_grad for p in model.parameters())
    plain.load_state_dict(model.state_dict())
    whole = io.BytesIO()
    torch.save(model, whole)  # a parametrised model could not


def test_the_handle_of_a_finalised_model() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=4)
    before = wq.policy()
    wq.finalize()
    for call in (wq.penalty, wq.step, wq.finalize, wq.remove, wq.wave, wq.forecast):
        with pytest.raises(RuntimeError, match=rf"{call.__name__}\(\) on a finalised model: .* attach it again"):
            call()
    assert wq.policy().to_json() == before.to_json()
    assert wq.bits() == {"0": 4, "2": 4, "4": 4}
    assert "finalised" in repr(wq)
    again = waveq.attach(model, bits=wq.policy())
    assert again.bits() == wq.bits()


def test_finalising_too_early_warns_and_fixes_the_bits() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=100)
    with pytest.warns(UserWarning, match=r"finalize\(\) at step 0 of 100: the bits were still being learned") as caught:
        wq.finalize()
    assert caught[0].filename == __file__
    assert wq.policy() == {"0": 8, "2": 8, "4": 8}


def test_remove_gives_the_float_model_back() -> None:
    model = FunctionalNet()
    plain = FunctionalNet()
    wq = waveq.attach(model, bits=2, activation_bits=2)
    wq.remove()
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(model(x), plain(x))
    assert list(model.state_dict()) == list(plain.state_dict())
    with pytest.raises(RuntimeError, match=r"penalty\(\) after remove\(\): the model is plain again"):
        wq.penalty()
    waveq.attach(model, bits=3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_diverged_weights_are_named(bad: float) -> None:
    model = mlp()
    wq = waveq.attach(model, bits=4)
    with torch.no_grad():
        model[2].parametrizations.weight.original[0, 0] = bad
    for call in (wq.policy, wq.finalize):
        with pytest.raises(ValueError, match="the weights of layer '2' hold NaN or infinity: training diverged"):
            call()


def test_wave_is_zero_on_the_grid_and_half_where_weights_are_spread() -> None:
    model = spread_layer(4000, std=0.4)
    wq = waveq.attach(model, bits=5, quantizer="wrpn", scale="none", preset="paper")
    assert wq.wave()["0"] == pytest.approx(0.5, abs=0.06)
    wq.finalize()
    again = waveq.attach(model, bits=5, quantizer="wrpn", scale="none", preset="paper")
    assert again.wave()["0"] < 1e-6


def test_repr_says_where_the_run_stands() -> None:
    wq = waveq.attach(mlp(), total_steps=100)
    assert repr(wq) == "WaveQ(3 layers, 94.0 % of the weights, lsq, phase 1, step 0 of 100, mean 8.00 bits)"
