"""``waveq.sim`` is ``stripes_sim``: the same package under a name inside this one.

>>> import stripes_sim, waveq.sim
>>> waveq.sim is stripes_sim
True
"""

import stripes_sim
from stripes_sim import *  # noqa: F403  # for type checkers; at run time the package stands here itself
from waveq._alias import stand_for

stand_for(__name__, stripes_sim)
