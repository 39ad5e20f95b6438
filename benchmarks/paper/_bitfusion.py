"""What BitFusion's own simulator published for its networks, and its search over tilings in our words.

Figures: results/bitfusion-eyeriss-sim-sweep.csv of hsharma35/bitfusion, 16 x 32 units, 192 bits per cycle, batch 16.
Its search (bitfusion/src/optimizer of the same repository) walks all 120 orders of five loops over tiles of powers of
two, square ones, and counts

* 32-bit outputs, read from DRAM and written there in every pass over the channels, the first read included;
* every tile as a whole one, also at the borders of a layer, weights in whole steps of the array, no clipped halo;
* the first tile's way in and the last one's way out in front of and behind all work.
"""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt

from stripes_sim import BitFusion, LayerShape

__all__ = ["PUBLISHED", "their_search"]

Floats = npt.NDArray[np.float64]
_SUM_BITS = 32
_CHANGES = {"weights": "cf", "inputs": "bxyc", "outputs": "bxyf"}

# network: (cycles, bits read from DRAM, bits written there) of each layer in order
PUBLISHED: dict[str, tuple[tuple[int, int, int], ...]] = {
    "AlexNet": (
        *((3_746_423, 570_628_224, 148_684_800),) * 2,
        *((5_018_849, 671_219_712, 205_520_896),) * 2,
        *((3_248_129, 469_499_904, 154_140_672),) * 2,
        *((2_436_097, 352_124_928, 115_605_504),) * 2,
        *((1_624_065, 234_749_952, 77_070_336),) * 2,
        (3_545_090, 642_908_160, 37_748_736),
        (1_575_596, 285_736_960, 16_777_216),
        (398_679, 72_351_744, 4_194_304),
    ),
    "SVHN": (
        (367_979, 37_097_472, 33_554_432),
        (358_316, 35_241_984, 33_554_432),
        (177_409, 17_285_120, 16_777_216),
        (179_884, 17_760_256, 16_777_216),
        (92_161, 9_306_112, 8_388_608),
        (102_742, 11_337_728, 8_388_608),
        (27_649, 4_784_128, 524_288),
        (11_009, 1_589_248, 524_288),
        (374, 43_008, 16_384),
    ),
    "CIFAR10": (
        (717_654, 70_680_576, 67_108_864),
        (799_062, 86_310_912, 67_108_864),
        (402_091, 43_646_976, 33_554_432),
        (492_204, 60_948_480, 33_554_432),
        (255_318, 32_243_712, 16_777_216),
        (510_636, 64_487_424, 33_554_432),
        (99_671, 18_087_936, 1_048_576),
        (16_555, 2_654_208, 524_288),
        (513, 69_632, 16_384),
    ),
    "LeNet-5": (
        (179_116, 17_612_800, 16_777_216),
        (205_635, 21_626_880, 8_388_608),
        (25_259, 4_587_520, 262_144),
        (342, 43_008, 16_384),
    ),
    "VGG-7": (
        *((704_001, 68_059_136, 67_108_864),) * 2,
        *((402_091, 43_646_976, 33_554_432),) * 2,
        *((255_318, 32_243_712, 16_777_216),) * 2,
        (99_671, 18_087_936, 1_048_576),
    ),
    "ResNet-18": (
        (9_793_537, 1_058_275_328, 822_083_584),
        *((2_274_988, 231_276_544, 205_520_896), (3_613_708, 437_321_728, 205_520_896)) * 2,
        (1_104_555, 109_314_048, 102_760_448),
        (3_613_708, 439_091_200, 205_520_896),
        (1_138_689, 115_867_648, 102_760_448),
        (3_613_708, 439_091_200, 205_520_896),
        (571_393, 58_327_040, 51_380_224),
        (4_330_838, 625_999_872, 205_520_896),
        (674_476, 78_118_912, 51_380_224),
        (4_330_838, 625_999_872, 205_520_896),
        (345_431, 40_632_320, 25_690_112),
        (3_614_180, 413_138_944, 205_520_896),
        (557_057, 81_264_640, 25_690_112),
        (3_614_180, 413_138_944, 205_520_896),
    ),
    "RNN": ((394_583, 71_565_312, 4_194_304),),
    "LSTM": ((337_175, 62_836_736, 1_900_544),),
}


def their_search(
    layer: LayerShape,
    weight_bits: int,
    input_bits: int,
    *,
    first: bool,
    output_bits: int | None = None,
    batch: int = 16,
) -> tuple[float, float, float]:
    """(cycles, bits read from DRAM, bits written there) of the tiling and order that its search takes.

    Args:
        layer: a convolution on a square input, or a linear layer.
        weight_bits, input_bits: total bits.
        first: whether the layer reads the image, unrolled to a matrix product (im2col).
        output_bits: count outputs as ours are counted: so many bits leave once, sums move between passes alone.
        batch: samples in one run.
    """
    hw = BitFusion()
    kernel, stride = (layer.kernel_size[0], layer.stride[0]) if layer.is_spatial else (1, 1)
    size = layer.output_size[0] if layer.is_spatial else 1
    spread = hw.lanes * (hw.pe_width_bits // max(input_bits, 2)) * (hw.pe_width_bits // max(weight_bits, 2))
    filters = _powers(layer.out_channels) if first else hw.rows * _powers(-(-layer.out_channels // hw.rows))
    grid = np.meshgrid(_powers(batch), _powers(size), _powers(layer.in_channels), filters, indexing="ij")
    b, o, c, f = (
        np.minimum(axis.ravel(), most)
        for axis, most in zip(grid, (batch, size, layer.in_channels, layer.out_channels), strict=True)
    )
    turns = {
        "b": _up(batch, b),
        "x": _up(size, o),
        "y": _up(size, o),
        "c": _up(layer.in_channels, c),
        "f": _up(layer.out_channels, f),
    }
    met = o * o * kernel**2 if first else (kernel + (o - 1) * stride) ** 2
    tile = {
        "weights": _up(kernel**2 * c, spread) * spread * f * weight_bits,
        "inputs": met * c * b * input_bits,
        "outputs": o * o * _up(f, hw.rows) * hw.rows * b * _SUM_BITS,
    }
    steps = _up(kernel**2 * c, spread) if first else kernel**2 * _up(c, spread)
    compute = np.prod(list(turns.values()), axis=0) * b * o * o * _up(f, hw.rows) * steps
    half = {
        "weights": 4.0 * hw.weight_buffer_bytes,
        "inputs": 4.0 * hw.activation_buffer_bytes,
        "outputs": 4.0 * hw.output_buffer_bytes,
    }
    fits = np.all([tile[key] <= half[key] for key in tile], axis=0)
    per_cycle = 8 * hw.dram_bytes_per_s / hw.clock_hz
    best = (np.inf, np.inf, 0.0, 0.0)
    for order in permutations("bxycf"):
        moved, held = {}, {}
        for key, bits in tile.items():
            moved[key], held[key] = _promoted(bits, order, turns, _CHANGES[key], half[key])
        arrives, leaves = sum(held.values()), held["outputs"]
        reads, writes = sum(moved.values()), moved["outputs"]
        if output_bits is not None:
            once = tile["outputs"] * turns["b"] * turns["x"] * turns["y"] * turns["f"]
            reads, writes = reads - once, writes - once * (1 - output_bits / _SUM_BITS)
            arrives, leaves = arrives - held["outputs"], held["outputs"] * output_bits / _SUM_BITS
        ends = np.ceil(arrives / per_cycle) + np.ceil(leaves / per_cycle)
        middle = np.ceil((reads + writes - arrives - leaves) / per_cycle)
        cycles = np.where(fits, np.maximum(compute, middle) + ends, np.inf)
        total = np.where(cycles == cycles.min(), reads + writes, np.inf)
        at = int(total.argmin())
        best = min(best, (cycles[at], total[at], reads[at], writes[at]))
    return float(best[0]), float(best[2]), float(best[3])


def _promoted(
    bits: Floats, order: tuple[str, ...], turns: dict[str, Floats], changes: str, room: float
) -> tuple[Floats, Floats]:
    """Bits that move, and those that stay on chip at once: loops are held from the inside while they fit."""
    moved, held, holds = bits, bits, np.ones(bits.shape, dtype=bool)
    for loop in reversed(order):
        moved = np.where(~holds | (loop in changes), moved * turns[loop], moved)
        holds = holds & (moved <= room)
        held = np.where(holds, moved, held)
    return moved, held


def _powers(whole: int) -> Floats:
    return 2.0 ** np.arange((whole - 1).bit_length() + 1)


def _up(whole: Floats | float, part: Floats | float) -> Floats:
    return np.asarray(np.ceil(np.true_divide(whole, part)))
