"""Cycles, memory traffic and energy of a per-layer bitwidth policy on bit-serial accelerators.

>>> from stripes_sim import LayerShape, Stripes
>>> layers = [LayerShape(name="conv", kind="conv", in_channels=64, out_channels=64, kernel_size=3,
...                      input_size=(56, 56), padding=1)]
>>> Stripes().run(layers, {"conv": 4}).compute_cycles
28224
"""

from stripes_sim.cost import CostTable as CostTable
from stripes_sim.cost import cost_table as cost_table
from stripes_sim.hardware import Accelerator as Accelerator
from stripes_sim.hardware import BitFusion as BitFusion
from stripes_sim.hardware import DaDianNao as DaDianNao
from stripes_sim.hardware import Loom as Loom
from stripes_sim.hardware import Stripes as Stripes
from stripes_sim.layers import LayerShape as LayerShape
from stripes_sim.result import Result as Result
from stripes_sim.result import Saving as Saving
from stripes_sim.trace import trace as trace

__all__ = [
    "Accelerator",
    "BitFusion",
    "CostTable",
    "DaDianNao",
    "LayerShape",
    "Loom",
    "Result",
    "Saving",
    "Stripes",
    "cost_table",
    "trace",
]
