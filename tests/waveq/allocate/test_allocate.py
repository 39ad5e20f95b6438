"""Bit allocations against brute force on small spaces, closed forms, and each other."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from waveq import allocate
from waveq.allocate import StepBits
from waveq.allocate.learned_steps import quantize_step_range
from waveq.quantizers import quantize_weight

TableDict = dict[str, dict[int, float]]
ALLOCATIONS = (allocate.uniform, allocate.random_at_cost, allocate.greedy_sensitivity, allocate.ilp)


def all_policies(costs: TableDict) -> Iterator[dict[str, int]]:
    for bits in itertools.product(*(sorted(row) for row in costs.values())):
        yield dict(zip(costs, bits, strict=True))


def total(table: TableDict, policy: dict[str, int]) -> float:
    return sum(table[name][bits] for name, bits in policy.items())


def best(losses: TableDict, costs: TableDict, budget: float) -> float:
    within = (policy for policy in all_policies(costs) if total(costs, policy) <= budget * (1 + 1e-9))
    return min(total(losses, policy) for policy in within)


@st.composite
def problems(draw: st.DrawFn, *, same_bits: bool = False) -> tuple[TableDict, TableDict, float]:
    """Losses that fall or wobble with bits, costs that rise, a budget somewhere between least and most."""
    layers = draw(st.integers(1, 4))
    shared = sorted(draw(st.sets(st.integers(1, 9), min_size=1, max_size=4)))
    losses: TableDict = {}
    costs: TableDict = {}
    for index in range(layers):
        bits = shared if same_bits else sorted(draw(st.sets(st.integers(1, 9), min_size=1, max_size=4)))
        values = st.floats(0.0, 10.0, allow_subnormal=False)
        steps = [draw(st.floats(0.01, 5.0)) for _ in bits]
        costs[f"layer{index}"] = dict(zip(bits, itertools.accumulate(steps), strict=True))
        losses[f"layer{index}"] = {b: draw(values) for b in bits}
    least, most = (sum(pick(row.values()) for row in costs.values()) for pick in (min, max))
    return losses, costs, least + draw(st.floats(0.001, 1.1)) * (most - least)


@pytest.mark.slow
@given(problems())
def test_ilp_is_the_best_of_all_policies(problem: tuple[TableDict, TableDict, float]) -> None:
    losses, costs, budget = problem
    policy = allocate.ilp(losses, costs, budget)
    assert total(costs, policy) <= budget * (1 + 2e-6)
    assert total(losses, policy) <= best(losses, costs, budget) + 1e-6


def test_ilp_meets_a_budget_exactly_and_tells_small_losses_apart() -> None:
    names = [f"layer{i}" for i in range(6)]
    costs = allocate.mean_bits_costs(names, range(2, 9))
    losses = {name: {b: 1e4 * 4.0**-b * (1 + 1e-6 * i) for b in range(2, 9)} for i, name in enumerate(names)}
    policy = allocate.ilp(losses, costs, 4.5)
    assert policy == dict(zip(names, (4, 4, 4, 5, 5, 5), strict=True))


@given(problems())
def test_greedy_stays_within_and_leaves_nothing_that_helps(problem: tuple[TableDict, TableDict, float]) -> None:
    losses, costs, budget = problem
    policy = allocate.greedy_sensitivity(losses, costs, budget)
    assert total(costs, policy) <= budget * (1 + 2e-6)
    assert total(losses, policy) >= best(losses, costs, budget) - 1e-6
    for name, bits in policy.items():
        higher = [b for b in sorted(costs[name]) if b > bits][:1]
        for b in higher:
            fits = total(costs, {**policy, name: b}) <= budget * (1 + 1e-9)
            assert not fits or losses[name][b] >= losses[name][bits] - 1e-12


def slow_greedy_descent(losses: TableDict, costs: TableDict, budget: float) -> dict[str, int]:
    policy = {name: max(row) for name, row in costs.items()}
    while total(costs, policy) > budget:
        rates = {}
        for name, bits in policy.items():
            for lower in [b for b in sorted(costs[name], reverse=True) if b < bits][:1]:
                rise = losses[name][lower] - losses[name][bits]
                rates[name, lower] = rise / (costs[name][bits] - costs[name][lower])
        name, lower = min(rates, key=lambda key: rates[key])
        policy[name] = lower
    return policy


@pytest.mark.slow
def test_greedy_against_its_slow_twin() -> None:
    generator = np.random.default_rng(5)
    bits = range(2, 9)
    for _ in range(20):
        names = [f"layer{i}" for i in range(5)]
        weights, sensitivity = generator.uniform(1, 9, 5), generator.uniform(0.1, 5, 5)
        costs = {name: {b: float(w * b) for b in bits} for name, w in zip(names, weights, strict=True)}
        losses = {name: {b: float(s * 4.0**-b) for b in bits} for name, s in zip(names, sensitivity, strict=True)}
        budget = float(weights.sum()) * 4.3
        descended = slow_greedy_descent(losses, costs, budget)
        policy = allocate.greedy_sensitivity(losses, costs, budget)
        assert all(policy[name] >= b for name, b in descended.items())  # only the refill lies between
        assert total(losses, policy) <= total(losses, descended)
        assert total(losses, policy) <= 1.1 * best(losses, costs, budget)


@given(problems(same_bits=True))
def test_uniform_is_the_highest_that_fits(problem: tuple[TableDict, TableDict, float]) -> None:
    losses, costs, budget = problem
    choices = sorted(next(iter(costs.values())))
    within = [b for b in choices if total(costs, dict.fromkeys(costs, b)) <= budget * (1 + 1e-6)]
    assert allocate.uniform(losses, costs, budget) == dict.fromkeys(costs, max(within))


def test_uniform_where_layers_share_no_bits() -> None:
    costs = {"a": {2: 1.0, 3: 2.0}, "b": {4: 1.0}}
    with pytest.raises(ValueError, match="no number of bits that all layers share"):
        allocate.uniform(costs, costs, 9.0)


@given(problems(), st.integers(0, 5))
def test_random_uses_the_budget_up(problem: tuple[TableDict, TableDict, float], seed: int) -> None:
    losses, costs, budget = problem
    policy = allocate.random_at_cost(losses, costs, budget, seed=seed)
    assert policy == allocate.random_at_cost(losses, costs, budget, seed=seed)
    assert total(costs, policy) <= budget * (1 + 2e-6)
    for name, bits in policy.items():
        for higher in [b for b in sorted(costs[name]) if b > bits][:1]:
            assert total(costs, {**policy, name: higher}) > budget


def test_random_policies_differ_and_cover() -> None:
    names = [f"layer{i}" for i in range(8)]
    costs = allocate.mean_bits_costs(names)
    policies = [allocate.random_at_cost(costs, costs, 4.0, seed=seed) for seed in range(60)]
    assert len({tuple(policy.values()) for policy in policies}) > 50
    assert {bits for policy in policies for bits in policy.values()} == set(range(2, 9))
    assert all(allocate.policy_cost(costs, policy) == pytest.approx(4.0) for policy in policies)


# ---------------------------------------------------------------------- the door


GOOD: TableDict = {"conv1": {2: 1.0, 3: 2.0}, "fc": {2: 1.0, 3: 2.0}}


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize(
    ("losses", "costs", "budget", "message"),
    [
        (GOOD, GOOD, 1.5, "cannot be met: the fewest bits in every layer cost 2"),
        (GOOD, GOOD, math.nan, "budget must be a finite number"),
        (GOOD, GOOD, math.inf, "budget must be a finite number"),
        ({**GOOD, "cnv1": {2: 1.0}}, GOOD, 4.0, "losses names 'cnv1'.*did you mean 'conv1'"),
        ({"fc": GOOD["fc"]}, GOOD, 4.0, "costs names 'conv1', which losses does not"),
        ({**GOOD, "fc": {2: 1.0}}, GOOD, 4.0, "'fc' has losses for 2 and costs for 2, 3 bits"),
        ({**GOOD, "fc": {2: math.nan, 3: 0.0}}, GOOD, 4.0, r"losses\['fc'\] holds a value that is not finite"),
        (GOOD, {**GOOD, "fc": {2: 2.0, 3: 1.0}}, 4.0, r"costs\['fc'\] is negative or falls"),
        (GOOD, {**GOOD, "fc": {2: -2.0, 3: 1.0}}, 4.0, r"costs\['fc'\] is negative or falls"),
        ({}, {}, 4.0, "costs names no layer"),
        ({"a": {}}, {"a": {}}, 4.0, "no bits"),
    ],
)
def test_bad_problems(allocation: object, losses: TableDict, costs: TableDict, budget: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        allocation(losses, costs, budget)  # type: ignore[operator]


def test_tables() -> None:
    with pytest.raises(ValueError, match=r"shape \(2, 1\)"):
        allocate.tabulate(["a", "b"], [2], [[1, 2]])
    with pytest.raises(ValueError, match=r"'fd'.*did you mean 'fc'"):
        allocate.policy_cost(GOOD, {"fd": 2})
    with pytest.raises(ValueError, match="2, 3 bits, not 4"):
        allocate.policy_cost(GOOD, {"fc": 4})


def test_the_costs_of_a_simulated_machine() -> None:
    from stripes_sim import LayerShape, Stripes, cost_table

    layers = [
        LayerShape(name=name, kind="linear", in_channels=width, out_channels=64, tokens=1)
        for name, width in (("fc1", 512), ("fc2", 64))
    ]
    table = cost_table(layers, Stripes(), bits=range(2, 9))
    costs = allocate.tabulate(table.names, table.bits, table.energy_pj)
    losses = {name: {b: 4.0**-b for b in range(2, 9)} for name in costs}
    budget = 0.5 * total(costs, dict.fromkeys(costs, 8))
    for allocation in ALLOCATIONS:
        assert allocate.policy_cost(costs, allocation(losses, costs, budget)) <= budget
    assert total(losses, allocate.ilp(losses, costs, budget)) == pytest.approx(best(losses, costs, budget))


# ---------------------------------------------------------------------- HAWQ


def two_layers() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4))


def test_hessian_losses_by_hand() -> None:
    model = two_layers()
    errors = allocate.squared_errors(model, {"0": [3], "2": [3]}, quantizer="wrpn", scale="max")
    weight = model[2].weight.detach()
    expected = (quantize_weight(weight, 3, quantizer="wrpn", scale="max") - weight).square().sum().item()
    assert errors["2"][3] == pytest.approx(expected, rel=1e-5)
    losses = allocate.hessian_losses(model, {"0": 2.0, "2": 8.0}, errors)
    assert losses["2"][3] == pytest.approx(8.0 / 40 * expected, rel=1e-5)


def test_the_second_order_loss_is_the_loss_of_a_quadratic() -> None:
    """For 1/2 h |w - w0|^2 with one curvature h, HAWQ's loss is twice the true one, in every layer and at all bits."""
    model, curvature = two_layers(), {"0": 3.0, "2": 0.5}
    traces = {"0": 3.0 * 60, "2": 0.5 * 40}
    errors = allocate.squared_errors(model, {"0": range(2, 6), "2": range(2, 6)})
    losses = allocate.hessian_losses(model, traces, errors)
    for name, index in (("0", 0), ("2", 2)):
        for bits in range(2, 6):
            shift = quantize_weight(model[index].weight.detach(), bits) - model[index].weight.detach()
            assert losses[name][bits] == pytest.approx(
                2 * 0.5 * curvature[name] * shift.square().sum().item(), rel=1e-4
            )


def test_hessian_ilp_is_the_brute_force_optimum() -> None:
    model = two_layers()
    costs = {"0": {b: 60.0 * b for b in range(2, 9)}, "2": {b: 40.0 * b for b in range(2, 9)}}
    traces = {"0": 1.0, "2": 30.0}
    policy = allocate.hessian_ilp(model, costs, 400.0, traces=traces)
    losses = allocate.hessian_losses(
        model, traces, allocate.squared_errors(model, {name: range(2, 9) for name in costs})
    )
    assert total(losses, policy) == pytest.approx(best(losses, costs, 400.0))
    assert policy["2"] > policy["0"]


def test_hessian_door() -> None:
    model = two_layers()
    errors = {"0": {2: 1.0}}
    with pytest.raises(ValueError, match="traces has none for layer '0'"):
        allocate.hessian_losses(model, {"2": 1.0}, errors)
    with pytest.raises(ValueError, match="must be finite"):
        allocate.hessian_losses(model, {"0": math.inf}, errors)
    with pytest.raises(ValueError, match="no layer '1'"):
        allocate.squared_errors(model, {"1": [2]})
    with pytest.warns(UserWarning, match="negative"):
        assert allocate.hessian_losses(model, {"0": -1.0}, errors) == {"0": {2: 0.0}}


# ---------------------------------------------------------------------- learned steps


def test_step_range_gradients_by_hand() -> None:
    weight = torch.tensor([-2.0, -0.7, 0.2, 0.9, 1.3], requires_grad=True)
    step, reach = torch.tensor(0.5, requires_grad=True), torch.tensor(1.2, requires_grad=True)
    quantized = quantize_step_range(weight, step, reach)
    assert quantized.tolist() == pytest.approx([-1.2, -0.5, 0.0, 1.0, 1.2])
    upstream = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    dw, dd, dq = torch.autograd.grad((quantized * upstream).sum(), (weight, step, reach))
    assert dw.tolist() == [0.0, 2.0, 4.0, 8.0, 0.0]
    assert dd.item() == pytest.approx((2 * (-0.5 + 0.7) + 4 * (0.0 - 0.2) + 8 * (1.0 - 0.9)) / 0.5, rel=1e-5)
    assert dq.item() == -1.0 + 16.0


def test_step_range_has_the_levels_of_its_bits() -> None:
    for bits in (2, 3, 5):
        reach = torch.tensor(1.0)
        levels = quantize_step_range(torch.linspace(-2, 2, 4001), reach / (2 ** (bits - 1) - 1), reach).unique()
        assert levels.numel() == 2**bits - 1


def test_penalty_is_the_excess_of_real_bits() -> None:
    model = two_layers()
    costs = {"0": {2: 2.0, 4: 6.0, 8: 14.0}, "2": {2: 1.0, 4: 3.0, 8: 7.0}}
    steps = StepBits(model, costs, 10.0, strength=2.0)
    first, second = steps._states.values()
    with torch.no_grad():  # 3.3 and 6.5 real bits: choices 4 and 8
        for state, bits in ((first, 3.3), (second, 6.5)):
            state.log_step.copy_(state.log_reach - math.log2(2 ** (bits - 1) - 1))
    penalty = steps.penalty()
    cost = (2.0 + 1.3 * 2.0) + (3.0 + 2.5 * 1.0)
    assert penalty.item() == pytest.approx(2.0 * (cost / 10 - 1) ** 2, rel=1e-4)
    slopes = torch.autograd.grad(penalty, [first.log_step, second.log_step])
    for slope, state, per_bit in zip(slopes, (first, second), (2.0, 1.0), strict=True):
        ratio = (state.log_reach - state.log_step).exp2().item()
        by_log_step = -ratio / (ratio + 1)  # d real bits / d log2 d
        assert slope.item() == pytest.approx(2.0 * 2 * (cost / 10 - 1) * per_bit / 10 * by_log_step, rel=1e-3)
    # whole bits cost 6 + 7; the layer with 6.5 bits uses 2.5 of the last 4, the one with 3.3 uses 1.3 of the last 2
    assert steps.policy() == {"0": 4, "2": 4}
    steps.remove()


def test_learned_steps_begin_on_the_budget() -> None:
    """The layers of 6 and 4 choices cost 1 and 3 a bit: 3.5 bits in both are 14."""
    model = two_layers()
    steps = StepBits(model, {"0": {b: 1.0 * b for b in range(2, 9)}, "2": {b: 3.0 * b for b in (2, 4, 8)}}, 14.0)
    assert list(steps.real_bits().values()) == pytest.approx([3.5, 3.5], abs=1e-4)
    assert steps.penalty().item() == pytest.approx(0.0, abs=1e-6)
    assert steps.policy() == {"0": 8, "2": 2}  # 4 and 4 are too dear; what is left goes where it fits
    steps.remove()


def regression_batches(model: nn.Module, count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(64, 6, generator=generator)
    with torch.no_grad():
        targets = model(inputs)
    return [(inputs, targets)] * count


@pytest.mark.slow
def test_learned_steps_meet_the_budget_and_give_bits_where_they_matter() -> None:
    class Unequal(nn.Module):
        """The output hangs on ``strong`` a hundred times more than on ``weak``."""

        def __init__(self) -> None:
            super().__init__()
            self.strong, self.weak = nn.Linear(6, 8), nn.Linear(6, 8)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = 10 * self.strong(x) + 0.1 * self.weak(x)
            return out

    torch.manual_seed(4)
    model = Unequal()
    costs = allocate.mean_bits_costs(["strong", "weak"], range(2, 9))
    policy = allocate.learned_step_bits(
        model,
        costs,
        4.0,
        batches=regression_batches(model, 400),
        loss=nn.functional.mse_loss,
        learning_rate=1e-4,
    )
    assert 3.5 <= allocate.policy_cost(costs, policy) <= 4.0
    assert policy["strong"] >= policy["weak"] + 2
    assert not parametrize.is_parametrized(model.strong)
    assert set(model.state_dict()) == set(Unequal().state_dict())


@pytest.mark.slow
@settings(max_examples=15)
@given(st.floats(2.0, 8.0), st.integers(0, 100))
def test_learned_steps_never_exceed_the_budget(budget: float, seed: int) -> None:
    torch.manual_seed(seed)
    model = two_layers()
    costs = allocate.mean_bits_costs(["0", "2"])
    batches = regression_batches(model, 5)
    policy = allocate.learned_step_bits(model, costs, budget, batches=batches, loss=nn.functional.mse_loss)
    assert allocate.policy_cost(costs, policy) <= budget * (1 + 2e-6)


def test_learned_steps_stay_within_the_choices() -> None:
    model = two_layers()
    steps = StepBits(model, {"0": {3: 3.0, 5: 5.0}}, 3.0, rate_bits=2.0)
    assert len(steps.weights()) == 4
    for inputs, targets in regression_batches(model, 6):
        (nn.functional.mse_loss(model(inputs), targets) + steps.penalty()).backward()
        steps.step()
        assert 3.0 - 1e-4 <= steps.real_bits()["0"] <= 5.0 + 1e-4
    steps.remove()


def test_an_interrupted_run_leaves_plain_layers() -> None:
    model = two_layers()
    inputs, targets = regression_batches(model, 1)[0]

    def broken() -> Iterator[tuple[Tensor, Tensor]]:
        yield inputs, targets
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        allocate.learned_step_bits(
            model, allocate.mean_bits_costs(["0"]), 4.0, batches=broken(), loss=nn.functional.mse_loss
        )
    assert set(model.state_dict()) == set(two_layers().state_dict())


@pytest.mark.parametrize(
    ("costs", "options", "message"),
    [
        ({"1": {2: 1.0}}, {}, "the model has no layer"),
        ({"0": {1: 1.0, 2: 2.0}}, {}, "need 2 or more"),
        ({"0": {2: 2.0}}, {"strength": 0.0}, "strength must be positive"),
        ({"0": {2: 2.0}}, {"rate_bits": math.nan}, "rate_bits must be positive"),
        ({"0": {2: 5.0}}, {}, "cannot be met"),
    ],
)
def test_learned_steps_door(costs: TableDict, options: dict[str, float], message: str) -> None:
    model = two_layers()
    with pytest.raises(ValueError, match=message):
        StepBits(model, costs, 4.0, **options)
    assert set(model.state_dict()) == set(two_layers().state_dict())


def test_every_allocation_agrees_where_there_is_no_choice() -> None:
    model = two_layers()
    costs = {"0": {4: 4.0}, "2": {4: 4.0}}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for allocation in ALLOCATIONS:
            assert allocation(costs, costs, 8.0) == {"0": 4, "2": 4}
        assert allocate.hessian_ilp(model, costs, 8.0, traces={"0": 1.0, "2": 1.0}) == {"0": 4, "2": 4}
        batches = regression_batches(model, 3)
        policy = allocate.learned_step_bits(model, costs, 8.0, batches=batches, loss=nn.functional.mse_loss)
    assert policy == {"0": 4, "2": 4}


def test_frames_are_tables() -> None:
    from waveq.allocate.losstables import curvature_table, hessian_traces, weight_error_table

    model = two_layers()
    traces = hessian_traces(model, (torch.randn(20, 6), torch.randint(4, (20,))), probes=4)
    values = {name: trace.value for name, trace in traces.items()}
    losses = curvature_table(model, values, range(2, 9))
    costs = allocate.mean_bits_costs(["0", "2"])
    policy = allocate.ilp(losses, costs, 4.0)
    assert policy == allocate.hessian_ilp(model, costs, 4.0, traces=traces)
    for allocation in ALLOCATIONS:
        assert allocate.policy_cost(costs, allocation(losses, costs, 4.0)) <= 4.0
    errors = weight_error_table(model, range(2, 9))
    assert allocate.uniform(errors, 0.0 * errors + 1.0, 2.0) == {"0": 8, "2": 8}
