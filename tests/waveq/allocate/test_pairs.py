"""Allocators over pairs of bits."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from waveq import PolicyEvaluator
from waveq.allocate import greedy_sensitivity, ilp
from waveq.allocate.losstables import measured_table
from waveq.allocate.pairs import PairPolicy, allocate_pairs, bitops_costs, random_pairs, uniform_pair
from waveq.evaluate.pairs import PairEvaluator
from waveq.method.operand_names import input_name

MACS, BITS = {"a": 5.0, "b": 2.0, "c": 1.0}, (2, 3, 4, 8)
COSTS = bitops_costs(MACS, BITS, BITS, inputs=["b", "c"])
LOSSES = {
    name: {bits: size * 4.0**-bits for bits in BITS}
    for name, size in zip(("a", "b", "c", "b (inputs)", "c (inputs)"), (1.0, 9.0, 2.0, 30.0, 0.5), strict=True)
}


def cost_of(policy: PairPolicy) -> float:
    return sum(MACS[name] * bits * policy.activation_bits.get(name, 16) for name, bits in policy.bits.items())


def loss_of(policy: PairPolicy) -> float:
    weights = sum(LOSSES[name][bits] for name, bits in policy.bits.items())
    return weights + sum(LOSSES[input_name(name)][bits] for name, bits in policy.activation_bits.items())


@pytest.mark.parametrize("budget", [190.0, 250.0, 300.0, 420.0])
def test_the_ilp_finds_the_best_pairs(budget: float) -> None:
    every = (
        PairPolicy(dict(zip("abc", w, strict=True)), dict(zip("bc", a, strict=True)))
        for w in itertools.product(BITS, repeat=3)
        for a in itertools.product(BITS, repeat=2)
    )
    best = min(loss_of(policy) for policy in every if cost_of(policy) <= budget)
    found = allocate_pairs(ilp, LOSSES, COSTS, budget)
    assert cost_of(found) <= budget
    assert loss_of(found) == pytest.approx(best)
    greedy = allocate_pairs(greedy_sensitivity, LOSSES, COSTS, budget)
    assert cost_of(greedy) <= budget
    assert loss_of(greedy) >= best - 1e-12


def test_random_pairs_use_the_budget_up() -> None:
    drawn = [random_pairs(COSTS, 420.0, seed=seed) for seed in range(8)]
    assert all(340.0 < cost_of(policy) <= 420.0 for policy in drawn)
    assert len({str(policy) for policy in drawn}) > 4
    with pytest.raises(ValueError, match=r"budget 10.0 cannot be met"):
        random_pairs(COSTS, 10.0)


def test_uniform_pairs() -> None:
    found = uniform_pair(COSTS, 300.0)
    assert found == PairPolicy(dict.fromkeys("abc", 3), {"b": 4, "c": 4})
    assert cost_of(found) <= 300.0
    with pytest.raises(ValueError, match="no pair of bits that all layers share costs at most 10"):
        uniform_pair(COSTS, 10.0)


def test_losses_that_lack_an_operand() -> None:
    with pytest.raises(ValueError, match=r"losses says nothing of 'b \(inputs\)' at 2 bits"):
        allocate_pairs(ilp, {name: LOSSES[name] for name in "abc"}, COSTS, 300.0)


@pytest.mark.slow
def test_measured_losses_of_both_operands() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    x = torch.randn(200, 4)
    data = x, net(x).argmax(dim=1)
    pairs = PairEvaluator(lambda inputs: PolicyEvaluator(net, data, activation_bits=inputs), ["2"])
    table = measured_table(pairs, (2, 8))  # type: ignore[arg-type]
    assert list(table.index) == ["0", "2", "2 (inputs)"]
    assert (table[8] == 0.0).all()
    alone = PolicyEvaluator(net, data, activation_bits={"2": 2})
    whole = PolicyEvaluator(net, data, activation_bits={"2": 8})
    expected = alone.losses({"0": 8, "2": 8}) - whole.losses({"0": 8, "2": 8})
    assert table.loc["2 (inputs)", 2] == pytest.approx(float(expected[0]))
    assert allocate_pairs(ilp, table, bitops_costs({"0": 64.0, "2": 48.0}, (2, 8), (2, 8), inputs=["2"]), 7000.0)
    policies = [{"0": 8, "2": 8, "2 (inputs)": 2}, {"0": 8, "2": 8, "2 (inputs)": 8}, {"0": 2, "2": 8, "2 (inputs)": 2}]
    found = pairs.accuracy(policies)
    assert found.tolist() == [
        *alone.accuracy({"0": 8, "2": 8}),
        *whole.accuracy({"0": 8, "2": 8}),
        *alone.accuracy({"0": 2, "2": 8}),
    ]
    assert (pairs.correct(policies).mean(axis=1) == found).all()
    with pytest.raises(ValueError, match=r"a policy has no bits for '2 \(inputs\)'"):
        pairs.accuracy({"0": 8, "2": 8})
    with pytest.raises(ValueError, match=r"policies must have shape \(N, 3\)"):
        pairs.accuracy([[8, 8]])
