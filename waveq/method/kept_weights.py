"""Rounded weights that evaluation keeps: made once, handed out until something changes that they follow from.

In evaluation nobody asks for gradients and weights stand still, so that rounding them for every batch is waste. What
the values follow from is compared at every read: the weight (the same tensor, address and version), the steps of any
optimizer, and what is learned beside it. Writing through ``.data`` leaves no version behind, and moving averages of
weights are swapped in that way: a sample of the weight's values is compared too, all of them up to 1024 weights. What
changes single weights of larger layers through ``.data`` has to say so: ``wq.forget_weights()``.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from waveq._kernels.backends import forced, transforming
from waveq._kernels.groups import generation

__all__ = ["KeptWeight", "can_keep"]

_COMPARED = 1 << 10  # values of a weight that are compared at every read

_PLAIN = (Tensor, nn.Parameter)


class KeptWeight:
    """One layer's rounded weights; copies start empty."""

    __slots__ = ("_beside", "_held", "_marks", "_value", "_version", "_view", "_weight")

    def __init__(self) -> None:
        self.clear()

    def __deepcopy__(self, _memo: dict[int, Any]) -> KeptWeight:
        return KeptWeight()

    def __reduce__(self) -> tuple[type[KeptWeight], tuple[()]]:
        return KeptWeight, ()

    def clear(self) -> None:
        """Forget, and free the values."""
        self._value: Tensor | None = None
        self._weight: Tensor | None = None  # kept, so that no other one can take its place in memory unnoticed
        self._version = (0, 0)
        self._marks: Hashable = None
        self._beside: list[tuple[Tensor, int]] = []
        self._view = self._held = torch.empty(0)  # of the weight's values, and what they were

    def keep(self, weight: Tensor, marks: Hashable, beside: Sequence[Tensor], value: Tensor) -> None:
        """Remember values that have just been made.

        Args:
            weight: the float weights.
            marks: name all else that they follow from.
            beside: tensors that they follow from too.
            value: the rounded weights.
        """
        self._value, self._weight = value, weight
        self._version, self._marks = (weight._version, weight.data_ptr()), (generation(), forced(), marks)
        self._beside = [(tensor, tensor._version) for tensor in beside]
        self._view = _sample(weight)
        self._held = self._view.clone()

    def current(self, weight: Tensor, marks: Hashable) -> Tensor | None:
        """The values, if nothing that they follow from has changed since."""
        value = self._value
        if value is None or self._weight is not weight or value._version:
            return None
        if self._version != (weight._version, weight.data_ptr()) or self._marks != (generation(), forced(), marks):
            return None
        for tensor, version in self._beside:
            if tensor._version != version:
                return None
        return value if torch.equal(self._view, self._held) else None


def can_keep(weight: Tensor) -> bool:
    """Whether values of this weight may be kept: not for a graph that is being recorded, nor for other tensors' kinds.

    Writing in place needs no gradient either, but whoever asks for one gets values with a node.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or type(weight) not in _PLAIN or transforming():
        return False
    if weight.is_inference() or torch._C._get_tracing_state() is not None:
        return False
    if weight.is_cuda:
        return not torch.cuda.is_current_stream_capturing()
    return weight.is_cpu


def _sample(tensor: Tensor) -> Tensor:
    """A view of evenly spaced values, in the order in which they lie in memory."""
    values = tensor.detach()
    if not (values.is_contiguous() or (values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last))):
        return values
    stride = max(1, -(-values.numel() // _COMPARED))
    return values.as_strided((-(-values.numel() // stride),), (stride,), values.storage_offset())
