"""The weight-serial tile in Verilog, and the files that make it compute one layer: `write_rtl`, `simulate`."""

from __future__ import annotations

from stripes_sim.rtl.files import RtlLayer as RtlLayer
from stripes_sim.rtl.files import write_rtl as write_rtl
from stripes_sim.rtl.icarus import simulate as simulate

__all__ = ["RtlLayer", "simulate", "write_rtl"]
