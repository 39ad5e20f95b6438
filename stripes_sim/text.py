"""Plain aligned text, made of plain data."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

__all__ = ["aligned", "fitting_unit", "layers_text"]


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


def fitting_unit(total: float, units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The largest unit that leaves ``total`` at 10 or more, else the smallest; units from large to small.

    >>> fitting_unit(25_000.0, ((1e6, "MMAC"), (1e3, "kMAC"), (1.0, "MAC")))
    (1000.0, 'kMAC')
    """
    return next(((size, name) for size, name in units if total >= 10 * size), units[-1])


def layers_text(frame: pd.DataFrame, parts: Sequence[str] = ()) -> str:
    """One line a layer and a line of totals, from the frame of a `stripes_sim.Result`.

    Args:
        frame: one row a layer.
        parts: columns of energies to show beside the layer's energy, such as "dram_pj".
    """
    # Python's integers: sums of counts never wrap around
    macs, compute_cycles = sum(frame["macs"].tolist()), sum(frame["compute_cycles"].tolist())
    mac_size, mac_unit = fitting_unit(macs, ((1e6, "MMAC"), (1e3, "kMAC"), (1.0, "MAC")))
    energy_size, energy_unit = fitting_unit(frame["energy_pj"].sum(), ((1e6, "uJ"), (1e3, "nJ"), (1.0, "pJ")))
    head = ["layer", mac_unit, "w bits", "a bits", "compute cycles", "cycles", "bound by", "util %"]
    head += [f"{part.removesuffix('_pj').replace('_', ' ')} {energy_unit}" for part in parts]
    head += [f"energy {energy_unit}"]
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
            *(f"{row[part] / energy_size:,.3f}" for part in (*parts, "energy_pj")),
        ]
        for row in frame.to_dict("records")
    ]
    total = ["total", f"{macs / mac_size:,.2f}", "", "", f"{compute_cycles:,}"]
    total += [f"{frame['cycles'].sum():,.0f}", "", ""]
    total += [f"{frame[part].sum() / energy_size:,.3f}" for part in (*parts, "energy_pj")]
    return aligned(head, [*rows, total])
