"""`waveq.pareto` is `pareto`; see _alias.py."""

from pareto import *  # noqa: F403
