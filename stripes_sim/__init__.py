"""Cycles, memory traffic and energy of a per-layer bitwidth policy on bit-serial accelerators.

>>> from stripes_sim import LayerShape, Stripes
>>> layers = [LayerShape(name="conv", kind="conv", in_channels=64, out_channels=64, kernel_size=3,
...                      input_size=(56, 56), padding=1)]
>>> Stripes().run(layers, {"conv": 4}).compute_cycles
28224
"""

from stripes_sim.capture import Captured as Captured
from stripes_sim.capture import capture as capture
from stripes_sim.cost import CostTable as CostTable
from stripes_sim.cost import cost_table as cost_table
from stripes_sim.explore import explore as explore
from stripes_sim.exports import export_workload as export_workload
from stripes_sim.hardware import Accelerator as Accelerator
from stripes_sim.hardware import BitFusion as BitFusion
from stripes_sim.hardware import DaDianNao as DaDianNao
from stripes_sim.hardware import DynamicStripes as DynamicStripes
from stripes_sim.hardware import Laconic as Laconic
from stripes_sim.hardware import Loom as Loom
from stripes_sim.hardware import Pragmatic as Pragmatic
from stripes_sim.hardware import Stripes as Stripes
from stripes_sim.layers import LayerShape as LayerShape
from stripes_sim.llm import llm_workload as llm_workload
from stripes_sim.machines import Machine as Machine
from stripes_sim.machines import hardware_names as hardware_names
from stripes_sim.machines import load_hardware as load_hardware
from stripes_sim.machines import load_machine as load_machine
from stripes_sim.pair_cost import PairCostTable as PairCostTable
from stripes_sim.plotting import plot_breakdown as plot_breakdown
from stripes_sim.plotting import plot_exploration as plot_exploration
from stripes_sim.result import Result as Result
from stripes_sim.result import Saving as Saving
from stripes_sim.roofline import plot_roofline as plot_roofline
from stripes_sim.roofline import roofline as roofline
from stripes_sim.trace import trace as trace
from stripes_sim.workload import read_workload as read_workload
from stripes_sim.workload import write_workload as write_workload

__all__ = [
    "Accelerator",
    "BitFusion",
    "Captured",
    "CostTable",
    "DaDianNao",
    "DynamicStripes",
    "Laconic",
    "LayerShape",
    "Loom",
    "Machine",
    "PairCostTable",
    "Pragmatic",
    "Result",
    "Saving",
    "Stripes",
    "capture",
    "cost_table",
    "explore",
    "export_workload",
    "hardware_names",
    "llm_workload",
    "load_hardware",
    "load_machine",
    "plot_breakdown",
    "plot_exploration",
    "plot_roofline",
    "read_workload",
    "roofline",
    "trace",
    "write_workload",
]
