"""``waveq.pareto`` is ``pareto``: the same package under a name inside this one.

>>> import pareto, waveq.pareto
>>> waveq.pareto is pareto
True
"""

import pareto
from pareto import *  # noqa: F403  # for type checkers; at run time the package stands here itself
from waveq._alias import stand_for

stand_for(__name__, pareto)
