"""The last layer at several bit widths as one matrix product, where that gives the same bits as one after the other.

Small products are slow: with 10 classes a processor's vector units run mostly empty. Next to each other, the weights of
all widths make one product of a useful size. Its sums may run in another order, though, so the first product of each
shape is compared with the separate ones to the last bit, and a shape that differs is never used again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Ending"]

_KEPT = 32  # sets of widths; a whole space has one


@dataclass(frozen=True)
class Ending:
    """scores = value @ weight + bias, the whole of the last segment.

    Attributes:
        value: name of the last hidden value (n, k).
        weight: name of the prepared weight (k, classes).
        bias: (classes,), or None.
    """

    value: str
    weight: str
    bias: Tensor | None
    _verdicts: dict[tuple[int, int], bool] = field(default_factory=dict)
    _joined: dict[tuple[int, ...], tuple[Tensor, Tensor | None]] = field(default_factory=dict)

    def scores(self, hidden: Tensor, weights: dict[int, Tensor]) -> dict[int, Tensor] | None:
        """bits -> scores (n, classes) for every weight, views of one product; None where the bits would differ.

        Args:
            hidden: (n, k).
            weights: bits -> (k, classes), transposed views of (classes, k) as the tape prepares them.
        """
        shape = len(hidden), len(weights)
        if not self._verdicts.get(shape, True):
            return None
        weight, bias = self._join(weights)
        product = hidden @ weight if bias is None else torch.addmm(bias, hidden, weight)
        parts = dict(zip(weights, product.tensor_split(len(weights), dim=1), strict=True))
        if shape not in self._verdicts:
            alone = {bits: self._alone(hidden, weight) for bits, weight in weights.items()}
            self._verdicts[shape] = all(torch.equal(parts[bits], alone[bits]) for bits in weights)
        return parts if self._verdicts[shape] else None

    def _alone(self, hidden: Tensor, weight: Tensor) -> Tensor:
        return hidden @ weight if self.bias is None else torch.addmm(self.bias, hidden, weight)

    def _join(self, weights: dict[int, Tensor]) -> tuple[Tensor, Tensor | None]:
        key = tuple(weights)
        if key not in self._joined:
            if len(self._joined) >= _KEPT:
                self._joined.clear()
            rows = torch.cat([weight.t() for weight in weights.values()])
            self._joined[key] = rows.t(), None if self.bias is None else self.bias.repeat(len(weights))
        return self._joined[key]
