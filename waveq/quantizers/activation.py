"""What every activation quantiser has, and DoReFa's (arXiv 1606.06160, eq. 11), also where activations have a sign."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from waveq._bits import check_activation_bits
from waveq._boundaries import clip
from waveq._kernels.activations import fused_clip_round
from waveq._kernels.backends import engine_for
from waveq.quantizers.base import straight_through

__all__ = [
    "ActivationQuantizer",
    "DataStarted",
    "DoReFaActivation",
    "features_of",
    "mean_over_ranks",
    "quantize_activation",
    "round_on_unit_range",
]


class ActivationQuantizer(nn.Module):
    """One layer's input quantiser. What it learns are its parameters: the user's optimizer trains them.

    Attributes:
        method: the name in the registry.
        fewest_bits: the least bits that the method is defined for; the most are 8.
        learns_bits: whether k may change during training: what is learned means the same at any k, or ``set_bits``
            translates it.
        bounded: names of learned parameters that must not change by more than a share of themselves in one step.
        bits: k, of this layer.

    Args:
        bits: k.

    Raises:
        ValueError: bits that the method does not have.
    """

    method: ClassVar[str] = ""
    fewest_bits: ClassVar[int] = 1
    learns_bits: ClassVar[bool] = False
    bounded: ClassVar[tuple[str, ...]] = ()

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = check_activation_bits(bits)
        if bits < self.fewest_bits:
            raise ValueError(f"activation quantizer {self.method!r} has {self.fewest_bits} to 8 bits, not {bits}")

    def forward(self, x: Tensor, *, signed: bool = False, stretch: Tensor | None = None) -> Tensor:
        """x on its levels, in the dtype of x; computed in float32 at least.

        Args:
            x: inputs.
            signed: whether negative values carry information.
            stretch: c, 0-dim, which multiplies all levels while bits are learned; None is 1.
        """
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        quantized = self.quantize(wide, signed) if stretch is None else self.stretched(wide, signed, stretch)
        return quantized.to(x.dtype)

    def quantize(self, x: Tensor, signed: bool) -> Tensor:
        """x, float32 or wider, on its levels; ``signed`` says whether negative values carry information."""
        raise NotImplementedError

    def stretched(self, x: Tensor, signed: bool, stretch: Tensor) -> Tensor:
        """c Q(x/c): all levels c times as far apart.

        With a straight-through Q the gradient of c is LSQ's (Esser et al. 2020, eq. 3): (Q - x)/c inside the range and
        Q/c outside. Methods with a step of their own multiply it instead, which is one pass over x.
        """
        c = stretch.to(x.dtype)
        return c * self.quantize(x / c, signed)

    def set_bits(self, bits: int, *, signed: bool) -> None:
        """Take another k, and keep the range."""
        self.bits = bits

    def fit(self, x: Tensor, *, signed: bool) -> None:
        """Set from data (``waveq.calibrate``) what the method has to set; a fixed range has nothing."""

    def take_sign(self) -> None:
        """Inputs turn out to have a sign: keep the range, on the signed grid from now on."""

    def replaces(self, rectifier: nn.Module) -> bool:
        """Whether ``rectified`` does the work of this nn.ReLU or nn.ReLU6 for inputs without a sign."""
        return False

    def saves_rectifying(self, x: Tensor) -> bool:
        """Whether ``rectified`` takes fewer passes over x than a ReLU and the quantiser one after the other."""
        return True

    def rectified(self, x: Tensor) -> Tensor:
        """``self(relu(x))``, values and gradients, where ``replaces`` says so."""
        return self(x)  # type: ignore[no-any-return]


class DataStarted(ActivationQuantizer):
    """An input quantiser whose range or levels start from the first batch that it sees in training.

    Batches in evaluation that come before start it too, each anew, but leave it open: the first training batch has the
    last word. A batch of zeros says nothing and leaves it open as well.

    Attributes:
        started: whether a training batch has set the start; int8, 0-dim, travels in the ``state_dict``.
    """

    started: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.register_buffer("started", torch.tensor(0, dtype=torch.int8))  # averages of models subtract it
        self._begun = False  # a copy of ``started``, so that a forward pass never waits for the device

    def start(self, x: Tensor, signed: bool) -> None:
        """Set what is learned from a batch; runs without gradient."""
        raise NotImplementedError

    def forward(self, x: Tensor, *, signed: bool = False, stretch: Tensor | None = None) -> Tensor:
        """x on its levels, in the dtype of x."""
        if not self._begun:
            self._begin(x.detach(), signed)
        return super().forward(x, signed=signed, stretch=stretch)

    @torch.no_grad()
    def fit(self, x: Tensor, *, signed: bool) -> None:
        """Start from these values, and leave it to no batch any more."""
        before, self.training = self.training, True  # the ranks share what they have found
        self._begin(x, signed)
        self.training = before

    def shared(self, value: Tensor) -> Tensor:
        """The mean over ranks of a starting value, in training; an evaluation may run on one rank alone."""
        return mean_over_ranks(value) if self.training else value

    @torch.no_grad()
    def _begin(self, x: Tensor, signed: bool) -> None:
        x = x.values() if x.is_nested else x
        self.start(x.float(), signed)
        if self.training and bool(mean_over_ranks(x.any().float())):  # the ranks must agree on when it is over
            self.started.fill_(True)
            self._begun = True

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._begun = bool(self.started)


class DoReFaActivation(ActivationQuantizer):
    """``quantize_activation`` with fixed bits; nothing is learned, the range is [0, 1] (or [-1, 1])."""

    method = "dorefa"
    learns_bits = True

    def quantize(self, x: Tensor, signed: bool) -> Tensor:
        """See ``quantize_activation``."""
        return quantize_activation(x, self.bits, signed=signed)

    def replaces(self, rectifier: nn.Module) -> bool:
        """Both kinds: what ReLU6 holds at 6 is held at 1."""
        return type(self).quantize is DoReFaActivation.quantize and type(rectifier) in (nn.ReLU, nn.ReLU6)

    def saves_rectifying(self, x: Tensor) -> bool:
        """In compiled kernels."""
        return engine_for(x) is not None

    def rectified(self, x: Tensor) -> Tensor:
        """The same kernel; its gradient is 0 at x = 0 too, as the ReLU's is."""
        engine = engine_for(x)
        if engine is None:
            return self(torch.relu(x))  # type: ignore[no-any-return]
        return fused_clip_round(engine, x, low=0.0, steps=_steps_of(self.bits, False), closed=False)


def quantize_activation(x: Tensor, bits: int, *, signed: bool = False) -> Tensor:
    """round((2^k - 1) clip(x, 0, 1)) / (2^k - 1), straight-through inside the range and no gradient outside.

    With ``signed`` (inputs that no ReLU has made positive) the range is [-1, 1] and the grid m/(2^(k-1) - 1), the sign
    taking one of the k bits; one signed bit is the sign itself.

    Args:
        x: activations, any shape and floating dtype.
        bits: k, 1 to 8.
        signed: whether negative values carry information.

    Raises:
        ValueError: bits is not a whole number from 1 to 8.

    Example:
        >>> quantize_activation(torch.tensor([-0.3, 0.2, 0.6, 1.7]), 1).tolist()
        [0.0, 0.0, 1.0, 1.0]
        >>> quantize_activation(torch.tensor([-0.9, 0.2]), 2, signed=True).tolist()
        [-1.0, 0.0]
    """
    check_activation_bits(bits)
    low = -1.0 if signed else 0.0
    engine = None if signed and bits == 1 else engine_for(x)
    if engine is not None:
        return fused_clip_round(engine, x, low=low, steps=_steps_of(bits, signed))
    clipped = clip(x, low, 1.0)
    return straight_through(clipped, round_on_unit_range(clipped.detach(), bits, signed=signed))


def round_on_unit_range(x: Tensor, bits: int, *, signed: bool) -> Tensor:
    """Values of [0, 1], or of [-1, 1] with ``signed``, on the levels of k bits; the shape and dtype of x.

    Example:
        >>> round_on_unit_range(torch.tensor([0.3, 1.0]), 2, signed=False)
        tensor([0.3333, 1.0000])
    """
    if signed and bits == 1:
        return torch.where(x < 0, -1.0, 1.0).to(x.dtype)
    steps = _steps_of(bits, signed)
    return torch.round(x * steps) / steps


def _steps_of(bits: int, signed: bool) -> float:
    return float(2 ** (bits - 1) - 1 if signed else 2**bits - 1)


def features_of(x: Tensor) -> int:
    """Values in one sample, at least 1; a tensor without a batch axis is one sample, nested samples count their mean.

    Example:
        >>> features_of(torch.zeros(8, 3, 5)), features_of(torch.zeros(7))
        (15, 7)
    """
    if x.is_nested:  # of torch's encoders, in evaluation
        return max(1, x.values().numel() // x.size(0))
    return max(1, math.prod(x.shape[1:]) if x.ndim > 1 else x.numel())  # the batch's size is open in an export


def mean_over_ranks(value: Tensor) -> Tensor:
    """The mean over all processes where torch.distributed runs; for starting values that all ranks must share."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return value
