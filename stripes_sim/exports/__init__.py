"""What other simulators read: Timeloop, ZigZag, SCALE-Sim and Accelergy."""

from __future__ import annotations

from stripes_sim.exports.door import FORMATS as FORMATS
from stripes_sim.exports.door import Exported as Exported
from stripes_sim.exports.door import export_workload as export_workload

__all__ = ["FORMATS", "Exported", "export_workload"]
