"""The weight-serial tile: its layout against plain loops, the Verilog against NumPy and the closed form's cycles."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from stripes_sim import LayerShape, Loom, Stripes
from stripes_sim.rtl import simulate, write_rtl
from stripes_sim.rtl.files import SOURCES
from stripes_sim.rtl.layout import lay_out
from stripes_sim.rtl.words import hexadecimal
from tests.docs_blocks import first_python_block

Ints = npt.NDArray[np.int64]
needs_icarus = pytest.mark.skipif(shutil.which("iverilog") is None, reason="needs Icarus Verilog (iverilog)")


def drawn(seed: int) -> tuple[LayerShape, Stripes, int, int, Ints, Ints]:
    """A small random layer of one of five kinds on a small random machine, with bits and integers."""
    rng = np.random.default_rng(seed)

    def some(low: int, high: int, count: int) -> tuple[int, ...]:
        return tuple(rng.integers(low, high + 1, count).tolist())

    weight_bits, activation_bits = some(1, 8, 2)
    lanes, columns, rows, tiles = (*some(1, 4, 3), *some(1, 3, 1))
    width = max(weight_bits, activation_bits, columns)
    hw = Stripes(lanes=lanes, columns=columns, rows=rows, tiles=tiles, pe_width_bits=width)
    kind = ("conv", "linear", "depthwise", "grouped", "first")[seed % 5]
    (inputs, outputs), axes = some(1, 8, 2), int(rng.integers(1, 3))
    if kind == "linear":
        layer = LayerShape(
            name=kind, kind="linear", in_channels=2 * inputs, out_channels=2 * outputs, tokens=int(rng.integers(1, 6))
        )
        shape: tuple[int, ...] = (layer.tokens, layer.in_channels)
    else:
        groups = {"depthwise": inputs, "grouped": 3}.get(kind, 1)
        inputs = {"grouped": 3 * (inputs % 3 + 1), "first": 3}.get(kind, inputs)
        outputs = groups * (outputs % 3 + 1) if groups > 1 else outputs
        layer = LayerShape(
            name=kind,
            kind="conv",
            in_channels=inputs,
            out_channels=outputs,
            kernel_size=some(1, 3, axes),
            input_size=some(5, 7, axes),
            stride=some(1, 3, axes),
            padding=some(0, 2, 2 * axes),
            dilation=(1,) * axes if kind == "first" else some(1, 2, axes),
            groups=groups,
        )
        shape = (inputs, *layer.input_size)
    weights = rng.integers(
        -(1 << weight_bits - 1), 1 << weight_bits - 1, (outputs * (2 if kind == "linear" else 1), *_per_filter(layer))
    )
    low = 0 if seed % 2 else -(1 << activation_bits - 1)
    return layer, hw, weight_bits, activation_bits, weights, rng.integers(low, low + (1 << activation_bits), shape)


def _per_filter(layer: LayerShape) -> tuple[int, ...]:
    return (layer.in_channels // layer.groups, *layer.kernel_size)


def by_loops(layer: LayerShape, weights: Ints, activations: Ints) -> Ints:
    """(out_channels, places): every product of the layer, one after the other."""
    if not layer.is_spatial:
        return (weights @ activations.T).astype(np.int64)
    places = list(itertools.product(*(range(size) for size in layer.output_size)))
    found = np.zeros((layer.out_channels, len(places)), dtype=np.int64)
    per_group = layer.out_channels // layer.groups
    for filter_, (number, place) in itertools.product(range(layer.out_channels), enumerate(places)):
        for channel in range(layer.in_channels // layer.groups):
            source = filter_ // per_group * (layer.in_channels // layer.groups) + channel
            for tap in itertools.product(*(range(size) for size in layer.kernel_size)):
                at = [
                    o * s + t * d - before
                    for o, s, t, d, before in zip(
                        place, layer.stride, tap, layer.dilation, layer.padding_before, strict=True
                    )
                ]
                if all(0 <= x < size for x, size in zip(at, layer.input_size, strict=True)):
                    found[filter_, number] += weights[(filter_, channel, *tap)] * activations[(source, *at)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
def test_the_layout_is_the_layer_and_takes_the_cycles_of_the_closed_form(seed: int) -> None:
    layer, hw, bits, activation_bits, weights, activations = drawn(seed)
    layout = lay_out(layer, hw, weights, activations, bits)
    sums = np.vstack([(product.windows @ product.filters.T).T for product in layout.products])
    # blocks of a depthwise layer are filled up with filters of zeros
    assert np.array_equal(sums[: layer.out_channels], by_loops(layer, weights, activations))
    assert not sums[layer.out_channels :].any()
    assert layout.cycles == hw.run([layer], bits, activation_bits).compute_cycles
    for product in layout.products:
        taken = product.terms[product.terms >= 0]
        # every product has one lane in one step; what no lane takes is multiplied by a weight of zero
        assert len(set(taken.tolist())) == len(taken)
        left = sorted({*range(product.filters.shape[1])} - set(taken.tolist()))
        assert not product.filters[:, left].any()


@needs_icarus
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(15))
def test_verilog_gives_numpys_outputs_in_our_cycles(seed: int, tmp_path: Path) -> None:
    layer, hw, bits, activation_bits, weights, activations = drawn(seed)
    made = write_rtl(
        tmp_path,
        layer,
        hw,
        weights=weights,
        activations=activations,
        weight_bits=bits,
        activation_bits=activation_bits,
    )
    found = simulate(tmp_path)
    assert found.passed, found.text
    assert found.cycles == made.cycles == hw.run([layer], bits, activation_bits).compute_cycles
    assert found.outputs == made.outputs


FC = LayerShape(name="fc", kind="linear", in_channels=6, out_channels=3)
CODES = np.array([[1, -2, 3, -4, 0, 1], [0, 1, 0, 1, 2, 2], [-4, -4, -4, -4, -4, -4]])
SMALL = Stripes(lanes=2, columns=2, rows=2, tiles=1)


def written(folder: Path, **changes: object) -> object:
    arguments = {"weights": CODES, "activations": [[5, 6, 7, 0, 1, 2]], "weight_bits": 3, "activation_bits": 4}
    return write_rtl(folder, FC, SMALL, **{**arguments, **changes})  # type: ignore[arg-type]


@needs_icarus
@pytest.mark.slow
def test_the_testbench_can_fail(tmp_path: Path) -> None:
    written(tmp_path)
    assert simulate(tmp_path).passed
    expected = (tmp_path / "expected.hex").read_text().splitlines()
    (tmp_path / "expected.hex").write_text("\n".join([*expected[:-1], "00000001"]) + "\n")
    wrong = simulate(tmp_path)
    assert (wrong.wrong, wrong.passed) == (1, False)
    assert "FAIL" in wrong.text
    written(tmp_path)
    tile = (tmp_path / "pe.v").read_text()
    # an accumulator that no run clears
    (tmp_path / "pe.v").write_text(tile.replace("first_step ? next : sum + next", "sum + next"))
    assert simulate(tmp_path).wrong > 0


@needs_icarus
@pytest.mark.slow
def test_the_largest_sum_fits_the_accumulator(tmp_path: Path) -> None:
    hw = Stripes(lanes=4, columns=1, rows=1, tiles=1)
    layer = LayerShape(name="most", kind="linear", in_channels=64, out_channels=1)
    made = write_rtl(
        tmp_path,
        layer,
        hw,
        weights=np.full((1, 64), -(1 << 15)),
        activations=np.full((1, 64), (1 << 16) - 1),
        weight_bits=16,
        activation_bits=16,
    )
    assert made.accumulator_bits == 39
    assert simulate(tmp_path).passed


def test_words_stand_as_verilog_reads_them(tmp_path: Path) -> None:
    assert hexadecimal(np.array([1, -1, 2]), 4) == "2f1"
    assert hexadecimal(np.array([1, 0, 1]), 1) == "5"
    written(tmp_path)
    # six channels are three slices of two lanes, three filters two filter steps: six parts, two at a time, three planes
    weights = (tmp_path / "weights.hex").read_text().split()
    assert len(weights) == 3 * 3
    # signs of the first round: slice 0 and 1 of filters 0 and 1 are (1 -2), (0 1); (3 -4), (0 1): lanes from the right
    assert weights[0] == f"{0b00_10_00_10:02x}"
    assert (tmp_path / "activations.hex").read_text().split()[0] == "0000000700060005"
    assert "localparam CYCLES = 9;" in (tmp_path / "layer.vh").read_text()


def test_bad_input(tmp_path: Path) -> None:
    refused = [
        ({"weights": CODES * 2}, "weights must lie in -4..3, but they lie in -8..6"),
        ({"weights": CODES * 1.0}, "weights must be an array of integers, but it holds float64"),
        ({"activations": [[16, 0, 0, 0, 0, 0]]}, "activations must lie in 0..15"),
        ({"activations": [[8, -1, 0, 0, 0, 0]]}, "activations must lie in -8..7"),
        ({"activations": [[1, 2]]}, "activations must have shape (1, 6), but it has (1, 2)"),
        ({"weight_bits": 17}, "weight_bits"),
    ]
    for changes, message in refused:
        with pytest.raises((ValueError, TypeError), match=re.escape(message)):
            written(tmp_path, **changes)
    calls = LayerShape(name="rnn", kind="linear", in_channels=6, out_channels=3, copies=4)
    narrow = Stripes(lanes=2, columns=4, rows=2, tiles=1, pe_width_bits=3)
    given = {"weights": CODES, "activations": [[1, 2, 3, 0, 1, 2]], "weight_bits": 3}
    machines = [
        (FC, Loom(), 16, "Loom: the tile in Verilog has serial weights"),
        (calls, SMALL, 16, "layer 'rnn': the tile in Verilog computes one call of a layer, but copies=4"),
        (FC, narrow, 4, "activation_bits must be at most pe_width_bits=3 here, but it is 4"),
        (FC, narrow, 3, "the weight buffer delivers pe_width_bits=3 for columns=4"),
    ]
    for layer, hw, bits, message in machines:
        with pytest.raises(ValueError, match=re.escape(message)):
            write_rtl(tmp_path, layer, hw, **given, activation_bits=bits)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"no testbench\.v in it"):
        simulate(tmp_path)


def test_a_missing_simulator_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="apt-get install iverilog"):
        simulate(tmp_path)


@needs_icarus
@pytest.mark.slow
def test_the_page_of_the_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    given = {"codes": rng.integers(-4, 4, (8, 3, 3, 3)), "image": rng.integers(0, 256, (3, 8, 8))}
    code = first_python_block("rtl.md", "Writing it").replace("simulate(", "found = simulate(")
    exec(code, given)
    assert given["found"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("yosys") is None, reason="needs yosys")
def test_the_machine_is_synthesised_without_a_warning_or_a_latch() -> None:
    with resources.as_file(resources.files("stripes_sim.rtl")) as folder:
        files = " ".join(str(folder / name) for name in SOURCES if name != "testbench.v")
        script = (
            f"read_verilog {files}; chparam -set TILES 2 -set COLUMNS 2 -set ROWS 2 -set LANES 4 machine; "
            "hierarchy -check -top machine; proc; check -assert; synth -top machine; stat"
        )
        found = subprocess.run(["yosys", "-p", script], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert "Warning" not in found.stdout + found.stderr
    assert "LATCH" not in found.stdout.rpartition("Printing statistics")[2].upper()
