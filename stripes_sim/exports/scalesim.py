"""SCALE-Sim's topology: one line a layer, as ``scalesim/topology_utils.py`` of version 3.0.0 reads it.

It has no padding, so inputs are as large as their windows reach; no groups, so each is a line of its own; one stride
for both axes; and no bits. "DP" in a name would make a line depthwise: it is written "D-P".
"""

from __future__ import annotations

from collections.abc import Sequence

from stripes_sim.exports.nests import Nest

__all__ = ["topology"]

_HEADER = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"


def topology(nests: Sequence[Nest]) -> str:
    """The text of the file.

    Raises:
        ValueError: a dilated kernel, or strides that differ.
    """
    lines = [_HEADER]
    for nest in nests:
        sizes = nest.sizes
        if nest.dilation != (1, 1) or (nest.stride[0] != nest.stride[1] and 1 not in (sizes["P"], sizes["Q"])):
            raise ValueError(
                f"layer {nest.name!r}: SCALE-Sim has no dilation and one stride for both axes, but the layer has "
                f"dilation {nest.dilation} and stride {nest.stride}"
            )
        stride = nest.stride[0] if sizes["P"] > 1 else nest.stride[1]
        height = (sizes["P"] - 1) * stride + sizes["R"]
        width = (sizes["Q"] - 1) * stride + sizes["S"]
        name = nest.name.replace("DP", "D-P").replace(",", ";")
        copies = sizes["G"] * sizes["N"]
        for copy in range(copies):
            title = name if copies == 1 else f"{name}_{copy}"
            cells = (height, width, sizes["R"], sizes["S"], sizes["C"], sizes["M"], stride)
            lines.append(", ".join([title, *map(str, cells)]) + ",")
    return "\n".join(lines) + "\n"
