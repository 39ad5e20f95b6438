"""The names of `pareto` inside this package; its modules keep their own paths, as `pareto.store`."""

from pareto import *  # noqa: F403
from pareto import __all__ as __all__
