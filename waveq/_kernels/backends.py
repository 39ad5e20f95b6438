"""Which implementation computes the wave and the quantised weights, and why; ``waveq.backend()`` shows it."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from waveq._kernels.engine import Engine
from waveq._names import check_choice

__all__ = ["Backend", "Choice", "backend", "engine_for", "forced", "transforming", "use_backend"]

_NAMES = ("auto", "plain", "torch", "numba", "triton")
_VARIABLE = "WAVEQ_BACKEND"
_PLAIN = (Tensor, torch.nn.Parameter)
_forced: str | None = None


@dataclass(frozen=True)
class Choice:
    """An implementation and the reason for it.

    Attributes:
        name: "numba", "triton", "torch" (closed forms) or "plain" (autograd through the formulas).
        reason: one sentence without its full stop.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Backend:
    """What ``waveq.backend()`` returns; prints as a few lines.

    Attributes:
        cpu: for float32, bfloat16 and float16 weights on the CPU.
        cuda: for the same on a CUDA device.
        other: for float64 weights, and where every device falls back.
        compiled: inside ``torch.compile``.
    """

    cpu: Choice
    cuda: Choice
    other: Choice
    compiled: Choice

    def __str__(self) -> str:
        rows = (("cpu", self.cpu), ("cuda", self.cuda), ("float64", self.other), ("compile", self.compiled))
        return "\n".join(f"{where:<8} {choice.name:<7} {choice.reason}" for where, choice in rows)


def backend() -> Backend:
    """Which implementation runs where, and why.

    Set the environment variable ``WAVEQ_BACKEND``, or use ``use_backend``, to choose another. All of them compute the
    same numbers up to rounding.

    Raises:
        ValueError: ``WAVEQ_BACKEND`` names no implementation.

    Example:
        >>> with use_backend("plain"):
        ...     backend().cpu.name
        'plain'
    """
    return Backend(
        cpu=_choose("cpu"),
        cuda=_choose("cuda"),
        other=_float64(),
        compiled=Choice("plain", "torch.compile fuses the plain formulas itself"),
    )


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Within the block, compute with one implementation; where it cannot run, with the plain formulas.

    Args:
        name: "auto", "plain", "torch", "numba" or "triton".

    Raises:
        ValueError: an unknown name.

    Example:
        >>> with use_backend("torch"):
        ...     backend().cpu.reason
        'asked for'
    """
    global _forced
    before, _forced = _forced, _check(name, "the backend")
    try:
        yield
    finally:
        _forced = before


def engine_for(weight: Tensor) -> Engine | None:
    """The engine for a tensor as it is; None asks for the plain formulas.

    They stay in charge inside ``torch.compile`` (which fuses them) and for tensor subclasses and tensors without
    storage (tracing, meta device), which compiled kernels cannot look into.

    Example:
        >>> engine_for(torch.ones(3, device="meta")) is None
        True
    """
    if torch.compiler.is_compiling() or type(weight) not in _PLAIN or transforming():
        return None
    if weight.is_cpu:
        return _engine_on("cpu", weight.dtype, _asked(), _interprets())
    return _engine_on("cuda", weight.dtype, _asked(), _interprets()) if weight.is_cuda else None


def transforming() -> bool:
    """Whether one of ``torch.func``'s transforms is at work, or ``torch.jit.trace``, which keeps no call of ours."""
    return torch._C._functorch.maybe_current_level() is not None or torch._C._is_tracing()


def forced() -> str | None:
    """What ``use_backend`` asks for at the moment."""
    return _forced


@functools.lru_cache(maxsize=64)
def _engine_on(device: str, dtype: torch.dtype, _asked_for: str, _interpreted: bool) -> Engine | None:
    """Looked up for every layer of every step: the last two arguments say what the answer was made for."""
    choice = _choose(device)
    if choice.name == "plain":
        return None
    engine = _engine(choice.name)
    if engine.takes(dtype):
        return engine
    return _engine("torch") if dtype == torch.float64 else None


def _float64() -> Choice:
    name = _asked()
    if name == "plain":
        return Choice("plain", "asked for")
    return Choice("torch", "compiled kernels are float32 inside; float64 takes their closed forms")


def _choose(device: str) -> Choice:
    asked = _asked()
    home = {"cpu": "numba", "cuda": "triton"}[device]
    if asked in ("plain", "torch"):
        return Choice(asked, "asked for")
    if asked not in ("auto", home) and not (asked == "triton" and _interprets()):
        return Choice("plain", f"{asked}, asked for, does not run on {device}")
    if asked == "triton" and device == "cpu":
        return Choice("triton", "asked for, under Triton's interpreter") if _has("triton") else _missing("triton")
    if device == "cuda" and not torch.cuda.is_available() and not _interprets():
        return Choice("plain", "torch sees no CUDA device")
    if not _has(home):
        return _missing(home)
    return Choice(home, "asked for" if asked == home else f"{home} is installed")


def _missing(package: str) -> Choice:
    return Choice("plain", f"{package} is not installed")


def _asked() -> str:
    return _forced or _check(os.environ.get(_VARIABLE, "auto"), _VARIABLE)


def _check(name: str, where: str) -> str:
    check_choice(where, name, _NAMES)
    return name


def _interprets() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@functools.cache
def _engine(name: str) -> Engine:
    # imported when first needed: Numba takes half a second, Triton is not everywhere
    if name == "numba":
        from waveq._kernels.cpu.engine import NumbaEngine

        return NumbaEngine()
    if name == "triton":
        from waveq._kernels.cuda.engine import TritonEngine

        return TritonEngine()
    from waveq._kernels.closed_forms import TorchEngine

    return TorchEngine()
