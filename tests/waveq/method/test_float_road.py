"""The float road without freezing: a float forward pass, weights that the wave pins, one rounding at the end."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from tests.training import OPTIMIZERS, batches, mlp, spread_layer, train
from waveq.functional import grid_levels
from waveq.method.float_road import find_bound
from waveq.method.parametrization import parametrization_of
from waveq.method.settings import WaveLayer


def float_on(model: nn.Module, name: str) -> bool:
    layer = model.get_submodule(name)
    return torch.equal(layer.weight, layer.parametrizations.weight.original)  # type: ignore[union-attr, arg-type]


def weight_of(model: nn.Module, name: str = "0") -> Tensor:
    return model.get_submodule(name).parametrizations.weight.original  # type: ignore[union-attr, return-value]


def trained(bits: int | str, *, steps: int = 120, **options: object) -> tuple[nn.Sequential, waveq.WaveQ]:
    model = mlp()
    options = {"freezing": "off", **options}
    wq = waveq.attach(model, bits=bits, forward="float", total_steps=steps, **options)  # type: ignore[arg-type]
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(steps))
    return model, wq


# ---------------------------------------------------------------------- what the forward pass sees


def test_without_wave_or_bound_it_is_float_training_bit_for_bit() -> None:
    plain, model = mlp(), mlp()
    data = batches(30)
    wq = waveq.attach(model, bits=3, scale="none", forward="float", freezing="off", lambda_w=0.0, total_steps=30)
    plain_optimizer, optimizer = OPTIMIZERS["sgd"](plain.parameters()), OPTIMIZERS["sgd"](model.parameters())
    for x, y in data:
        assert torch.equal(model(x), plain(x))
        F.cross_entropy(plain(x), y).backward()
        plain_optimizer.step()
        plain_optimizer.zero_grad()
        train(model, wq, optimizer, [(x, y)])
    for name in wq.names:
        assert torch.equal(weight_of(model, name), plain.get_submodule(name).weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [1, 3, {"0": 2, "2": 4, "4": 8}])
def test_preset_bits_never_round_before_finalize(bits: int | dict[str, int]) -> None:
    model = mlp()
    wq = waveq.attach(model, bits=bits, forward="float", total_steps=20)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for batch in batches(20):
        assert all(float_on(model, name) for name in wq.names)
        train(model, wq, optimizer, [batch])
    assert all(float_on(model, name) for name in wq.names)


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "phases"), [("recommended", {2}), ("paper", set()), ("released", set())])
def test_learned_bits_are_quantised_only_where_the_task_moves_beta(preset: str, phases: set[int]) -> None:
    model = mlp()
    wq = waveq.attach(model, forward="float", total_steps=60, preset=preset)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    seen = set()
    for batch in batches(60):
        seen.add(wq.phase)
        assert {float_on(model, name) for name in wq.names} == {wq.phase not in phases}
        train(model, wq, optimizer, [batch])
    assert seen == {1, 2, 3}
    assert not wq.learning


def test_the_wave_waits_for_phase_3_and_beta_has_the_price_of_the_other_road() -> None:
    roads = [waveq.attach(mlp(), total_steps=200, **road) for road in ({}, {"forward": "float", "freezing": "off"})]  # type: ignore[arg-type]
    for step in range(200):
        (_, price), (wave, same) = (wq.settings.schedule(step) for wq in roads)
        assert same == pytest.approx(price, abs=1e-12)
        assert (wave > 0.0) is (roads[1].settings.schedule.phase(step) == 3)
    assert roads[0].settings.schedule.fall == roads[1].settings.schedule.fall


def test_inputs_are_quantised_from_the_first_step() -> None:
    model = mlp()
    waveq.attach(
        model, bits=3, forward="float", activation_bits={"2": 1}, activation_quantizer="dorefa", total_steps=10
    )
    seen: list[Tensor] = []
    model[2].register_forward_hook(lambda _m, inputs, _out: seen.append(inputs[0]))
    model(batches(1)[0][0])
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    assert float_on(model, "2")


# ---------------------------------------------------------------------- pinning, and the one rounding


@pytest.mark.slow
def test_the_wave_pins_the_weights() -> None:
    without_bounds = {"quantizer": "wrpn", "scale": "none"}
    _, wq = trained(4, lambda_w=0.0, **without_bounds)
    alone = wq.on_levels()
    _, wq = trained(4, **without_bounds)
    pinned = wq.on_levels()
    for name in wq.names:
        assert alone[name] < 0.25  # a tenth of spread-out weights
        assert pinned[name] > 0.6
        assert pinned[name] > alone[name] + 0.4


def test_on_levels_of_evenly_spread_weights_is_twice_the_tolerance() -> None:
    model = nn.Sequential(nn.Linear(10_000, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.linspace(-1.0, 1.0, 10_000))
    wq = waveq.attach(model, bits=4, quantizer="wrpn", forward="float", total_steps=1)
    assert wq.on_levels()["0"] == pytest.approx(0.1, abs=2e-3)
    assert wq.on_levels(0.25)["0"] == pytest.approx(0.5, abs=2e-3)
    state = parametrization_of(model.get_submodule("0"))
    with torch.no_grad():
        weight_of(model).copy_(state.quantize(weight_of(model)))
    assert wq.on_levels(1e-4) == {"0": 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("bits", [3, "learn"])
def test_finalize_rounds_once_and_says_how(bits: int | str) -> None:
    model, wq = trained(bits)
    x = batches(1)[0][0]
    before = {name: weight_of(model, name).detach().clone() for name in wq.names}
    expected = {name: parametrization_of(model.get_submodule(name)).quantize(before[name]) for name in wq.names}
    with wq.rounded(), torch.no_grad():
        shown = model(x)
    policy = wq.policy()
    wq.finalize()
    for name, value in expected.items():
        assert torch.equal(model.get_submodule(name).weight, value)  # type: ignore[arg-type]
        assert not torch.equal(value, before[name])
        assert model.get_submodule(name).weight.unique().numel() <= 2 ** policy[name]  # type: ignore[union-attr, operator]
    assert torch.equal(model(x), shown)
    assert policy.provenance["forward"] == "float"
    assert waveq.attach(mlp(), bits=3).policy().provenance["forward"] == "quantized"


@pytest.mark.slow
def test_diagnosis_says_which_layers_rounding_will_change() -> None:
    _, wq = trained(4, lambda_w=0.0)
    (loose,) = wq.diagnose()
    assert loose.startswith("rounding will move many weights of 0, 2, 4: in 0 only ")
    wq.finalize()
    assert wq.diagnose() == [loose], "it is remembered"
    _, wq = trained(4, lambda_w=0.0)
    wq.remove()
    assert wq.diagnose() == []
    model = mlp()
    wq = waveq.attach(model, bits=3, forward="float", quantizer="wrpn", total_steps=10)
    with torch.no_grad():
        for name in wq.names:
            weight_of(model, name).copy_(parametrization_of(model.get_submodule(name)).quantize(weight_of(model, name)))
    assert wq.diagnose() == []
    assert waveq.attach(mlp(), bits=3).diagnose() == []


# ---------------------------------------------------------------------- the range of the levels


def test_the_bound_is_the_best_of_its_candidates() -> None:
    model = spread_layer(5_000)
    waveq.attach(model, bits=2, forward="float", total_steps=4)
    layer = WaveLayer("0", (model[0],), parametrization_of(model[0]))
    weight = weight_of(model).detach()

    def error(bound: float) -> float:
        return float((layer.state.quantize(weight.clamp(-bound, bound)) - weight).square().sum())

    found = float(find_bound(layer))
    top = float(weight.abs().max())
    # four evenly spaced levels for a normal distribution lie 0.996 deviations apart (Max 1960, table II), ends at 1.49
    assert found == pytest.approx(1.49 * 0.3, rel=0.05)
    assert all(error(found) <= error(top * part / 40) * (1 + 1e-6) for part in range(1, 41))


def test_weights_stay_within_the_bound_from_early_on() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=2, forward="float", total_steps=40)
    assert wq.settings.bounds_from == 2
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for batch in batches(40):
        train(model, wq, optimizer, [batch])
        bounds = {name: float(parametrization_of(model.get_submodule(name)).bound) for name in wq.names}
        assert all((bound < 1e9) is (wq.steps >= 2) for bound in bounds.values())
        assert all(float(weight_of(model, name).detach().abs().max()) <= bound for name, bound in bounds.items())


def test_only_levels_that_follow_the_weights_are_bounded() -> None:
    for options in ({"forward": "quantized"}, {"forward": "float", "scale": "none"}):
        assert waveq.attach(mlp(), bits=2, total_steps=40, **options).settings.bounds_from is None  # type: ignore[arg-type]
    assert waveq.attach(mlp(), quantizer="wrpn", bits=2, total_steps=40, fit_range=True).settings.bounds_from == 2
    assert waveq.attach(mlp(), bits=2, total_steps=40, forward="float", fit_range=False).settings.bounds_from is None
    with pytest.raises(ValueError, match="fit_range=True is for levels that follow the largest weight"):
        waveq.attach(mlp(), bits=2, fit_range=True, quantizer="lsq")
    wq = waveq.attach(mlp(), total_steps=40, forward="float")
    assert wq.settings.bounds_from == wq.settings.schedule.fall == 14


# ---------------------------------------------------------------------- looking at the rounded network meanwhile


def test_rounded_shows_the_grid_and_puts_everything_back() -> None:
    model, wq = trained(3, steps=5)
    before = copy.deepcopy(model.state_dict())
    with wq.rounded():
        assert not any(float_on(model, name) for name in wq.names)
        with wq.rounded():
            assert not float_on(model, "0")
        assert not float_on(model, "0"), "the outer block is still open"
        inside = model.state_dict()
        assert all(torch.equal(inside[key], value) for key, value in before.items())
    assert all(float_on(model, name) for name in wq.names)
    with pytest.raises(ZeroDivisionError), wq.rounded():
        raise ZeroDivisionError
    assert all(float_on(model, name) for name in wq.names)
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_rounded_on_the_quantised_road_changes_nothing_and_needs_a_live_handle() -> None:
    model = mlp()
    wq = waveq.attach(model, bits=3)
    x = batches(1)[0][0]
    with wq.rounded():
        assert torch.equal(model(x), model(x))
        inside = model(x)
    assert torch.equal(model(x), inside)
    wq.finalize()
    with pytest.raises(RuntimeError, match=r"rounded\(\) on a finalised model"), wq.rounded():
        pass


def test_levels_shown_are_those_of_the_grid() -> None:
    model, wq = trained(2, steps=5)
    with wq.rounded():
        shown = model[0].weight.detach()
    state = parametrization_of(model[0])
    expected = grid_levels(2, state.grid) * float(weight_of(model).detach().abs().max())
    distance = (shown.flatten()[:, None] - expected[None, :]).abs().min(dim=1).values
    assert float(distance.max()) < 1e-6


# ---------------------------------------------------------------------- checkpoints


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "freezing"), [(2, "off"), (2, None), ("learn", None), ({"0": 1, "2": 3, "4": 4}, 2.0)]
)
def test_a_resumed_run_is_the_same_run(bits: Any, freezing: Any) -> None:
    data = batches(40)

    def fresh() -> tuple[nn.Sequential, waveq.WaveQ, torch.optim.Optimizer]:
        model = mlp()
        wq = waveq.attach(model, bits=bits, forward="float", freezing=freezing, total_steps=40)  # type: ignore[arg-type]
        return model, wq, OPTIMIZERS["sgd"](model.parameters())

    whole, wq, optimizer = fresh()
    train(whole, wq, optimizer, data)
    for stop in (1, 2, 3, 19, 20, 21, 33):
        model, wq, optimizer = fresh()
        train(model, wq, optimizer, data[:stop])
        file = io.BytesIO()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        model, wq, optimizer = fresh()
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        train(model, wq, optimizer, data[stop:])
        for key, value in whole.state_dict().items():
            assert torch.equal(model.state_dict()[key], value), (stop, key)


def test_checkpoints_from_before_there_was_a_bound_load() -> None:
    model = mlp()
    waveq.attach(model, bits=3)
    old = {key: value for key, value in model.state_dict().items() if not key.endswith(".bound")}
    assert len(old) == len(model.state_dict()) - 3
    model.load_state_dict(old)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize("options", [{"quantizer": "lsq"}, {"quantizer": "wrpn", "scale": "learned"}])
def test_levels_that_need_a_gradient_are_refused(options: dict[str, str]) -> None:
    model = mlp()
    with pytest.raises(ValueError, match=r"forward='float' leaves .* without the gradient .* 'midrise' or 'wrpn'"):
        waveq.attach(model, bits=3, forward="float", total_steps=10, **options)  # type: ignore[arg-type]
    assert not hasattr(model[0], "parametrizations")


def test_an_unknown_road_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r'forward must be "quantized" or "float", not \'floats\'; did you mean \'float\''
    ):
        waveq.attach(mlp(), bits=3, forward="floats")  # type: ignore[arg-type]


def test_a_rising_wave_needs_the_length_of_the_run() -> None:
    with pytest.raises(ValueError, match="the rising schedule needs total_steps"):
        waveq.attach(mlp(), bits=3, forward="float")
    with pytest.raises(
        ValueError, match="freezes weights by their share of the run: give total_steps, or freezing='off'"
    ):
        waveq.attach(mlp(), bits=3, forward="float", schedule="constant")
    wq = waveq.attach(mlp(), bits=3, forward="float", schedule="constant", freezing="off")
    assert wq.settings.bounds_from == 1


@pytest.mark.slow
def test_command_line_end_to_end(tmp_path: Path) -> None:
    import csv
    import json

    from typer.testing import CliRunner

    from waveq.cli.app import app

    folder = tmp_path / "run"
    common = ["train", "--model", "digitsnet", "--dataset", "digits", "--bits", "2", "--forward", "float"]
    shape = ["--pretrain-epochs", "3", "--epochs", "4", "--lr", "0.05", "--batch-size", "128", "--threads", "1"]
    found = CliRunner().invoke(app, [*common, *shape, "--run", str(folder), "--quiet"])
    assert found.exit_code == 0, found.output
    assert "trained, not yet rounded" in found.output
    assert "rounded once, not trained" in found.output
    result = json.loads((folder / "result.json").read_text())
    assert {"validation_accuracy", "unrounded_validation_accuracy", "unrounded_test_accuracy"} <= result.keys()
    assert json.loads((folder / "policy.json").read_text())["provenance"]["forward"] == "float"
    table = (folder / "wave" / "metrics.csv").read_text().splitlines()
    rows = [row for row in csv.DictReader(table) if row["validation_accuracy"]]
    assert len(rows) == 4
    assert float(rows[-1]["validation_accuracy"]) == pytest.approx(result["validation_accuracy"])
    assert float(rows[-1]["unrounded_validation_accuracy"]) == pytest.approx(result["unrounded_validation_accuracy"])
    assert any(row["validation_accuracy"] != row["unrounded_validation_accuracy"] for row in rows)
