"""The published quantisers under the wave and in a model: training, resuming, finalising, refusing."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.quantizer_tools import LEARNED_LEVELS, gradient, random_weight
from waveq import attach
from waveq.functional import Grid, grid_levels, round_to_grid, wave
from waveq.method.fixed_input import FixedInput
from waveq.quantizers import (
    make_activation_quantizer,
    make_quantizer,
    quantizer_class,
)
from waveq.quantizers._piecewise import piecewise_coordinate

# ---------------------------------------------------------------------- the wave on them


def levels_of(name: str, weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(levels, their coordinates) of a quantiser: what it makes of a dense sweep through the first filter's range."""
    method = make_quantizer(name, weight, total_bits=bits).eval()
    reach = 3 * weight.abs().max()
    sweep = torch.linspace(-1, 1, 40_001, dtype=weight.dtype) * reach
    if name == "ttq":  # its threshold hangs on the largest weight
        sweep = sweep[sweep.abs() <= weight.abs().max()]
    rows = sweep.expand(weight.shape[0], -1)
    magnitude = torch.tensor(bits - 1.0, dtype=weight.dtype)
    with torch.no_grad():
        out = method.binarize(rows) if bits == 1 else method(rows, magnitude)
        levels = out[0].unique()
        same = levels.expand(weight.shape[0], -1)
        places = (method.binary_coordinate(same) if bits == 1 else method.coordinate(same, magnitude))[0]
        if name == "ttq":  # at the threshold that the sweep had
            padded = torch.cat([levels, weight.abs().max()[None]])
            places = method.coordinate(padded[None], magnitude)[0, :-1]
    return levels, places


@pytest.mark.parametrize(
    ("name", "bits"),
    [(name, bits) for name in LEARNED_LEVELS for bits in (1, 2, 3, 4, 6) if bits in quantizer_class(name).bit_counts],
)
def test_zeros_of_the_wave_are_the_levels(name: str, bits: int) -> None:
    weight = random_weight(3, 300).double()
    grid = make_quantizer(name, weight, total_bits=bits).grid(bits)
    _, places = levels_of(name, weight, bits)
    expected = grid_levels(bits, grid)
    if name == "lsq":  # one level more, below -1
        expected = torch.cat([expected[:1] - 1 / (2 ** (bits - 1) - 1), expected])
    torch.testing.assert_close(places, expected, rtol=0, atol=1e-5)
    beta = torch.tensor(bits - 1.0, dtype=torch.float64)
    assert wave(places, beta, grid=grid, order=0).max() < 1e-8
    between = (places[1:] + places[:-1]) / 2
    assert wave(between, beta, grid=grid, order=0).min() > 1 - 1e-6


@pytest.mark.parametrize("name", LEARNED_LEVELS)
def test_the_wave_pulls_every_weight_to_the_level_that_it_is_rounded_to(name: str) -> None:
    """The coordinate's nearest zero is the quantiser's own choice, weight by weight."""
    weight = random_weight(4, 200)
    method = make_quantizer(name, weight, total_bits=2).eval()
    one = torch.tensor(1.0)
    with torch.no_grad():
        u = method.coordinate(weight, one)
        inside = u.abs() < 1
        nearest = round_to_grid(u, one, grid=method.grid(2))
        chosen = method(weight, one)
        if name == "ttq":
            target = torch.sign(chosen)
        elif name == "lqnets":
            target = method.coordinate(chosen, one)
        else:
            target = chosen / (method.span if name == "lsq" else method.level_scale)
    torch.testing.assert_close(nearest[inside], target[inside], rtol=0, atol=1e-5)


@given(st.integers(0, 10_000))
def test_piecewise_coordinate_is_interpolation(seed: int) -> None:
    knots = random_weight(2, 7, seed=seed).double().sort(dim=1).values
    heights = torch.linspace(-1, 1, 7, dtype=torch.float64)
    values = 2 * random_weight(2, 50, seed=seed + 1).double().requires_grad_()
    u = piecewise_coordinate(values, knots, heights)
    for row in range(2):
        expected = _interpolate(values[row].detach(), knots[row], heights)
        torch.testing.assert_close(u[row].detach(), expected)
    (slope,) = torch.autograd.grad(u.sum(), values)
    ratio = 2.0 / (knots[:, -1:] - knots[:, :1])
    outside = (values < knots[:, :1]) | (values > knots[:, -1:])
    assert bool((slope[outside] == 0).all())
    assert bool((slope >= 0).all())
    assert bool((slope <= 10 * ratio * (1 + 1e-9)).all())


def _interpolate(values: Tensor, knots: Tensor, heights: Tensor) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.interp(values.numpy(), knots.numpy(), heights.numpy()))


# ---------------------------------------------------------------------- in a model


def small_net() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def train(model: nn.Module, handle: object, steps: int, rate: float = 0.05) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    x = random_weight(64, 12, seed=7)
    y = x[:, :4].argmax(dim=1)
    losses = []
    for _ in range(steps):
        task = nn.functional.cross_entropy(model(x), y)
        losses.append(task.item())
        loss = task + handle.penalty()  # type: ignore[attr-defined]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        handle.step()  # type: ignore[attr-defined]
    return losses


def _inputs_of(name: str) -> str:
    """DoReFa's fixed range gives way to one from the data."""
    published = quantizer_class(name).activation
    return "range" if published == "dorefa" else published


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pact", *LEARNED_LEVELS])
def test_train_save_resume_finalize(name: str) -> None:
    model = small_net()
    parameters = [id(p) for p in model.parameters()]
    handle = attach(model, quantizer=name, bits=2, activation_bits=3)
    losses = train(model, handle, 150 if name == "ttq" else 60)  # its small levels scale the weights' gradient
    assert min(losses[-5:]) < 0.8 * losses[0]
    assert handle.policy().provenance["activation_quantizer"] == _inputs_of(name)

    twin = small_net()
    twin_handle = attach(twin, quantizer=name, bits=2, activation_bits=3)
    twin.load_state_dict(model.state_dict())
    x = random_weight(20, 12, seed=11)
    model.eval(), twin.eval()
    assert torch.equal(model(x), twin(x))

    expected = model(x)
    handle.finalize()
    inputs = {key for key in model.state_dict() if ".waveq_restore_inputs." in key}
    assert inputs
    assert set(model.state_dict()) - inputs == set(small_net().state_dict())
    assert [id(p) for p in model.parameters()] == parameters
    assert torch.equal(model(x), expected)
    assert torch.equal(copy.deepcopy(model)(x), expected)
    twin_handle.remove()


def test_what_is_learned_reaches_the_users_optimizer() -> None:
    model = small_net()
    attach(model, quantizer="lsq", bits=3, activation_bits=4)
    names = [name for name, _ in model.named_parameters()]
    assert sum(name.endswith("quantizer.step") for name in names) == 3
    assert sum(name.endswith("activation.step") for name in names) == 2  # the first layer's input stays as it is


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pact", "lsq", "dsq"])
def test_learned_bits(name: str) -> None:
    model = small_net()
    handle = attach(model, quantizer=name, bits="learn", total_steps=60, target={"mean_bits": 4.0})
    train(model, handle, 60)
    assert not handle.learning
    assert handle.mean_bits() <= 4.0
    handle.finalize()


@pytest.mark.parametrize("name", ["ttq", "lqnets"])
def test_methods_whose_bits_cannot_be_learned_say_so(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} cannot learn bits.*layer '0'"):
        attach(small_net(), quantizer=name, bits="learn", total_steps=10)


def test_ttq_has_two_bits_only() -> None:
    with pytest.raises(ValueError, match=r"'ttq' has 2 total bits only, not 4 \(layer '0'\)"):
        attach(small_net(), quantizer="ttq", bits=4)


@pytest.mark.parametrize("name", LEARNED_LEVELS)
@pytest.mark.parametrize("scale", ["none", "max"])
def test_a_scale_that_the_method_does_not_have(name: str, scale: str) -> None:
    with pytest.raises(ValueError, match=f"{name!r} has its own levels and takes scale 'learned', not {scale!r}"):
        attach(small_net(), quantizer=name, bits=2, scale=scale)  # type: ignore[arg-type]


@pytest.mark.parametrize("preset", ["paper", "released", "recommended"])
def test_presets_take_the_methods_own_scale(preset: str) -> None:
    handle = attach(small_net(), quantizer="lsq", bits=2, preset=preset)
    assert handle.policy().provenance["scale"] == "learned"


def test_activation_quantizer_needs_bits_and_a_known_name() -> None:
    with pytest.raises(ValueError, match="needs activation_bits"):
        attach(small_net(), bits=2, activation_quantizer="pact")
    with pytest.raises(ValueError, match="did you mean 'pact'"):
        attach(small_net(), bits=2, activation_quantizer="pakt", activation_bits=4)


def test_levels_that_are_not_equally_far_apart_have_no_scale() -> None:
    for name in ("ttq", "lqnets"):
        assert dict(attach(small_net(), quantizer=name, bits=2).policy().scales) == {}
    model = small_net()
    scales = attach(model, quantizer="lsq", bits=3).policy().scales
    assert scales["0"] == pytest.approx(model[0].parametrizations.weight[0].quantizer.step.item())  # type: ignore[union-attr, index]


@pytest.mark.parametrize("name", ["pact", "lsq", "dsq", "lqnets"])
def test_a_finalised_input_quantiser_follows_its_input(name: str) -> None:
    quantizer = make_activation_quantizer(name, 3)
    x = torch.rand(4, 5)
    quantizer(x)
    fixed = FixedInput(3, signed=False, quantizer=quantizer)
    y = fixed(x)
    assert torch.equal(y, quantizer.eval()(x))
    assert not y.requires_grad
    assert fixed(x.to("meta")).is_meta  # a dry run for shapes ...
    assert torch.equal(fixed(x), y)  # ... leaves what was learned alone


@pytest.mark.parametrize("name", LEARNED_LEVELS)
def test_an_all_zero_layer(name: str) -> None:
    weight = torch.zeros(3, 4, requires_grad=True)
    method = make_quantizer(name, weight, total_bits=2)
    quantized = method(weight, torch.tensor(1.0))
    penalty = wave(method.coordinate(weight, torch.tensor(1.0)), torch.tensor(1.0), grid=method.grid(2)).mean()
    (slope,) = gradient(quantized.sum() + penalty, weight)
    assert bool(torch.isfinite(quantized).all())
    assert bool(torch.isfinite(slope).all())


@pytest.mark.parametrize("name", ["pact", *LEARNED_LEVELS])
def test_mixed_precision(name: str) -> None:
    model = small_net()
    attach(model, quantizer=name, bits=2, activation_bits=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(random_weight(8, 12)).float().square().mean()
    loss.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters() if p.grad is not None)


def test_grids() -> None:
    assert {name: quantizer_class(name)(random_weight(3, 8), total_bits=2).grid(2) for name in LEARNED_LEVELS} == {
        "dsq": Grid.MID_RISE,
        "lqnets": Grid.MID_RISE,
        "lsq": Grid.MID_TREAD,
        "ttq": Grid.MID_TREAD,
    }


def test_lsq_starts_again_for_its_bits_when_they_freeze() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    wq = attach(model, quantizer="lsq", total_steps=40, lambda_beta=5.0)
    while wq.learning:
        (model(torch.randn(8, 6)).square().mean() + wq.penalty()).backward()
        wq.step()
    assert min(wq.bits().values()) < 8
    for name, bits in wq.bits().items():
        weight = model.get_submodule(name).parametrizations.weight.original.detach()
        expected = 2.0 * float(weight.abs().mean()) / (2.0 ** (bits - 1) - 1.0) ** 0.5  # 2 E|w| / sqrt(Q_P)
        assert wq.policy().scales[name] == pytest.approx(expected, rel=1e-5)


def test_lsq_shortens_its_range_with_every_bit_that_is_lost_while_learning() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    wq = attach(model, quantizer="lsq", total_steps=60, lambda_beta=5.0)
    states = {name: model.get_submodule(name).parametrizations.weight for name in wq.names}
    lost = set()
    while wq.learning:
        before = wq.bits()
        (model(torch.randn(8, 6)).square().mean() + wq.penalty()).backward()
        wq.step()
        for name, bits in wq.bits().items():
            if wq.learning and bits < before[name]:
                weight = states[name].original.detach()
                longest = 2.0 * weight.abs().mean().item() * (2.0 ** (bits - 1) - 1.0) ** 0.5  # LSQ's start
                assert states[name][0].quantizer.span.item() <= 1.001 * longest
                lost.add(bits)
    assert {2, 3} <= lost  # where LSQ's start of 4 bits is too long
