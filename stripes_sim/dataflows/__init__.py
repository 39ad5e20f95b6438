"""Ways of computing, one file for each: what a machine's ``serial`` names.

    serial     bits of one operand, or of both, one after the other   "weights" "activations" "both"
    parallel   whole operands at once                                 "none"
    spatial    units that split into narrower ones                    "spatial"
    sensed     what the real values at work need                      "dynamic" "pragmatic" "laconic", "both"

`base` says what each must answer, `tiles` is the tile that serial and parallel machines share, `sensed` walks over the
values of a layer on it, `registry` holds them by name. A new one is a file here with a line below, or a class in
a user's own file under `register`.
"""

from stripes_sim.dataflows.base import ArrayWork as ArrayWork
from stripes_sim.dataflows.base import Dataflow as Dataflow
from stripes_sim.dataflows.dynamic import DynamicActivations
from stripes_sim.dataflows.laconic import TermsOfBoth
from stripes_sim.dataflows.loom import SerialBoth
from stripes_sim.dataflows.parallel import Parallel
from stripes_sim.dataflows.pragmatic import TermsOfActivations
from stripes_sim.dataflows.registry import dataflow_named as dataflow_named
from stripes_sim.dataflows.registry import dataflow_names as dataflow_names
from stripes_sim.dataflows.registry import register as register
from stripes_sim.dataflows.sensed import Sensed as Sensed
from stripes_sim.dataflows.serial import SerialActivations, SerialWeights
from stripes_sim.dataflows.spatial import Spatial
from stripes_sim.dataflows.tiles import Tiled as Tiled

__all__ = ["ArrayWork", "Dataflow", "Sensed", "Tiled", "dataflow_named", "dataflow_names", "register"]

for _kind in (
    SerialWeights,
    SerialActivations,
    SerialBoth,
    Parallel,
    Spatial,
    DynamicActivations,
    TermsOfActivations,
    TermsOfBoth,
):
    register(_kind)
