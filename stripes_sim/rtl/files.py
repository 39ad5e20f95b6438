"""The files of one layer on the tile: Verilog, its parameters, what its buffers hold, and what must come out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stripes_sim._files import whole, write_text
from stripes_sim.bits import resolve_bits
from stripes_sim.constants import CONSTANTS
from stripes_sim.hardware import Accelerator
from stripes_sim.layers import LayerShape
from stripes_sim.rtl.layout import Layout, lay_out
from stripes_sim.rtl.words import activation_words, hexadecimal, output_sums, weight_words

__all__ = ["SOURCES", "RtlLayer", "write_rtl"]

Ints = npt.NDArray[np.int64]
SOURCES = ("pe.v", "tile.v", "sequencer.v", "machine.v", "testbench.v")


@dataclass(frozen=True, kw_only=True)
class RtlLayer:
    """What was written.

    Attributes:
        folder: where.
        layer: the layer's name.
        cycles: that `stripes_sim` counts, and the testbench expects.
        tiles: tiles that have work and are written.
        accumulator_bits: at least 32, wide enough for the largest sum that such operands can have.
        outputs: sums that the testbench compares, idle rows and columns included.
        files: their names.
    """

    folder: Path
    layer: str
    cycles: int
    tiles: int
    accumulator_bits: int
    outputs: int
    files: tuple[str, ...]


def write_rtl(
    folder: str | Path,
    layer: LayerShape,
    hardware: Accelerator,
    *,
    weights: npt.ArrayLike,
    activations: npt.ArrayLike,
    weight_bits: int,
    activation_bits: int = 16,
) -> RtlLayer:
    """Write the weight-serial tile with a testbench for one layer on given integers.

    The testbench compares every output with NumPy's and the cycles with `stripes_sim`'s; `simulate` runs
    it, and so does ``iverilog -g2012 -s testbench -o layer.vvp *.v && vvp layer.vvp`` in the folder.

    Args:
        folder: made if missing; files of these names are overwritten.
        layer: a convolution or a linear layer that is called once.
        hardware: a machine with serial weights.
        weights: integers of ``weight_bits`` in two's complement, as torch has them: (out, in / groups, *kernel) or
            (out, in).
        activations: one sample, (in, *input_size) or (tokens, in): integers of ``activation_bits``, with sign (two's
            complement) where one is negative, else without.
        weight_bits, activation_bits: 1 to the machine's ``pe_width_bits``.

    Raises:
        TypeError: arrays of something other than integers.
        ValueError: a layer or machine that the tile does not compute, a wrong shape, an integer out of range.

    >>> import tempfile
    >>> from stripes_sim import Stripes
    >>> fc = LayerShape(name="fc", kind="linear", in_channels=4, out_channels=2)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     made = write_rtl(place, fc, Stripes(), weights=[[1, -2, 3, -4], [0, 1, 0, 1]], activations=[[5, 6, 7, 8]],
    ...                      weight_bits=3, activation_bits=4)
    >>> made.cycles, made.tiles
    (3, 1)
    """
    _check_machine(layer, hardware)
    bits = {"weight_bits": weight_bits, "activation_bits": activation_bits}
    for argument, value in bits.items():
        resolve_bits([layer.name], value, argument=argument)
        if value > hardware.pe_width_bits:
            raise ValueError(
                f"{argument} must be at most pe_width_bits={hardware.pe_width_bits} here, but it is {value}"
            )
    held, taken = _checked(layer, weights, activations, **bits)
    signed = bool(taken.min() < 0)
    layout = lay_out(layer, hardware, held, taken, weight_bits)
    if not layout.shared and hardware.columns > hardware.pe_width_bits:
        raise ValueError(
            f"layer {layer.name!r}: where windows share no weight each column needs a bit of its own per cycle, and "
            f"the weight buffer delivers pe_width_bits={hardware.pe_width_bits} for columns={hardware.columns}"
        )
    assert layout.cycles == hardware.run([layer], weight_bits, activation_bits).compute_cycles
    terms = layout.products[0].filters.shape[1]
    needed = weight_bits - 1 + activation_bits + terms.bit_length() + 1
    width = max(int(CONSTANTS["accumulator_bits"].value), needed)
    sums = output_sums(layout)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    verilog = resources.files("stripes_sim.rtl")
    for name in SOURCES:
        write_text(place / name, (verilog / name).read_text(encoding="utf-8"))
    counts = {
        "weights.hex": _write(place / "weights.hex", weight_words(layout)),
        "activations.hex": _write(place / "activations.hex", activation_words(layout, hardware.pe_width_bits)),
        "expected.hex": _write(place / "expected.hex", (hexadecimal(value, width) for value in sums)),
    }
    _write(place / "layer.vh", _parameters(layer, hardware, layout, counts, width, signed))
    return RtlLayer(
        folder=place,
        layer=layer.name,
        cycles=layout.cycles,
        tiles=layout.tiles,
        accumulator_bits=width,
        outputs=len(sums),
        files=(*SOURCES, "layer.vh", *counts),
    )


def _check_machine(layer: LayerShape, hw: Accelerator) -> None:
    if hw.serial != "weights" or hw.compat is not None:
        raise ValueError(
            f"{hw.name}: the tile in Verilog has serial weights (serial='weights', compat=None), but this machine has "
            f"serial={hw.serial!r}, compat={hw.compat!r}"
        )
    if layer.kind not in ("conv", "linear"):
        raise ValueError(
            f"layer {layer.name!r}: the tile in Verilog computes conv and linear layers, but it is {layer.kind}"
        )
    if layer.copies != 1:
        raise ValueError(
            f"layer {layer.name!r}: the tile in Verilog computes one call of a layer, but copies={layer.copies}"
        )


def _checked(
    layer: LayerShape, weights: npt.ArrayLike, activations: npt.ArrayLike, *, weight_bits: int, activation_bits: int
) -> tuple[Ints, Ints]:
    sizes = (layer.in_channels, *layer.input_size) if layer.is_spatial else (layer.tokens, layer.in_channels)
    held = _integers("weights", weights, (layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size))
    taken = _integers("activations", activations, sizes)
    _check_range("weights", held, -(1 << weight_bits - 1), (1 << weight_bits - 1) - 1)
    if taken.min() < 0:
        _check_range("activations", taken, -(1 << activation_bits - 1), (1 << activation_bits - 1) - 1)
    else:
        _check_range("activations", taken, 0, (1 << activation_bits) - 1)
    return held, taken


def _integers(argument: str, values: npt.ArrayLike, shape: tuple[int, ...]) -> Ints:
    array = np.asarray(values)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{argument} must be an array of integers, but it holds {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{argument} must have shape {shape}, but it has {array.shape}")
    return array.astype(np.int64)


def _check_range(argument: str, values: Ints, low: int, high: int) -> None:
    if values.min() < low or values.max() > high:
        raise ValueError(f"{argument} must lie in {low}..{high}, but they lie in {values.min()}..{values.max()}")


def _write(path: Path, lines: Iterable[str]) -> int:
    count = 0
    with whole(path) as draft, draft.open("w", encoding="ascii", newline="\n") as file:
        for line in lines:
            file.write(line + "\n")
            count += 1
    return count


def _parameters(
    layer: LayerShape, hw: Accelerator, layout: Layout, counts: dict[str, int], width: int, signed: bool
) -> list[str]:
    """layer.vh: what testbench.v includes."""
    shared = layout.shared
    values = {
        "TILES": (layout.tiles, "that have work"),
        "COLUMNS": (hw.columns, "windows at once"),
        "ROWS": (hw.rows, "filters of a tile at once"),
        "LANES": (hw.lanes, "products that a PE adds up at once"),
        "WIDTH": (hw.pe_width_bits, "bits of an activation in a PE"),
        "SUM": (width, "bits of an accumulator"),
        "SHARED": (int(shared), "1: windows share weights; 0: columns work on parts of one token"),
        "WITH_SIGN": (int(signed), "of the activations"),
        "GROUPS": (len(layout.products), "one after the other"),
        "WINDOW_SETS": (layout.window_sets, "of COLUMNS windows each; tokens where nothing is shared"),
        "FILTER_STEPS": (layout.filter_steps if shared else layout.rounds, "rounds where nothing is shared"),
        "STEPS": (layout.depth if shared else 1, "of one run"),
        "PLANES": (layout.planes, "bits of a weight"),
        "PARTS": (layout.parts, "that the columns share out of a token"),
        "DEPTH": (layout.depth, "parts of one dot product"),
        "WEIGHT_WORDS": (counts["weights.hex"], ""),
        "ACTIVATION_WORDS": (counts["activations.hex"], ""),
        "OUTPUTS": (counts["expected.hex"], ""),
        "CYCLES": (layout.cycles, "by stripes_sim"),
    }
    ascii_name = layer.name.encode("ascii", "backslashreplace").decode().replace("\n", "\\n")
    head = f"// Layer {ascii_name} on {hw.name!a}, {layout.planes}-bit weights"
    return [head, *(f"localparam {key} = {n};{'  // ' * bool(text)}{text}" for key, (n, text) in values.items())]
