"""The names of `stripes_sim` inside this package; its modules keep their own paths, as `stripes_sim.hardware`."""

from stripes_sim import *  # noqa: F403
from stripes_sim import __all__ as __all__
