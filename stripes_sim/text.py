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


def result_text(result: Result, *, breakdown: bool = False) -> str:
    """Title, one line a layer, totals, savings and what is not counted."""
    from stripes_sim.result import LEFT_OUT

    frame = result.frame
    parts = [f"{part}_pj" for part in PARTS] if breakdown else []
    head = ["layer", "MMAC", "w bits", "a bits", "compute cycles", "cycles", "bound by", "util %"]
    head += [part.removesuffix("_pj").replace("_", " ") + " uJ" for part in parts] + ["energy uJ"]
    rows = [
        [
            row["name"],
            f"{row['macs'] / 1e6:,.2f}",
            str(row["weight_bits"]),
            str(row["activation_bits"]),
            f"{row['compute_cycles']:,}",
            f"{row['cycles']:,.0f}",
            row["bound"],
            f"{100 * row['utilisation']:.1f}",
            *(f"{row[part] / 1e6:,.3f}" for part in parts),
            f"{row['energy_pj'] / 1e6:,.3f}",
        ]
        for row in frame.to_dict("records")
    ]
    total = ["total", f"{frame['macs'].sum() / 1e6:,.2f}", "", "", f"{result.compute_cycles:,}"]
    total += [f"{result.cycles:,.0f}", "", ""]
    total += [f"{frame[part].sum() / 1e6:,.3f}" for part in parts] + [f"{result.energy_pj / 1e6:,.3f}"]
    hw = result.hardware
    lines = [result.title, "", aligned(head, [*rows, total]), ""]
    lines.append(
        f"{1e3 * result.seconds:,.4g} ms at {hw.clock_hz / 1e6:,.0f} MHz, {result.weight_bytes / 2**10:,.1f} KiB of "
        f"weights ({hw.storage}), energy for {hw.node_nm:g} nm and {hw.dram.upper()}"
    )
    lines += [str(saving) for saving in result.savings]
    return "\n".join([*lines, LEFT_OUT])
