"""What a run returns: totals, a frame with one row a layer, savings against named baselines, a printed table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import cached_property

import numpy as np
import pandas as pd

from stripes_sim._packed import Floats, Ints
from stripes_sim.bits import resolve_bits
from stripes_sim.costs import LEVELS, PARTS, LayerCosts, layer_costs
from stripes_sim.dataflows import dataflow_named
from stripes_sim.layers import LayerShape
from stripes_sim.parameters import Parameters
from stripes_sim.plan import Tile
from stripes_sim.sources import assumed_parameters
from stripes_sim.text import fitting_unit, layers_text
from stripes_sim.values import Values

__all__ = ["LEFT_OUT", "Result", "Saving"]

# parameters that set the cycles of a level, and the energy of a part
_SETS_CYCLES = {
    "DRAM": ("dram_bytes_per_s",),
    "weight buffer": ("weight_buffer_bits_per_cycle",),
    "activation buffer": ("activation_buffer_bits_per_cycle",),
}
_SETS_ENERGY = {
    "dram": ("dram",),
    "weight_buffer": ("buffer_bank_bytes",),
    "activation_buffer": ("buffer_bank_bytes",),
    "leakage": ("leakage",),
}
LEFT_OUT = (
    "not counted: biases, norms, activation functions, pooling and element-wise sums (no array work); "
    "half steps of grids without a zero"
)


@dataclass(frozen=True, kw_only=True)
class Saving:
    """How a run compares with a named baseline: ``speedup`` and ``energy_ratio`` are baseline over run."""

    baseline: str
    baseline_cycles: float
    baseline_energy_pj: float
    speedup: float
    energy_ratio: float

    @property
    def energy_saving(self) -> float:
        """The share of the baseline's energy that is saved, 0.75 for a quarter of it."""
        return 1 - 1 / self.energy_ratio

    def __str__(self) -> str:
        more, cycles = ("fewer", self.speedup) if self.speedup >= 1 else ("more", 1 / self.speedup)
        saved = self.energy_saving
        energy = f"{saved:.1%} less" if saved >= 0 else f"{-saved:.1%} more"
        return f"{cycles:.2f}x {more} cycles, {energy} energy ({self.energy_ratio:.2f}x) than {self.baseline}"


@dataclass(frozen=True, kw_only=True, repr=False)
class Result:
    """Costs of one workload at one policy on one machine, for one batch.

    Prints as a table. Totals are plain numbers, ``frame`` has the layers, ``score`` is a plain dict.
    """

    hardware: Parameters
    layers: tuple[LayerShape, ...]
    weight_bits: Ints
    activation_bits: Ints
    batch: int
    costs: LayerCosts
    cache_bits: int | None = None
    values: Values | None = None

    @property
    def compute_cycles(self) -> int:
        """Cycles of the array alone, no memory stalls."""
        return sum(self.costs.array.compute_cycles[:, 0].tolist())

    @property
    def cycles(self) -> float:
        """Cycles with memory: each layer takes as long as the slowest of array, buffers and DRAM."""
        return float(self.costs.cycles.sum())

    @property
    def energy_pj(self) -> float:
        """Energy of all layers and parts."""
        return float(self.costs.total_pj.sum())

    @property
    def seconds(self) -> float:
        """``cycles`` at the machine's clock."""
        return self.cycles / self.hardware.clock_hz

    @property
    def weight_bytes(self) -> float:
        """What the weights take in memory."""
        return float(self.costs.moved.weight_bytes.sum())

    @property
    def breakdown_pj(self) -> dict[str, float]:
        """Energy by part, summed over layers."""
        return {part: float(values.sum()) for part, values in self.costs.energy_pj.items()}

    @property
    def utilisation(self) -> float:
        """Share of all lanes and cycles, memory stalls included, that did a multiply-accumulate's work."""
        lanes = self.hardware.lane_count
        return min(float(self._lane_cycles.sum() / (lanes * max(self.cycles, 1.0))), 1.0)

    @property
    def bound(self) -> str:
        """The level that most cycles were spent waiting for."""
        waited = {
            level: float(self.costs.cycles[self.costs.bound == number].sum()) for number, level in enumerate(LEVELS)
        }
        return max(waited, key=lambda level: waited[level])

    @property
    def notes(self) -> tuple[str, ...]:
        """What of these figures rests on assumptions: numbers of the machine that set them, ways that no paper shows.

        A parameter counts where its level is the one that most cycles wait for, or its part most of the energy.
        """
        hw, energy = self.hardware, self.breakdown_pj
        largest = max(energy, key=lambda part: energy[part])
        matter = dict.fromkeys((*_SETS_CYCLES.get(self.bound, ()), *_SETS_ENERGY.get(largest, ())))
        reasons = assumed_parameters(hw)
        found = [f"assumed: {key} = {getattr(hw, key)} ({reasons[key]})" for key in matter if key in reasons]
        if hw.mapping == "closed" and (cut := int(self.costs.moved.binds.sum())):
            found.append(
                f"lower bound: {cut} of {len(self.layers)} layers do not stay on chip and count what any tiling moves "
                "at least (mapping = closed; search finds a tiling)"
            )
        if hw.serial == "spatial" and any(_is_depthwise(layer) for layer in self.layers):
            found.append("assumed: depthwise layers on spatially composed units, which no published figure shows")
        found += [f"assumed: {text}" for text in dataflow_named(hw.serial).assumes]
        if self.values is not None and self.values.unseen:
            names = ", ".join(self.values.unseen[:3]) + (", ..." if len(self.values.unseen) > 3 else "")
            found.append(
                f"no values of {len(self.values.unseen)} products of activations: all their bits count ({names})"
            )
        return tuple(found)

    @property
    def score(self) -> dict[str, float]:
        """The totals as plain numbers."""
        return {
            "cycles": self.cycles,
            "compute_cycles": float(self.compute_cycles),
            "energy_pj": self.energy_pj,
            "weight_bytes": self.weight_bytes,
            **{f"{part}_pj": value for part, value in self.breakdown_pj.items()},
        }

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a layer.

        ``weight_bits`` of a matmul or lookup are its activation bits (of a cache, its own). ``utilisation`` is the
        share of PE slots with work among the tiles that run (as DNNsim counts); ``array_utilisation`` the share of all
        lanes of all tiles that do a multiply-accumulate, idle tiles and tails included. ``bound`` names the slowest
        level.
        """
        costs, array, moved = self.costs, self.costs.array, self.costs.moved
        slots = array.scheduled_pes + array.idle_pes
        busiest = float(self.hardware.lane_count) * np.maximum(array.compute_cycles, 1)
        columns = {
            "macs": np.array([[self.batch * layer.macs] for layer in self.layers]),
            "weight_bits": costs.stationary_bits,
            "activation_bits": self.activation_bits,
            "compute_cycles": array.compute_cycles,
            "cycles": costs.cycles,
            "utilisation": array.scheduled_pes / np.maximum(slots, 1),
            # the MACs of a transposed convolution count what is cropped away again
            "array_utilisation": np.minimum(self._lane_cycles / busiest, 1.0),
            "weight_bytes": moved.weight_bytes,
            "dram_bytes": (moved.dram_read_bits + moved.dram_write_bits) / 8,
            **{f"{part}_pj": costs.energy_pj[part] for part in PARTS},
            "energy_pj": costs.total_pj,
            "scheduled_pes": array.scheduled_pes,
            "idle_pes": array.idle_pes,
            "dram_weight_reads": array.dram_weight_reads,
            "buffer_weight_reads": array.buffer_weight_reads,
        }
        frame = pd.DataFrame(
            {key: np.broadcast_to(values, (len(self.layers), 1))[:, 0] for key, values in columns.items()}
        )
        frame.insert(0, "name", [layer.name for layer in self.layers])
        frame.insert(1, "kind", [layer.kind for layer in self.layers])
        frame.insert(list(frame.columns).index("cycles") + 1, "bound", [LEVELS[level] for level in costs.bound[:, 0]])
        return frame

    @property
    def tiles(self) -> pd.DataFrame:
        """How the search cut the layers that do not stay on chip, one row each; empty with ``mapping="closed"``.

        ``windows``: samples and output places (tokens) of a tile; ``channels``, ``filters``: its sizes in one group;
        ``weights``, ``inputs``: how often they come from DRAM; ``sums``: how often partial sums go there and back.
        """
        columns = ["name", *(field.name for field in fields(Tile))]
        rows = [(self.layers[row].name, *astuple(tile)) for row, tile in sorted(self.costs.moved.tiles.items())]
        frame = pd.DataFrame(rows, columns=columns)
        frame["windows"] = [" x ".join(map(str, sizes)) for sizes in frame["windows"]]
        return frame

    @property
    def _lane_cycles(self) -> Floats:
        """Lane-cycles that multiply-accumulates take at these bits."""
        hw, work, measured = self.hardware, self.costs.work, self.costs.array.cycles_per_mac
        if measured is not None:
            return np.asarray(self.batch * work.macs * measured)
        return dataflow_named(hw.serial).lane_cycles(
            hw, self.batch * work.macs, self.costs.stationary_bits, self.activation_bits
        )

    def at(self, weight_bits: int) -> Result:
        """The same workload, machine, activations and batch with all weights at ``weight_bits``, 1 to 16.

        Raises:
            TypeError, ValueError: bits that are no integer from 1 to 16.
        """
        names = [layer.name for layer in self.layers]
        uniform = resolve_bits(names, weight_bits, argument="weight_bits")[:, None]
        costs = layer_costs(
            self.hardware,
            self.layers,
            uniform,
            self.activation_bits,
            batch=self.batch,
            cache_bits=self.cache_bits,
            values=self.values,
        )
        return replace(self, weight_bits=uniform, costs=costs)

    def saving(self, baseline: Result | int) -> Saving:
        """Compare with another run, or with all weights at that many bits on the same machine.

        >>> from stripes_sim import LayerShape, Stripes
        >>> fc = LayerShape(name="fc", kind="linear", in_channels=512, out_channels=256)
        >>> print(Stripes().run([fc], 4).saving(16).baseline)
        Stripes (serial weights) with all weights at 16 bits, activations at 16 bits
        """
        other = baseline if isinstance(baseline, Result) else self.at(baseline)
        return Saving(
            baseline=other.title,
            baseline_cycles=other.cycles,
            baseline_energy_pj=other.energy_pj,
            speedup=other.cycles / self.cycles,
            energy_ratio=other.energy_pj / self.energy_pj,
        )

    @property
    def savings(self) -> tuple[Saving, Saving]:
        """Against all weights at 16 bits and at 8 bits, on the same machine."""
        return self.saving(16), self.saving(8)

    @property
    def title(self) -> str:
        """Machine and bits in one line."""
        weighted = [bits for bits, layer in zip(self.weight_bits[:, 0], self.layers, strict=True) if layer.has_weights]
        weights = _bits_text("all weights", weighted)
        streamed = _bits_text("activations", list(self.activation_bits[:, 0]))
        kind = dataflow_named(self.hardware.serial).title
        batch = f", batch {self.batch}" if self.batch > 1 else ""
        return f"{self.hardware.name} ({kind}) with {weights}, {streamed}{batch}"

    def table(self, *, breakdown: bool = False) -> str:
        """The printed table: layers, totals, savings against 16 and 8 bits, what is left out and what is assumed."""
        hw = self.hardware
        time_size, time_unit = fitting_unit(self.seconds, ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")))
        layers = layers_text(self.frame, [f"{part}_pj" for part in PARTS] if breakdown else ())
        summary = (
            f"{self.seconds / time_size:,.4g} {time_unit} at {hw.clock_hz / 1e6:,.0f} MHz, "
            f"{self.weight_bytes / 2**10:,.1f} KiB of weights ({hw.storage}), "
            f"energy for {hw.node_nm:g} nm and {hw.dram.upper()}"
        )
        return "\n".join([self.title, "", layers, "", summary, *map(str, self.savings), LEFT_OUT, *self.notes])

    def __str__(self) -> str:
        return self.table()

    __repr__ = __str__


def _is_depthwise(layer: LayerShape) -> bool:
    return layer.is_spatial and layer.groups == layer.in_channels > 1


def _bits_text(what: str, bits: Sequence[int]) -> str:
    if not bits:
        return f"no {what}"
    if min(bits) == max(bits):
        return f"{what} at {bits[0]} bit{'s' if bits[0] > 1 else ''}"
    return f"{what.removeprefix('all ')} at {min(bits)} to {max(bits)} bits (mean of layers {np.mean(bits):.2f})"
