"""Enumerate, filter and rank policies: knows objectives and bit widths, nothing of networks or chips.

Plain data in, plain data out: a policy is a mapping layer -> total stored bits, many policies are a (N, L)
uint8 array, results are DataFrames with one column per layer and one per metric.
"""

from pareto._identity import CampaignChangedError, array_digest
from pareto.additive import additive_frontier, within_budget
from pareto.certainty import FrontierCertainty, alike_steps, frontier_certainty, paired_difference
from pareto.distance import distance
from pareto.enumerate import run_campaign
from pareto.frontier import frontier, is_efficient
from pareto.html import plot_html
from pareto.hypervolume import hypervolume
from pareto.losses import fit_additive, measured_losses, predict, prediction_quality, weight_errors
from pareto.plotdata import plot_data
from pareto.plotting import plot, plot_sensitivity
from pareto.ranking import rank
from pareto.search import SearchResult, search
from pareto.sensitivity import sensitivity
from pareto.space import DesignSpace
from pareto.store import Store
from pareto.tables import LayerTable, as_table, enumerate_costs, score_policies

__all__ = [
    "CampaignChangedError",
    "DesignSpace",
    "FrontierCertainty",
    "LayerTable",
    "SearchResult",
    "Store",
    "additive_frontier",
    "alike_steps",
    "array_digest",
    "as_table",
    "distance",
    "enumerate_costs",
    "fit_additive",
    "frontier",
    "frontier_certainty",
    "hypervolume",
    "is_efficient",
    "measured_losses",
    "paired_difference",
    "plot",
    "plot_data",
    "plot_html",
    "plot_sensitivity",
    "predict",
    "prediction_quality",
    "rank",
    "run_campaign",
    "score_policies",
    "search",
    "sensitivity",
    "weight_errors",
    "within_budget",
]
