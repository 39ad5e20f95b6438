"""BitFusion's networks: our lower bound, our search over tilings, and what its own simulator published.

Ours is ``BitFusion().run`` on the published configuration and batch, with ``mapping="closed"`` and ``"search"``. Theirs
is its published sweep, which our reading of its search repeats layer by layer in cycles and DRAM bits. It counts 32-bit
outputs that are read before they are written, and whole tiles at every border; the column "theirs, own outputs" is
its search with outputs at the bits of their layer, read back only between passes, as ours are.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from benchmarks._networks import BITFUSION
from benchmarks._report import write_json
from benchmarks.paper._bitfusion import PUBLISHED, their_search
from stripes_sim import BitFusion, LayerShape
from stripes_sim.text import aligned

__all__ = ["bitfusion_rows", "bitfusion_text", "repeated"]

BATCH = 16


def repeated() -> dict[str, int]:
    """How many layers there are, and for how many our reading of its search gives its cycles, and its DRAM bits."""
    counts = {"layers": 0, "cycles": 0, "dram_bits": 0}
    for network in BITFUSION:
        for published, ours in zip(PUBLISHED[network], _theirs(network), strict=True):
            counts["layers"] += 1
            counts["cycles"] += ours[0] == published[0]
            counts["dram_bits"] += ours[1:] == published[1:]
    return counts


def bitfusion_rows() -> list[dict[str, Any]]:
    """One row a network: cycles and DRAM bytes of each way of counting, and the seconds that our search takes."""
    rows = []
    for network, (layers, weight_bits, input_bits, theirs) in BITFUSION.items():
        start = time.perf_counter()
        search = BitFusion().run(layers, weight_bits, input_bits, batch=BATCH)
        seconds = time.perf_counter() - start
        closed = BitFusion(mapping="closed").run(layers, weight_bits, input_bits, batch=BATCH)
        own = _theirs(network, own_outputs=True)
        rows.append(
            {
                "network": network,
                "compute_cycles": closed.compute_cycles,
                "closed": closed.cycles,
                "search": search.cycles,
                "theirs": theirs,
                "theirs_own_outputs": sum(row[0] for row in own),
                "closed_bytes": float(closed.frame["dram_bytes"].sum()),
                "search_bytes": float(search.frame["dram_bytes"].sum()),
                "theirs_bytes": sum(reads + writes for _, reads, writes in PUBLISHED[network]) / 8,
                "theirs_own_outputs_bytes": sum(reads + writes for _, reads, writes in own) / 8,
                "seconds": seconds,
            }
        )
    return rows


def _theirs(network: str, *, own_outputs: bool = False) -> list[tuple[float, float, float]]:
    layers, weight_bits, input_bits, _ = BITFUSION[network]
    return [
        their_search(
            layer,
            weight_bits[layer.name],
            input_bits[layer.name],
            first=_reads_the_image(number, layer),
            output_bits=input_bits[layer.name] if own_outputs else None,
            batch=BATCH,
        )
        for number, layer in enumerate(layers)
    ]


def _reads_the_image(number: int, layer: LayerShape) -> bool:
    return layer.is_spatial and (number == 0 or layer.in_channels == 3)


def bitfusion_text(rows: list[dict[str, Any]]) -> str:
    """The table and what it means."""
    head = ("network", "array", "closed", "search", "theirs, own outputs", "theirs", "search / theirs")
    keys = ("compute_cycles", "closed", "search", "theirs_own_outputs", "theirs")
    cycles = [
        (row["network"], *(f"{row[key]:,.0f}" for key in keys), f"{row['search'] / row['theirs']:.2f}") for row in rows
    ]
    moved_head = ("network", "closed", "search", "theirs, own outputs", "theirs", "search / closed", "seconds")
    keys = ("closed_bytes", "search_bytes", "theirs_own_outputs_bytes", "theirs_bytes")
    moved = [
        (
            row["network"],
            *(f"{row[key] / 1e6:,.1f}" for key in keys),
            f"{row['search_bytes'] / row['closed_bytes']:.2f}",
            f"{row['seconds']:.2f}",
        )
        for row in rows
    ]
    return (
        "BitFusion, batch 16, 16 x 32 units, 500 MHz, 192-bit DRAM interface: cycles\n\n"
        + aligned(head, cycles)
        + "\n\nMegabytes through DRAM, and seconds of our search\n\n"
        + aligned(moved_head, moved)
        + "\n\nclosed: the least that any tiling moves; search: our best tiling; theirs: the published sweep of its\n"
        "simulator, 32-bit outputs being read before they are written, and all tiles whole at the borders of a layer."
    )


def main(argv: list[str]) -> int:
    """Print the tables; 1 when our reading of its search misses a published layer."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks bitfusion", description=__doc__)
    parser.add_argument("--json", metavar="OUT", help="write the tables to a JSON file")
    options = parser.parse_args(argv)
    rows, counts = bitfusion_rows(), repeated()
    print(bitfusion_text(rows))
    print(
        f"\nOur reading of its search repeats {counts['cycles']} of {counts['layers']} published layers in cycles and "
        f"{counts['dram_bits']} in DRAM bits."
    )
    if options.json:
        write_json(options.json, {"networks": rows, "repeated": counts})
    return int(min(counts.values()) < counts["layers"])
