"""Cases that the tests of all engines share: every quantiser with a recipe, in shapes that do not fill a chunk."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from waveq._kernels.interface import Engine, WaveRow
from waveq._kernels.recipe import Rounding, number
from waveq._kernels.torch_engine import TorchEngine
from waveq.functional import grid_scale
from waveq.quantizers import make_quantizer

METHODS = [
    ("dorefa", "none"),
    ("dorefa", "max"),
    ("dorefa", "learned"),
    ("wrpn", "none"),
    ("wrpn", "max"),
    ("wrpn", "learned"),
    ("lsq", "learned"),
]
SHAPES = [(40, 33, 3, 3), (7, 3), (4096,), (4097,), (1,)]


def weights(dtype: torch.dtype = torch.float32, *, std: float = 0.1) -> list[Tensor]:
    """One tensor of each shape, the same in every call."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(shape, generator=generator) * std).to(dtype) for shape in SHAPES]


def quantizer(method: str, scale: Any, weight: Tensor) -> Any:
    """The method with a learned scale below the largest weight, so that its clip holds some."""
    made = make_quantizer(method, weight.float(), scale=scale)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(0.6)
    return made


def row(engine: Engine, method: str, scale: Any, weight: Tensor, beta: float) -> WaveRow:
    """A layer for ``Engine.wave``."""
    made = quantizer(method, scale, weight)
    (largest,) = engine.largest([weight])
    return WaveRow(weight, made.coordinate_recipe(weight, largest, beta), made.grid())


def rounding(engine: Engine, method: str, scale: Any, weight: Tensor, beta: float) -> Rounding:
    """A recipe for ``Engine.round`` at ceil(beta) magnitude bits."""
    made = quantizer(method, scale, weight)
    (largest,) = engine.largest([weight])
    bits = torch.tensor(beta).ceil()
    recipe: Rounding = made.rounding_recipe(
        weight, largest, bits, grid_scale(torch.tensor(beta), bits, grid=made.grid())
    )
    return recipe


def relative(value: Tensor, expected: Tensor) -> float:
    """Largest difference, in units of the largest expected value."""
    scale = expected.double().abs().max().clamp_min(1e-30)
    return float((value.double() - expected.double()).abs().max() / scale)


# float32 carries the phase of the wave, up to 127 periods, to 4e-6 of a period; half precision rounds its results
TOLERANCE = {torch.float32: 4e-4, torch.bfloat16: 8e-3, torch.float16: 2e-3}


def check_wave(engine: Engine, method: str, scale: str, beta: float, dtype: torch.dtype) -> None:
    """Value, moments and gradients of all shapes in one pass against float64 closed forms."""
    layers = [row(engine, method, scale, weight, beta) for weight in weights(dtype)]
    twins = [row(TorchEngine(), method, scale, weight.double(), beta) for weight in weights(dtype)]
    betas, strength = torch.full((len(layers),), beta), torch.linspace(0.5, 2.0, len(layers))
    got = engine.wave(layers, betas, strength, 1, gradients=True)
    want = TorchEngine().wave(twins, betas.double(), strength.double(), 1, gradients=True)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(got.sine.double(), want.sine, rtol=TOLERANCE[torch.float32], atol=1e-6)
    torch.testing.assert_close(got.moment.double(), want.moment, rtol=TOLERANCE[torch.float32], atol=2e-5)
    torch.testing.assert_close(got.inside.double(), want.inside, rtol=TOLERANCE[torch.float32], atol=2e-5)
    assert got.gradients is not None
    assert want.gradients is not None
    # a layer of one weight sits on its outermost level, where the gradient is rounding noise around 0
    for gradient, expected in list(zip(got.gradients, want.gradients, strict=True))[:-1]:
        assert gradient.dtype == dtype
        assert relative(gradient, expected) < tolerance


def check_rounding(engine: Engine, method: str, scale: str, beta: float, dtype: torch.dtype) -> None:
    """Values on the levels, and all four gradients, against the closed forms in float32."""
    for weight in weights(dtype):
        recipe = rounding(engine, method, scale, weight, beta)
        got, want = engine.round(weight, recipe), TorchEngine().round(weight, recipe)
        assert got.dtype == dtype
        # a weight that lies within rounding noise of a boundary may fall to either side
        apart = (got.double() - want.double()).abs()
        moved = apart > 0.5 * number(recipe.pitch) * number(recipe.gain)
        assert int(moved.sum()) <= weight.numel() // 2000
        assert float(apart[~moved].max()) <= TOLERANCE[dtype] * number(recipe.gain)
        above = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
        ours, twin = engine.round_backward(weight, recipe, above), TorchEngine().round_backward(weight, recipe, above)
        # a lone weight is the largest: what passes straight through and what the maximum takes back cancel to noise
        floor = 1e-6 * float(above.abs().max()) / number(recipe.coordinate.divisor)
        tolerance = 1e-4 if dtype == torch.float32 else 2e-2
        apart = (ours.weight.double() - twin.weight.double()).abs().max()
        assert apart < tolerance * twin.weight.double().abs().max() + floor
        size = float(above.double().norm())
        for name in ("pitch", "gain", "divisor"):
            a, b = number(getattr(ours, name)), number(getattr(twin, name))
            assert abs(a - b) < 1e-3 * abs(b) + 1e-3 * size / min(number(recipe.pitch), 1.0), name
