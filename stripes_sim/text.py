"""Plain aligned text for results and machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stripes_sim.simulate import PARTS

if TYPE_CHECKING:
    from stripes_sim.result import Result

__all__ = ["aligned", "result_text"]


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns padded to their widest cell; the first ``left`` columns are flush left, the rest right.

    >>> print(aligned(("name", "bits"), [("conv1", "3"), ("fc", "16")]))
    name   bits
    conv1     3
    fc       16
    """
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = (
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    )
    return "\n".join(line.rstrip() for line in lines)


def _unit(total: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The largest unit that leaves ``total`` at 10 or more, else the smallest."""
    return next(((size, name) for size, name in units if total >= 10 * size), units[-1])


def result_text(result: Result, *, breakdown: bool = False) -> str:
    """Title, one line a layer, totals, savings and what is not counted."""
    from stripes_sim.result import LEFT_OUT

    frame = result.frame
    parts = [f"{part}_pj" for part in PARTS] if breakdown else []
    mac_size, mac_unit = _unit(frame["macs"].sum(), ((1e6, "MMAC"), (1e3, "kMAC"), (1.0, "MAC")))
    energy_size, energy_unit = _unit(result.energy_pj, ((1e6, "uJ"), (1e3, "nJ"), (1.0, "pJ")))
    time_size, time_unit = _unit(result.seconds, ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")))
    head = ["layer", mac_unit, "w bits", "a bits", "compute cycles", "cycles", "bound by", "util %"]
    head += [f"{part.removesuffix('_pj').replace('_', ' ')} {energy_unit}" for part in parts] + [
        f"energy {energy_unit}"
    ]
    rows = [
        [
            row["name"],
            f"{row['macs'] / mac_size:,.2f}",
            str(row["weight_bits"]),
            str(row["activation_bits"]),
            f"{row['compute_cycles']:,}",
            f"{row['cycles']:,.0f}",
            row["bound"],
            f"{100 * row['utilisation']:.1f}",
            *(f"{row[part] / energy_size:,.3f}" for part in parts),
            f"{row['energy_pj'] / energy_size:,.3f}",
        ]
        for row in frame.to_dict("records")
    ]
    total = ["total", f"{frame['macs'].sum() / mac_size:,.2f}", "", "", f"{result.compute_cycles:,}"]
    total += [f"{result.cycles:,.0f}", "", ""]
    total += [f"{frame[part].sum() / energy_size:,.3f}" for part in parts] + [f"{result.energy_pj / energy_size:,.3f}"]
    hw = result.hardware
    lines = [result.title, "", aligned(head, [*rows, total]), ""]
    lines.append(
        f"{result.seconds / time_size:,.4g} {time_unit} at {hw.clock_hz / 1e6:,.0f} MHz, "
        f"{result.weight_bytes / 2**10:,.1f} KiB of weights ({hw.storage}), "
        f"energy for {hw.node_nm:g} nm and {hw.dram.upper()}"
    )
    lines += [str(saving) for saving in result.savings]
    return "\n".join([*lines, LEFT_OUT])
