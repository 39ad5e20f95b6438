"""`waveq.sim` is `stripes_sim`; see _alias.py."""

from stripes_sim import *  # noqa: F403
