"""Bit allocation without waves: the baselines that a learned policy is measured against, at the same budget.

Every allocation takes tables by layer and total bits and returns total bits by layer, whose costs add up to at most
the budget. ``uniform``, ``random_at_cost``, ``greedy_sensitivity`` and ``ilp`` take (losses, costs, budget);
``hessian_ilp`` and ``learned_step_bits`` take (model, costs, budget) and make what they need of the losses themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from waveq._lazy import lazy_names

if TYPE_CHECKING:
    from waveq.allocate.hessian import hessian_ilp as hessian_ilp
    from waveq.allocate.hessian import hessian_losses as hessian_losses
    from waveq.allocate.hessian import ilp as ilp
    from waveq.allocate.hessian import squared_errors as squared_errors
    from waveq.allocate.learned_steps import StepBits as StepBits
    from waveq.allocate.learned_steps import learned_step_bits as learned_step_bits
    from waveq.allocate.problem import Table as Table
    from waveq.allocate.problem import mean_bits_costs as mean_bits_costs
    from waveq.allocate.problem import policy_cost as policy_cost
    from waveq.allocate.problem import tabulate as tabulate
    from waveq.allocate.simple import greedy_sensitivity as greedy_sensitivity
    from waveq.allocate.simple import random_at_cost as random_at_cost
    from waveq.allocate.simple import uniform as uniform

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

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "greedy_sensitivity": "waveq.allocate.simple",
        "hessian_ilp": "waveq.allocate.hessian",
        "hessian_losses": "waveq.allocate.hessian",
        "ilp": "waveq.allocate.hessian",
        "learned_step_bits": "waveq.allocate.learned_steps",
        "mean_bits_costs": "waveq.allocate.problem",
        "policy_cost": "waveq.allocate.problem",
        "random_at_cost": "waveq.allocate.simple",
        "squared_errors": "waveq.allocate.hessian",
        "StepBits": "waveq.allocate.learned_steps",
        "Table": "waveq.allocate.problem",
        "tabulate": "waveq.allocate.problem",
        "uniform": "waveq.allocate.simple",
    },
)
