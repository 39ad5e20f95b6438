"""Weights as integers: what comes back is what was there, bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import waveq
from waveq.exporting.scale_search import find_scales

METHODS = ("dorefa", "wrpn", "midrise", "pact", "lsq", "dsq")
CASES = [*((method, "layer") for method in METHODS), *((method, "channel") for method in METHODS if method != "dsq")]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def finalised(method: str, bits: int, dtype: torch.dtype = torch.float32, **options: Any) -> tuple[nn.Module, Any]:
    torch.manual_seed(bits)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Flatten(), nn.Linear(12, 7, bias=False)
    ).to(dtype)
    scale = {} if method in ("lsq", "dsq") else {"scale": "max"}
    wq = waveq.attach(model, quantizer=method, bits=bits, total_steps=1, **scale | options)
    wq.finalize()
    return model, wq.policy()


def check(model: nn.Module, policy: Any) -> None:
    for name, found in waveq.integers(model, policy).items():
        weight, bits = model.get_submodule(name).weight, policy[name]
        assert torch.equal(found.weight(), weight)
        assert found.weight().dtype is weight.dtype
        assert found.codes.dtype is (torch.int8 if bits <= 8 else torch.int16)
        assert -(2 ** (bits - 1)) <= int(found.codes.min())
        assert int(found.codes.max()) < 2 ** (bits - 1)
        assert found.scale.dtype is (torch.float64 if weight.dtype is torch.float64 else torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("method", "granularity"), CASES)
def test_every_weight_comes_back_bit_by_bit(method: str, granularity: str, dtype: torch.dtype) -> None:
    for bits in range(2 if method == "lsq" else 1, 10):
        if granularity == "channel" and bits == 9 and dtype in (torch.bfloat16, torch.float16):
            continue  # a number of 8 digits does not tell 256 levels apart, and policies keep no scale a channel
        check(*finalised(method, bits, dtype, granularity=granularity))


@pytest.mark.parametrize("scale", ["none", "learned"])
@pytest.mark.parametrize("method", ["dorefa", "wrpn"])
def test_scales_as_published_and_learned(method: str, scale: str) -> None:
    check(*finalised(method, 3, scale=scale))


def test_what_finalize_writes_is_one_product_of_a_scale_and_a_code() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64))
    wq = waveq.attach(model, quantizer="wrpn", scale="max", bits=6, total_steps=1)
    top = model[0].parametrizations.weight.original.detach().abs().max()  # type: ignore[union-attr,index]
    wq.finalize()
    step = top * (torch.tensor(1.0) / 31)
    assert torch.equal(model[0].weight, torch.round(model[0].weight / step) * step)


def test_axes_and_offsets() -> None:
    model, policy = finalised("wrpn", 4, granularity="channel")
    found = waveq.integers(model, policy)
    assert [(each.axis, each.scale.shape, each.offset) for each in found.values()] == [
        (0, (5,), 0.0),
        (1, (6,), 0.0),
        (0, (7,), 0.0),
    ]
    assert {each.offset for each in waveq.integers(*finalised("dorefa", 4)).values()} == {0.5}
    assert {each.axis for each in waveq.integers(*finalised("dorefa", 4)).values()} == {None}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_scale_is_found_where_the_largest_code_is_anywhere(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    for most in (1, 2, 5, 30, 99):
        scales = torch.rand(16, 1, generator=generator, dtype=dtype) + 0.01
        rows = scales * torch.randint(-most, most + 1, (16, 40), generator=generator).to(dtype)
        found = find_scales(rows, 8, 0.0)
        assert found is not None
        assert torch.equal(found[:, None] * torch.round(rows / found[:, None]), rows)


def test_a_channel_of_zeros_has_codes_of_zero() -> None:
    rows = torch.tensor([[0.0, 0.0], [0.5, -0.25]])
    assert torch.equal(find_scales(rows, 3, 0.0), torch.tensor([1.0, 0.25]))


def test_one_weight_off_the_grid_is_an_error() -> None:
    model, policy = finalised("lsq", 3)
    with torch.no_grad():
        model.get_submodule("3").weight[0, 0] += 1e-3
    with pytest.raises(ValueError, match="layer '3': its weights are no multiples of a scale at 3 bits"):
        waveq.integers(model, policy)


def test_bad_input_is_named() -> None:
    model, policy = finalised("lsq", 3)
    with pytest.raises(ValueError, match=r"names layer '33', which the model does not have; did you mean '3'"):
        waveq.integers(model, {"33": 3})
    with pytest.raises(ValueError, match="no multiples of a scale at 1 bits"):
        waveq.integers(model, {"3": 1})
    with pytest.raises(TypeError, match="policy must be a mapping"):
        waveq.integers(model, 4)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="model must be a module, not dict"):
        waveq.integers({}, policy)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="quantizer 'ttq' are learned one by one"):
        waveq.integers(model, waveq.Policy({"0": 2}, quantizer="ttq"))
    waveq.attach(model, bits=3, quantizer="lsq", total_steps=1)
    with pytest.raises(ValueError, match="layer '0' is still attached"):
        waveq.integers(model, policy)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["plain", "auto"])
@pytest.mark.parametrize("granularity", ["layer", "channel"])
@pytest.mark.parametrize("method", ["wrpn", "midrise"])
def test_rounding_what_is_rounded_changes_nothing(method: str, granularity: Any, form: Any) -> None:
    """The largest weight is the scale of the next time: it must not drift by its last bit."""
    weight = torch.randn(64, 30, generator=torch.Generator().manual_seed(0))
    with waveq.use_backend(form):
        for bits in range(2, 10):
            model = nn.Sequential(nn.Linear(30, 64, bias=False))
            with torch.no_grad():
                model[0].weight.copy_(weight)
            for _ in range(3):
                wq = waveq.attach(
                    model, quantizer=method, scale="max", granularity=granularity, bits=bits, total_steps=1
                )
                before = model[0].weight.detach().clone()
                wq.finalize()
                assert torch.equal(model[0].weight, before)
