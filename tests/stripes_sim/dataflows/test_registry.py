"""A kind of machine from outside: the documented example, and one with a parameter and a check of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stripes_sim import Accelerator, LayerShape, cost_table, explore, load_hardware
from stripes_sim.dataflows import ArrayWork, Dataflow, dataflow_named, dataflow_names, register, registry

CONV = LayerShape(
    name="conv", kind="conv", in_channels=64, out_channels=64, kernel_size=3, input_size=(56, 56), padding=1
)
FC = LayerShape(name="fc", kind="linear", in_channels=512, out_channels=256)


@pytest.fixture(autouse=True)
def _forget_what_a_test_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))


def documented_example() -> dict[str, Any]:
    page = (Path(__file__).resolve().parents[3] / "docs" / "own_accelerator.md").read_text(encoding="utf-8")
    section = page[page.index("## Add a kind of machine") :]
    code = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {"__name__": "radix4"}
    exec(compile(code.group(1), "docs/own_accelerator.md", "exec"), names)
    return names


def test_the_documented_machine_computes_what_its_page_says(tmp_path: Path) -> None:
    names = documented_example()
    chip = names["chip"]
    assert dataflow_names()[-1] == chip.serial == "radix4"
    # 196 sets of windows, 9 taps, 4 steps of 16 channels; a digit of two bits takes a cycle
    assert [chip.run([CONV], bits).compute_cycles for bits in (1, 2, 3, 4, 16)] == [
        196 * 9 * 4 * digits for digits in (1, 1, 2, 2, 8)
    ]
    # 32 steps in 16 columns
    assert chip.run([FC], 6).compute_cycles == 2 * 3
    assert chip.macs_per_cycle == chip.lane_count // 8
    result = chip.run([CONV, FC], 4)
    assert result.title.startswith("Mine (weights two bits at a time) with all weights at 4 bits")
    assert result.breakdown_pj["compute"] == pytest.approx((CONV.macs + FC.macs) * 2 * names["DIGIT_PJ"])
    assert cost_table([CONV, FC], chip).marginal("compute_cycles")["fc"] == pytest.approx((8 - 2) / 6)
    assert explore([FC], 4, {"tiles": (1, 2)}, hardware=chip)["area_mm2"].is_monotonic_increasing
    file = tmp_path / "chip.toml"
    file.write_text('name = "Mine"\nserial = "radix4"\n')
    assert load_hardware(file).run([CONV], 4).compute_cycles == chip.run([CONV], 4).compute_cycles


class Sparse(Dataflow):
    """One lane that leaves a share of the products out, derived from the questions alone."""

    name = "sparse"
    title = "skips zeros"

    def check(self, hw: Any) -> None:
        if not 0 <= hw.zeros < 1:
            raise ValueError(f"zeros must be a share below 1, but it is {hw.zeros!r}")

    def array_work(self, work: Any, hw: Any, weight_bits: Any, activation_bits: Any, batch: int) -> ArrayWork:
        products = np.broadcast_to(batch * work.macs, weight_bits.shape)
        none = np.zeros_like(products)
        return ArrayWork(
            compute_cycles=self.lane_cycles(hw, products, weight_bits, activation_bits),
            scheduled_pes=products,
            idle_pes=none,
            passes=none + 1,
            filter_steps=none + 1,
            dram_weight_reads=none,
            buffer_weight_reads=none,
        )

    def lane_cycles(self, hw: Any, macs: Any, weight_bits: Any, activation_bits: Any) -> Any:
        return np.ceil(macs * (1 - hw.zeros)).astype(np.int64)

    def mac_pj(self, hw: Any, weight_bits: Any, activation_bits: Any) -> Any:
        return np.ones_like(weight_bits) * (1 - hw.zeros)

    def array_mm2(self, hw: Any) -> float:
        return 0.5


@dataclass(frozen=True, kw_only=True)
class SparseChip(Accelerator):
    name: str = "Sparse"
    serial: str = "sparse"
    lanes: int = 1
    columns: int = 1
    rows: int = 1
    tiles: int = 1
    zeros: float = 0.0


def test_a_dataflow_may_have_parameters_of_its_own_and_check_them() -> None:
    register(Sparse)
    assert SparseChip().run([FC], 4).compute_cycles == FC.macs
    half = SparseChip(zeros=0.5).run([FC], 4)
    assert half.compute_cycles == FC.macs / 2
    assert half.breakdown_pj["compute"] == FC.macs / 2
    assert half.frame["array_utilisation"].tolist() == [1.0]
    swept = explore([FC], 4, {"zeros": (0.0, 0.75)}, hardware=SparseChip())
    assert swept["compute_cycles"].tolist() == [FC.macs, FC.macs // 4]
    with pytest.raises(ValueError, match="zeros must be a share below 1, but it is 1"):
        SparseChip(zeros=1)


def test_a_machine_names_a_dataflow_that_is_registered() -> None:
    with pytest.raises(ValueError, match=r"serial must be one of .*'laconic'\), but it is 'sparse'"):
        SparseChip()
    register(Sparse)
    with pytest.raises(ValueError, match="but it is 'sparze'; did you mean 'sparse'"):
        SparseChip(serial="sparze")


def test_what_cannot_be_registered_is_named() -> None:
    class Nameless(Sparse):
        name = ""

    class Thief(Sparse):
        name = "weights"

    class Unfinished(Dataflow):
        name = "unfinished"
        title = "answers nothing"

    with pytest.raises(TypeError, match=r"register takes a class derived from stripes_sim.dataflows.Dataflow"):
        register(Sparse())  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"Nameless.name must be a text that is not empty, but it is ''"):
        register(Nameless)
    with pytest.raises(ValueError, match=r"Thief.name is 'weights', which is .*serial.SerialWeights already"):
        register(Thief)
    with pytest.raises(TypeError, match="array_mm2"):
        register(Unfinished)
    assert "unfinished" not in dataflow_names()
    first = dataflow_named("weights")
    assert register(type(first)) is type(first)  # a cell that is run twice
