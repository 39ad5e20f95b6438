"""Bit allocation without waves: the baselines that a learned policy is measured against, at the same budget.

Every allocation takes tables by layer and total bits and returns total bits by layer, whose costs add up to at most
the budget. ``uniform``, ``random_at_cost``, ``greedy_sensitivity`` and ``ilp`` take (losses, costs, budget);
``hessian_ilp`` and ``learned_step_bits`` take (model, costs, budget) and make what they need of the losses themselves.
"""

from __future__ import annotations

from waveq.allocate.hessian import hessian_ilp, hessian_losses, ilp, squared_errors
from waveq.allocate.learned_steps import StepBits, learned_step_bits
from waveq.allocate.problem import Table, mean_bits_costs, policy_cost, tabulate
from waveq.allocate.simple import greedy_sensitivity, random_at_cost, uniform

__all__ = [
    "StepBits",
    "Table",
    "greedy_sensitivity",
    "hessian_ilp",
    "hessian_losses",
    "ilp",
    "learned_step_bits",
    "mean_bits_costs",
    "policy_cost",
    "random_at_cost",
    "squared_errors",
    "tabulate",
    "uniform",
]
