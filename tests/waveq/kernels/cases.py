"""Cases that the tests of all engines share: every compiled quantiser, in shapes that do not fill a chunk."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from waveq._kernels.closed_forms import TorchEngine
from waveq._kernels.engine import Column, Engine
from waveq._kernels.rounding import Formulas
from waveq.layers import Outputs
from waveq.method.parametrization import WaveParametrization
from waveq.quantizers import make_quantizer

METHODS = [
    ("dorefa", "none"),
    ("dorefa", "max"),
    ("dorefa", "learned"),
    ("wrpn", "none"),
    ("wrpn", "max"),
    ("wrpn", "learned"),
    ("lsq", "learned"),
    ("dsq", "learned"),
]
SHAPES = [(40, 33, 3, 3), (7, 3), (4096,), (4097,), (1,)]


def weights(dtype: torch.dtype = torch.float32, *, std: float = 0.1) -> list[Tensor]:
    """One tensor of each shape, the same in every call."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(shape, generator=generator) * std).to(dtype) for shape in SHAPES]


def layer(
    method: str, scale: Any, weight: Tensor, beta: float, *, rule: Any = "exact", outputs: Outputs | None = None
) -> WaveParametrization:
    """A layer whose bits are learned, with a learned scale below the largest weight, so that its clip holds some.

    With ``outputs`` each of them has levels of its own.
    """
    granularity: Any = "layer" if outputs is None else "channel"
    made = make_quantizer(method, weight.float(), scale=scale, granularity=granularity, outputs=outputs)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.mul_(1.0 if name == "softness" else 0.6)
    return WaveParametrization(
        made,
        beta=beta,
        total_bits=0,
        quantized=True,
        hysteresis=0.0,
        scale_rule=rule,
        snap=False,
        task_moves_beta=True,
        activation=None,
        device=weight.device,
    )


def formulas(
    engine: Engine, method: str, scale: Any, those: list[Tensor], beta: float, *, rounds: bool = True, raw: bool = False
) -> Formulas:
    """All layers in one call, the wave with them."""
    layers = [layer(method, scale, weight, beta) for weight in those]
    return Formulas(layers, those, engine, rounds=rounds, wave=True, raw=raw)


# of weights with a scale for each channel: outputs along either axis, depthwise, one weight a channel, long channels
BY_CHANNEL = [
    ((9, 7, 3, 3), Outputs()),
    ((40, 1, 3, 3), Outputs()),
    ((6, 4, 3, 2), Outputs(axis=1, groups=3)),
    ((5, 1), Outputs()),
    ((2, 4097), Outputs()),
    ((7, 3), Outputs(axis=1)),
]
CHANNEL_METHODS = [(method, scale) for method, scale in METHODS if method != "dsq" and scale != "none"]


def channel_weights(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Channels of unequal sizes, one of them all zeros; one tensor in channels_last order."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for shape, outputs in BY_CHANNEL:
        weight = torch.randn(shape, generator=generator)
        sizes = torch.logspace(-3.0, 0.0, outputs.count(weight))
        found.append((weight * outputs.spread(sizes, weight)).to(dtype))
    found[0][3] = 0.0
    found[0] = found[0].to(memory_format=torch.channels_last)
    return found


def check_channels(engine: Engine, method: str, scale: str, dtype: torch.dtype = torch.float32) -> None:
    """All that an engine computes, where each channel has a row of numbers, against the closed forms."""
    those, twin = channel_weights(dtype), TorchEngine()
    layers = [layer(method, scale, w, 2.7, outputs=where) for w, (_, where) in zip(those, BY_CHANNEL, strict=True)]
    formed, rows = Formulas(layers, those, engine, rounds=True, wave=True), 9 + 40 + 3 * 4 + 5 + 2 + 3
    table, laid = formed.table, formed.laid_out(those)
    assert len(table.rows) == rows
    torch.testing.assert_close(engine.largest(laid, table.parts), twin.largest(laid, table.parts).float())
    (made, sine), (want, expected) = engine.round(laid, table), twin.round(laid, table)
    torch.testing.assert_close(sine, expected, rtol=1e-3, atol=1e-5)
    generator = torch.Generator().manual_seed(4)
    above = [torch.randn(each.shape, generator=generator).to(dtype) for each in laid]
    slopes = torch.linspace(0.5, 2.0, rows)
    (outs, sums), (pulls, totals) = (
        engine.round_backward(laid, table, above, slopes),
        twin.round_backward(laid, table, above, slopes),
    )
    for one, other in [*zip(made, want, strict=True), *zip(outs, pulls, strict=True)]:
        assert one.dtype == dtype
        # a weight within rounding noise of a boundary may fall to either side
        apart = (one.double() - other.double()).abs() > 10 * TOLERANCE[dtype] * other.double().abs().max()
        assert int(apart.sum()) <= 2
    share = ((sums - totals).abs() > 1e-2 * totals.abs() + 1e-2 * totals.abs().mean(dim=0)).float().mean()
    assert share < 0.02
    lengths, wanted = engine.lengths(laid, table, above).float(), twin.lengths(laid, table, above)
    torch.testing.assert_close(lengths[:, [0, 3]], wanted[:, [0, 3]], rtol=5e-3, atol=1e-5)
    push = torch.linspace(-1.0, 1.0, rows)
    engine.push_largest(laid, table, push, outs)
    twin.push_largest(laid, table, push, pulls)
    for one, other in zip(outs, pulls, strict=True):
        assert int(((one - other).abs() > 10 * TOLERANCE[dtype] * other.abs().max()).sum()) <= 2


def relative(value: Tensor, expected: Tensor) -> float:
    """Largest difference, in units of the largest expected value."""
    scale = expected.double().abs().max().clamp_min(1e-30)
    return float((value.double() - expected.double()).abs().max() / scale)


# float32 carries the phase of the wave, up to 127 periods, to 4e-6 of a period; half precision rounds its results
TOLERANCE = {torch.float32: 4e-4, torch.bfloat16: 8e-3, torch.float16: 2e-3}


def check_wave(engine: Engine, method: str, scale: str, beta: float, dtype: torch.dtype) -> None:
    """Value, moments and gradients of all shapes in one pass against float64 closed forms."""
    those, twin = weights(dtype), TorchEngine()
    wide = [weight.double() for weight in those]
    ours = formulas(engine, method, scale, those, beta, rounds=False)
    theirs = formulas(twin, method, scale, wide, beta, rounds=False)
    sine, expected = engine.round(those, ours.table)[1], twin.round(wide, theirs.table)[1]
    torch.testing.assert_close(sine.double(), expected, rtol=TOLERANCE[torch.float32], atol=1e-6)
    slopes = torch.linspace(0.5, 2.0, len(those)) * math.pi * ours.table.rows[:, Column.PERIODS] / ours.counts
    nothing: list[Tensor | None] = [None] * len(those)
    pulls, sums = engine.round_backward(those, ours.table, nothing, slopes)
    want, moments = twin.round_backward(wide, theirs.table, nothing, slopes.double())
    counts = ours.counts[:, None].double()
    torch.testing.assert_close(
        sums[:, 3:].double() / counts, moments[:, 3:] / counts, rtol=TOLERANCE[torch.float32], atol=2e-5
    )
    # a layer of one weight sits on its outermost level, where the gradient is rounding noise around 0
    for pull, theirs_ in list(zip(pulls, want, strict=True))[:-1]:
        assert pull.dtype == dtype
        assert relative(pull, theirs_) < TOLERANCE[dtype]


def check_rounding(engine: Engine, method: str, scale: str, beta: float, dtype: torch.dtype) -> None:
    """Values on the levels, and all that goes back, against the closed forms in float32."""
    those, twin = weights(dtype), TorchEngine()
    ours, theirs = formulas(engine, method, scale, those, beta), formulas(twin, method, scale, those, beta)
    ours.table.wave = theirs.table.wave = False
    generator = torch.Generator().manual_seed(2)
    above = [torch.randn(weight.shape, generator=generator).to(dtype) for weight in those]
    slopes = torch.zeros(len(those))
    made, want = engine.round(those, ours.table)[0], twin.round(those, theirs.table)[0]
    outs, sums = engine.round_backward(those, ours.table, above, slopes)
    expected, totals = twin.round_backward(those, theirs.table, above, slopes)
    if scale == "none" and method == "dorefa":
        push = torch.linspace(-1.0, 1.0, len(those))
        engine.push_largest(those, ours.table, push, outs)
        twin.push_largest(those, theirs.table, push, expected)
    for i, (weight, row) in enumerate(zip(those, theirs.table.rows, strict=True)):
        assert made[i].dtype == dtype
        # a weight that lies within rounding noise of a boundary may fall to either side
        apart = (made[i].double() - want[i].double()).abs()
        moved = apart > 0.5 * row[Column.PITCH] * row[Column.GAIN]
        assert int(moved.sum()) <= weight.numel() // 2000
        assert float(apart[~moved].max()) <= TOLERANCE[dtype] * want[i].double().abs().max()
        tolerance = 1e-4 if dtype == torch.float32 else 2e-2
        assert relative(outs[i], expected[i]) < tolerance
        size = float(above[i].double().norm())
        for ours_, total in zip(sums[i].tolist(), totals[i].tolist(), strict=True):
            assert abs(ours_ - total) < 1e-3 * abs(total) + 1e-3 * size / min(float(row[Column.PITCH]), 1.0)


def check_lengths(engine: Engine, method: str, scale: str) -> None:
    """The four sums that the strength of the wave follows from, against the closed forms."""
    those, twin = weights(), TorchEngine()
    tasks = [torch.randn_like(weight) for weight in those]
    got = engine.lengths(those, formulas(engine, method, scale, those, 2.7, rounds=False).table, tasks)
    want = twin.lengths(those, formulas(twin, method, scale, those, 2.7, rounds=False).table, tasks)
    lengths = torch.stack([want[:, 0], want[:, 1], (want[:, 0] * want[:, 3]).sqrt(), want[:, 3]], dim=1).double()
    assert ((got - want).abs()[:-1] / lengths[:-1]).max() < 1e-3
