"""Which implementation is chosen, visibly, and that asking for another one gets it."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, grad

import waveq
from waveq._kernels import backends
from waveq._kernels.backends import backend, engine_for, use_backend


def test_the_public_name_is_a_function_that_prints_a_line_a_place() -> None:
    lines = str(waveq.backend()).splitlines()
    assert [line.split()[0] for line in lines] == ["cpu", "cuda", "float64", "compile"]
    assert waveq.backend().cpu.name == "numba"
    assert waveq.backend().compiled.name == "plain"


@pytest.mark.parametrize(("asked", "got"), [("plain", None), ("torch", "torch"), ("numba", "numba"), ("auto", "numba")])
def test_what_is_asked_for_computes(asked: str, got: str | None) -> None:
    with use_backend(asked):
        engine = engine_for(torch.ones(3))
    assert (engine.name if engine else None) == got


def test_the_environment_variable_counts_and_the_block_counts_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAVEQ_BACKEND", "plain")
    assert backend().cpu.name == "plain"
    with use_backend("numba"):
        assert backend().cpu.name == "numba"
    monkeypatch.setenv("WAVEQ_BACKEND", "nunba")
    with pytest.raises(ValueError, match=r"WAVEQ_BACKEND must be one of .* not 'nunba'; did you mean 'numba'"):
        backend()


def test_an_unknown_name_is_refused_and_nothing_changes() -> None:
    with pytest.raises(ValueError, match="did you mean 'plain'"), use_backend("plane"):
        pass
    assert backend().cpu.name == "numba"


def test_a_missing_package_is_said_and_the_formulas_take_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_has", lambda package: False)
    backends._engine_on.cache_clear()
    choice = backend().cpu
    assert (choice.name, choice.reason) == ("plain", "numba is not installed")
    assert engine_for(torch.ones(3)) is None
    backends._engine_on.cache_clear()


def test_a_backend_of_another_device_is_not_used_silently() -> None:
    with use_backend("triton"):
        if backend().cpu.name == "plain":
            assert "triton" in backend().cpu.reason


def test_dtypes_and_devices_that_no_kernel_has() -> None:
    wide = engine_for(torch.ones(3, dtype=torch.float64))
    assert wide is not None
    assert wide.name == "torch"
    assert engine_for(torch.ones(3, device="meta")) is None
    half = engine_for(torch.ones(3, dtype=torch.bfloat16))
    assert half is not None
    assert half.name == "numba"


def test_function_transforms_go_through_the_formulas() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    waveq.attach(net, bits=3)
    x = torch.randn(4, 6)
    parameters = dict(net.named_parameters())
    net(x).sum().backward()
    transformed = grad(lambda p: functional_call(net, p, x).sum())(parameters)
    for name, parameter in parameters.items():
        torch.testing.assert_close(transformed[name], parameter.grad, rtol=1e-4, atol=1e-6)
