from __future__ import annotations

import copy
import io
import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import waveq
from tests.training import OPTIMIZERS, FunctionalNet, batches, mlp, spread_layer, train
from waveq.functional import sine_penalty
from waveq.parametrization import parametrization_of
from waveq.presets import PRESETS
from waveq.quantizers import quantize_weight


def originals(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def beta_of(model: nn.Module, name: str) -> Tensor:
    return parametrization_of(model.get_submodule(name)).beta


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


# ---------------------------------------------------------------------- resuming


@pytest.mark.parametrize("target", [None, {"mean_bits": 4.0}])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_resumed_run_is_the_same_run(preset: str, optimizer: str, target: dict[str, float] | None) -> None:
    data = batches(48)
    options: dict[str, Any] = {"total_steps": 48, "preset": preset, "target": target, "quantizer": "wrpn"}

    whole = mlp()
    wq = waveq.attach(whole, **options)
    whole_optimizer = OPTIMIZERS[optimizer](whole.parameters())
    schedule = wq.settings.schedule
    assert schedule.fall is not None
    middle = (schedule.rise + schedule.fall) // 2
    train(whole, wq, whole_optimizer, data[:middle])
    assert wq.phase == 2
    file = io.BytesIO()
    torch.save({"model": whole.state_dict(), "optimizer": whole_optimizer.state_dict()}, file)
    train(whole, wq, whole_optimizer, data[middle:])

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = mlp(seed=99)
    again = waveq.attach(resumed, **options)
    resumed_optimizer = OPTIMIZERS[optimizer](resumed.parameters())
    resumed.load_state_dict(saved["model"])
    resumed_optimizer.load_state_dict(saved["optimizer"])
    assert again.steps == middle
    train(resumed, again, resumed_optimizer, data[middle:])

    for (name, ours), theirs in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert wq.betas() == again.betas()
    assert wq.policy().to_json() == again.policy().to_json()
    assert max(wq.betas().values()) < PRESETS[preset].beta_init  # something was learned


def test_resuming_with_learned_scale_and_activation_bits() -> None:
    data = batches(40)
    options: dict[str, Any] = {"total_steps": 40, "quantizer": "wrpn", "scale": "learned", "activation_bits": 4}
    models = [mlp(), mlp(seed=5)]
    handles = [waveq.attach(model, **options) for model in models]
    optimizers = [OPTIMIZERS["adam"](model.parameters()) for model in models]
    train(models[0], handles[0], optimizers[0], data[:12])
    models[1].load_state_dict(copy.deepcopy(models[0].state_dict()))
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for model, wq, optimizer in zip(models, handles, optimizers, strict=True):
        train(model, wq, optimizer, data[12:])
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in models), strict=True))


# ---------------------------------------------------------------------- any optimizer of the user's


def test_optimizers_do_not_see_beta() -> None:
    model = mlp()
    waveq.attach(model, total_steps=10)
    assert not any("beta" in name for name, _ in model.named_parameters())


def test_same_weights_same_bits_whatever_the_optimizer() -> None:
    """Rate 0 keeps the weights the same; Adam's normalisation and AdamW's decay must not show in beta."""
    data = batches(60)
    found = []
    for make in (
        lambda p: torch.optim.SGD(p, lr=0.0, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.0),
        lambda p: torch.optim.AdamW(p, lr=0.0, weight_decay=10.0),
    ):
        model = mlp()
        wq = waveq.attach(model, total_steps=60, lambda_beta=0.05)
        train(model, wq, make(model.parameters()), data)
        found.append((wq.betas(), dict(wq.policy())))
    assert found[0] == found[1] == found[2]
    assert any(beta < 6.5 for beta in found[0][0].values())


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_optimizer_may_be_built_before_or_after(optimizer: str, before: bool) -> None:
    model = mlp()
    made = OPTIMIZERS[optimizer](model.parameters()) if before else None
    wq = waveq.attach(model, total_steps=30)
    made = made or OPTIMIZERS[optimizer](model.parameters())
    start = originals(model)
    train(model, wq, made, batches(30))
    assert all(not torch.equal(start[name], p) for name, p in model.named_parameters() if "original" in name)
    assert wq.phase == 3


def test_gradient_accumulation_is_one_large_batch() -> None:
    """Rate 0, so that rounding differences in the weights cannot grow: the betas see the same gradients."""
    data = batches(40, size=64)
    trajectories = []
    for parts in (1, 4):
        model = mlp()
        wq = waveq.attach(model, total_steps=40, lambda_beta=0.05)
        for x, y in data:
            for bx, by in zip(x.chunk(parts), y.chunk(parts), strict=True):
                ((F.cross_entropy(model(bx), by) + wq.penalty()) / parts).backward()
            model.zero_grad()
            wq.step()
        trajectories.append(list(wq.betas().values()))
    assert trajectories[0] == pytest.approx(trajectories[1], abs=1e-4)
    assert min(trajectories[0]) < 6.5


def test_gradient_clipping_leaves_beta_alone() -> None:
    x, y = batches(1)[0]
    slopes = []
    for clip in (False, True):
        model = mlp()
        wq = waveq.attach(model, total_steps=10, schedule="constant")
        (F.cross_entropy(model(x), y) + wq.penalty()).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 1e-6)
        slopes.append([beta_of(model, name).grad.item() for name in wq.names])  # type: ignore[union-attr]
    assert slopes[0] == slopes[1]


def test_grad_scale_of_mixed_precision() -> None:
    """A loss scaled by 1024 and told so moves betas and the wave's balance as the plain loss does."""
    data = batches(30)
    ends = []
    for scaled in (False, True):
        model = mlp()
        wq = waveq.attach(model, total_steps=30, schedule="constant", lambda_w=0.3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", enabled=scaled, init_scale=1024.0, growth_interval=10**6)
        for x, y in data:
            loss = F.cross_entropy(model(x), y) + wq.penalty()
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            wq.step(grad_scale=scaler.get_scale() if scaled else 1.0)
            scaler.update()
        ends.append((list(wq.betas().values()), [float(parametrization_of(model[i]).strength) for i in (0, 2, 4)]))
    assert ends[0][0] == pytest.approx(ends[1][0], abs=1e-3)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-2)


def test_an_overflow_moves_no_beta() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=10, schedule="constant")
    before = wq.betas()
    (wq.penalty() * math.inf).backward()
    wq.step()
    assert wq.betas() == before
    assert wq.steps == 1
    wq.penalty().backward()
    wq.step()
    assert all(wq.betas()[name] < before[name] for name in before)


def test_bf16_autocast() -> None:
    model = FunctionalNet()
    wq = waveq.attach(model, total_steps=20, activation_bits=8)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    for x, y in batches(20, shape=(3, 6, 6)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(x)
            loss = F.cross_entropy(output, y) + wq.penalty()
        assert output.dtype == torch.bfloat16
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        wq.step()
    assert wq.phase == 3
    assert all(beta_of(model, name).dtype == torch.float32 for name in wq.names)
    assert set(wq.policy()) == {"conv1", "depthwise", "grouped", "again", "fc"}


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


def test_beta_stays_within_its_clamps_and_moves_a_step_at_a_time() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=400, schedule="constant", lambda_beta=50.0)
    lowest = 7.0
    for _ in range(299):
        wq.penalty().backward()
        before = wq.betas()
        wq.step()
        assert all(abs(wq.betas()[name] - before[name]) <= 0.05 + 1e-6 for name in before)
        lowest = min(lowest, *wq.betas().values())
    assert lowest == 1.0


# ---------------------------------------------------------------------- equilibrium


@pytest.mark.parametrize(
    ("lambda_beta", "quantizer"), [(0.05, "wrpn"), (0.05, "dorefa"), (0.1, "wrpn"), (0.03, "dorefa")]
)
def test_beta_converges_to_the_forecast(lambda_beta: float, quantizer: str) -> None:
    model = spread_layer()
    wq = waveq.attach(
        model, quantizer=quantizer, total_steps=500, preset="paper", lambda_beta=lambda_beta, schedule="constant"
    )
    forecast = wq.forecast()
    expected = math.log2(0.34657 / lambda_beta)
    assert f"beta = {expected:.2f}, {math.ceil(expected) + 1} total bits" in forecast
    while wq.phase == 2:
        wq.penalty().backward()
        wq.step()
    assert wq.betas()["0"] == pytest.approx(expected, abs=0.2)
    assert wq.bits()["0"] == math.ceil(wq.betas()["0"]) + 1
    assert wq.diagnose() == []


def test_forecast_names_layers_that_cannot_hold() -> None:
    model = nn.Sequential(nn.Linear(400, 10), nn.Linear(400, 10))
    with torch.no_grad():
        model[0].weight.normal_(std=0.3)
        model[1].weight.normal_(std=0.02)
    wq = waveq.attach(model, quantizer="wrpn", total_steps=100, preset="paper")
    assert "Expect collapse to 2 bits" in wq.forecast()
    assert wq.forecast().endswith("std(u) lambda_w): 1; lower lambda_beta.")


def test_forecast_with_layer_costs_is_layer_by_layer() -> None:
    wq = waveq.attach(spread_pair(), quantizer="wrpn", total_steps=90, preset="paper", layer_costs={"0": 1.0, "1": 3.0})
    assert f"0 beta = {math.log2(0.34657 / 0.025):.2f}" in wq.forecast()
    assert f"1 beta = {math.log2(0.34657 / 0.075):.2f}" in wq.forecast()


def spread_pair() -> nn.Sequential:
    return nn.Sequential(spread_layer(4000)[0], spread_layer(4000)[0])


def test_forecast_of_preset_bits_and_budgets() -> None:
    assert waveq.attach(mlp(), bits=3).forecast() == "Bits are preset: 0 3, 2 3, 4 3."
    assert (
        "until the policy meets mean_bits <= 4"
        in waveq.attach(mlp(), total_steps=9, target={"mean_bits": 4}).forecast()
    )
    assert "lambda_beta 0.02 lets the rounding" in waveq.attach(mlp(), total_steps=900).forecast()


# ---------------------------------------------------------------------- diagnoses


def run_weights_fixed(model: nn.Module, wq: waveq.WaveQ) -> list[str]:
    while wq.phase < 3:
        wq.penalty().backward()
        wq.step()
    return wq.diagnose()


def test_collapse_is_diagnosed() -> None:
    model = mlp()
    with torch.no_grad():
        for name in ("0", "2", "4"):
            model.get_submodule(name).weight.mul_(0.01)  # type: ignore[operator]
    wq = waveq.attach(model, quantizer="wrpn", total_steps=300, preset="paper")
    findings = run_weights_fixed(model, wq)
    assert len(findings) == 1
    assert findings[0].startswith("beta collapsed to its lower limit in: 0, 2, 4. Lower lambda_beta")


@pytest.mark.parametrize("clustered", [True, False])
def test_lock_is_diagnosed(clustered: bool) -> None:
    """Weights that sit on the 8-bit grid hold beta there; spread-out ones let it go under the same strengths."""
    model = spread_layer(2000)
    if clustered:
        with torch.no_grad():
            model[0].weight.copy_(quantize_weight(model[0].weight, 8, quantizer="wrpn", scale="none"))
    wq = waveq.attach(model, quantizer="wrpn", total_steps=1200, preset="paper", lambda_beta=0.1, beta_lr=0.015)
    findings = run_weights_fixed(model, wq)
    locked = [text for text in findings if text.startswith("beta did not move from 7 in: 0. The weights clustered")]
    assert bool(locked) is clustered


def test_descent_cut_short_is_diagnosed() -> None:
    wq = waveq.attach(spread_layer(2000), quantizer="wrpn", total_steps=300, preset="paper", beta_lr=0.4)
    findings = run_weights_fixed(mlp(), wq)
    assert len(findings) == 1
    assert findings[0].startswith("beta was still moving when the bits froze in: 0.")


def test_unfrozen_bits_are_diagnosed() -> None:
    wq = waveq.attach(mlp(), total_steps=100)
    assert any("the bits are not frozen: step 0 of 100, phase 1" in finding for finding in wq.diagnose())


def test_preset_bits_have_nothing_to_diagnose() -> None:
    assert waveq.attach(mlp(), bits=4).diagnose() == []


def test_a_healthy_run_rests_where_the_rounding_costs_what_bits_cost() -> None:
    """The task is the rounding error itself: beta rests at L = lambda_beta / (2 ln 2), as the forecast says."""
    model = spread_layer(4000)
    wq = waveq.attach(model, total_steps=500, quantizer="wrpn", scale="max", lambda_beta=0.02)
    layer, state = model[0], parametrization_of(model[0])
    assert "lets the rounding of an average layer cost 0.0144 of task loss" in wq.forecast()
    while wq.phase < 3:
        task = 8.0 * (layer.weight - layer.parametrizations.weight.original.detach()).square().mean()
        (task + wq.penalty()).backward()
        wq.step()
    assert task.item() == pytest.approx(0.0144, rel=0.2)
    assert 1.5 < state.beta.item() < 5
    assert wq.diagnose() == []


# ---------------------------------------------------------------------- budgets


@pytest.mark.parametrize("limit", [2.4, 3.85, 6.0])
@pytest.mark.parametrize("preset", ["recommended", "paper"])
def test_mean_bits_budget_is_met_and_used(preset: str, limit: float) -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=300, quantizer="wrpn", scale="max", preset=preset, target={"mean_bits": limit})
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(300))
    mean = wq.policy().mean_bits
    assert limit - 1 < mean <= limit
    assert not any("budget" in finding for finding in wq.diagnose())


def test_energy_budget_is_met_and_spares_the_expensive_layer() -> None:
    model = mlp()
    table = {
        name: {bits: 100.0 + cost * bits for bits in range(2, 9)}
        for name, cost in (("0", 1.0), ("2", 400.0), ("4", 10.0))
    }
    wq = waveq.attach(model, total_steps=300, target={"energy_pj": 0.5}, layer_costs=table)
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(300))
    policy = wq.policy()
    share = sum(table[name][bits] for name, bits in policy.items()) / sum(costs[8] for costs in table.values())
    assert share <= 0.5
    assert policy["2"] < policy["0"]


def test_a_short_run_meets_its_budget_by_rounding_and_says_so() -> None:
    model = mlp()
    wq = waveq.attach(model, total_steps=20, target={"mean_bits": 3.0})
    train(model, wq, OPTIMIZERS["sgd"](model.parameters()), batches(20))
    assert wq.policy().mean_bits <= 3.0
    assert any("rounded down" in finding for finding in wq.diagnose())


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


def test_finalised_models_are_plain_again() -> None:
    model, plain = FunctionalNet(), FunctionalNet()
    identities = {name: id(p) for name, p in model.named_parameters()}
    wq = waveq.attach(model, bits=4, activation_bits=4)
    wq.finalize()
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
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


def test_wave_on_weights_of_a_finalised_model_does_not_throw_them_off() -> None:
    """Fine-tuning from the grid: a balance that made up for a vanishing pull would destroy the weights."""
    model = mlp()
    data = batches(60)
    waveq.attach(model, bits=4, quantizer="wrpn").finalize()
    wq = waveq.attach(model, bits=4, quantizer="wrpn")
    start = originals(model)
    train(model, wq, torch.optim.SGD(model.parameters(), lr=0.05), data)
    moved = max(float((p.detach() - start[name]).abs().max()) for name, p in model.named_parameters())
    assert moved < 1.0


@pytest.mark.parametrize("lambda_w", [0.1, 1.0, 3.0])
def test_balance_does_not_feed_on_itself(lambda_w: float) -> None:
    model = mlp()
    wq = waveq.attach(model, bits=4, quantizer="wrpn", lambda_w=lambda_w)
    strengths = []
    for batch in batches(200):
        train(model, wq, torch.optim.SGD(model.parameters(), lr=0.0), [batch])
        strengths.append(float(parametrization_of(model[2]).strength))
    early, late = strengths[20], strengths[-1]
    assert 0.3 < late / early < 3.0


def test_repr_says_where_the_run_stands() -> None:
    wq = waveq.attach(mlp(), total_steps=100)
    assert repr(wq) == "WaveQ(3 layers, dorefa, phase 1, step 0 of 100, mean 8.00 bits)"
