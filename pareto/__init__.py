"""Enumerate, filter and rank policies: knows objectives and bit widths, nothing of networks or chips.

Plain data in, plain data out: a policy is a mapping layer -> total stored bits, many policies are a (N, L)
uint8 array, results are DataFrames with one column per layer and one per metric.
"""

from pareto.distance import distance
from pareto.enumerate import run_campaign
from pareto.frontier import frontier, is_efficient
from pareto.hypervolume import hypervolume
from pareto.plotdata import plot_data
from pareto.plotting import plot, plot_sensitivity
from pareto.ranking import rank
from pareto.sensitivity import sensitivity
from pareto.space import DesignSpace
from pareto.store import CampaignChangedError, Store, array_digest
from pareto.tables import LayerTable, as_table, enumerate_costs, score_policies

__all__ = [
    "CampaignChangedError",
    "DesignSpace",
    "LayerTable",
    "Store",
    "array_digest",
    "as_table",
    "distance",
    "enumerate_costs",
    "frontier",
    "hypervolume",
    "is_efficient",
    "plot",
    "plot_data",
    "plot_sensitivity",
    "rank",
    "run_campaign",
    "score_policies",
    "sensitivity",
]
