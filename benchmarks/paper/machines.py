"""Every machine that ships beside its own paper, or the paper that compares with it.

A figure without a source at hand is not printed: the last column then says what is missing.
"""

from __future__ import annotations

import math
from typing import Any

from benchmarks._networks import BITFUSION, PROFILES, convolutional_layers, fully_connected_layers
from stripes_sim import BitFusion, DaDianNao, LayerShape, Loom
from stripes_sim.energy import area_mm2

__all__ = ["LOOM_WEIGHT_BITS", "geometric_mean", "loom_over_parallel", "machine_rows"]

# Bits of the weights of Loom's profiles without loss of accuracy: recalled, low confidence (its table is not at hand)
LOOM_WEIGHT_BITS = {"AlexNet": 11, "NiN": 11, "GoogLeNet": 11, "VGG_M": 12, "VGG_S": 12, "VGG_19": 12}
# "the equivalent of 128 16b x 16b multiply-accumulate operations per cycle" (Loom, arXiv 1706.07853 v2, abstract)
LOOM, PARALLEL = Loom(rows=128, tiles=1), DaDianNao(name="128 multipliers", rows=8, tiles=1)
_SYNTHESIS_MM2 = 512 * 1733.13e-6
_SYNTHESIS = "512 units of 1733 um2, BitFusion results/systolic_array_synth.csv"


def geometric_mean(values: list[float]) -> float:
    """The mean that ratios ask for."""
    return math.exp(sum(math.log(value) for value in values) / len(values))


def loom_over_parallel() -> list[dict[str, Any]]:
    """Array cycles of 128 multipliers over those of a Loom with the same peak, by network.

    Its abstract: the time of convolutions falls with both precisions, that of fully connected layers with the weights'.
    """
    rows = []
    for network in PROFILES:
        layers, bits = convolutional_layers(network)
        weight_bits = LOOM_WEIGHT_BITS[network]
        base, serial = PARALLEL.run(layers, 16, 16), LOOM.run(layers, weight_bits, bits)
        macs = sum(layer.macs for layer in layers)
        row = {
            "network": network,
            "weight_bits": weight_bits,
            "ideal": 256 * macs / sum(layer.macs * bits[layer.name] * weight_bits for layer in layers),
            "convolutions": base.compute_cycles / serial.compute_cycles,
            "fully_connected": None,
            "fully_connected_ideal": 16 / weight_bits,
        }
        if connected := fully_connected_layers(network):
            base, serial = PARALLEL.run(connected, 16, 16), LOOM.run(connected, weight_bits, 16)
            row["fully_connected"] = base.compute_cycles / serial.compute_cycles
        rows.append(row)
    return rows


def machine_rows(stripes_mean: float, weights_ratio: float) -> list[dict[str, Any]]:
    """Machine, quantity, ours, published (None: no source at hand), and where that is said.

    Args:
        stripes_mean: geometric mean of Stripes' speed-up over DaDianNao.
        weights_ratio: array cycles of AlexNet at 8 bits over those at WaveQ's mean bits, serial weights.
    """
    full = LayerShape(name="full", kind="conv", in_channels=16, out_channels=256, kernel_size=1, input_size=(64, 64))
    dadiannao, fusion = DaDianNao(), BitFusion()
    loom = geometric_mean([row["convolutions"] for row in loom_over_parallel()])
    cycles = [
        fusion.run(layers, weights, inputs, batch=16).cycles / theirs
        for layers, weights, inputs, theirs in BITFUSION.values()
    ]
    units = LayerShape(name="full", kind="conv", in_channels=64, out_channels=32, kernel_size=1, input_size=(64, 64))
    filled = fusion.run([units], 8, 8)
    rows = [
        (
            "Stripes, serial activations",
            "speed-up over DaDianNao, convolutions",
            stripes_mean,
            1.85,
            "Bit-Pragmatic, MICRO 2017, conv layers",
        ),
        (
            "Stripes, serial weights",
            "AlexNet's array cycles at 8 bits over 3.85",
            weights_ratio,
            2.08,
            "WaveQ table 1; the machine itself has no paper",
        ),
        (
            "DaDianNao",
            "products per cycle when full",
            full.macs / dadiannao.run([full], 16, 16).compute_cycles,
            4096.0,
            "16 tiles of 256, Bit-Pragmatic 4.2 and 5.1",
        ),
        (
            "DaDianNao",
            "on-chip memory, MiB",
            (dadiannao.weight_buffer_bytes + dadiannao.activation_buffer_bytes) / 2**20,
            36.0,
            "Loom, arXiv 1706.07853 v1, introduction",
        ),
        (
            "Loom",
            "speed-up over 128 multipliers, convolutions",
            loom,
            4.38,
            "abstract of v2, with precisions trimmed at run time, whose values are not at hand",
        ),
        ("Loom", "speed-up by network", None, None, "no source at hand; see the table of ours"),
        (
            "BitFusion",
            "cycles over its simulator's, mean of 8",
            geometric_mean(cycles),
            1.0,
            "hsharma35/bitfusion, whose outputs move as 32-bit sums, twice; python -m benchmarks bitfusion",
        ),
        ("BitFusion", "area of the array, mm2 at 45 nm", area_mm2(fusion)["array"], _SYNTHESIS_MM2, _SYNTHESIS),
        (
            "BitFusion",
            "energy of the full array, pJ per cycle",
            filled.breakdown_pj["compute"] / filled.compute_cycles,
            235.104,
            "printed by its simulator",
        ),
        ("BitFusion", "depthwise layers", None, None, "no source at hand: ours is assumed"),
    ]
    return [dict(zip(("machine", "what", "ours", "published", "source"), row, strict=True)) for row in rows]
