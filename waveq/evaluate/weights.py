"""Every layer's weights at every number of bits, each rounded once, and the policies that choose among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from waveq._names import nearest
from waveq.functional import MAX_TOTAL_BITS
from waveq.layers import outputs_of, quantizable
from waveq.quantizers import Quantizer, check_total_bits, quantize_weight
from waveq.quantizers.base import Granularity, ScaleMode

__all__ = ["Policies", "WeightBank", "as_policies", "plain_layers"]

Policies = npt.NDArray[np.uint8]


def plain_layers(model: nn.Module, skip: Iterable[str] = ()) -> dict[str, nn.Module]:
    """The layers to quantise, all of them with plain weights.

    Raises:
        ValueError: nothing to quantise; a parametrised weight; weights with NaN.
    """
    layers = quantizable(model, skip)
    if not layers:
        raise ValueError(
            "nothing to quantise: every Linear and convolution layer of the model is skipped, or there is none"
        )
    for name, module in layers.items():
        if parametrize.is_parametrized(module, "weight"):
            raise ValueError(
                f"layer {name!r} has a parametrised weight; policies are evaluated on a plain float model "
                "(finalize() a trained one, or keep a copy from before attach())"
            )
        if not bool(torch.isfinite(module.weight).all()):  # type: ignore[arg-type]
            raise ValueError(f"the weights of layer {name!r} hold NaN or infinity")
    return layers


class WeightBank:
    """Quantised weights by layer and total bits, computed at the first use and kept.

    Example:
        >>> bank = WeightBank({"fc": nn.Linear(2, 2, bias=False)}, quantizer="dorefa", scale="max")
        >>> bank.weight("fc", 3) is bank.weight("fc", 3)
        True
    """

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        *,
        quantizer: Quantizer,
        scale: ScaleMode,
        granularity: Granularity = "layer",
    ) -> None:
        self._float = {name: module.weight.detach() for name, module in layers.items()}  # type: ignore[operator]
        self._outputs = {name: outputs_of(module) for name, module in layers.items()}
        self._quantizer, self._scale, self._granularity = quantizer, scale, granularity
        self._done: dict[tuple[str, int], Tensor] = {}

    def weight(self, name: str, total_bits: int) -> Tensor:
        """The weights of a layer on its B-bit grid, shape and dtype as in the model."""
        key = name, total_bits
        if key not in self._done:
            self._done[key] = quantize_weight(
                self._float[name],
                total_bits,
                quantizer=self._quantizer,
                scale=self._scale,
                granularity=self._granularity,
                outputs=self._outputs[name],
            ).contiguous()
        return self._done[key]

    def float_weight(self, name: str) -> Tensor:
        """The layer's own weights."""
        return self._float[name]

    def scores(self, model: nn.Module, policy: Mapping[str, int], x: Tensor) -> Tensor:
        """The model's own scores (n, classes) with the weights of one policy: the plain way.

        Raises:
            TypeError: the model returns something else.
        """
        weights = {f"{name}.weight": self.weight(name, int(bits)) for name, bits in policy.items()}
        scores = functional_call(model, weights, (x,), tie_weights=False)
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise TypeError(f"model must return class scores of shape (n, classes), it returned {shape}")
        return scores


def as_policies(policies: Any, names: tuple[str, ...], granularity: Granularity | None = None) -> Policies:
    """Policies in any accepted form as an (N, L) uint8 array, columns in the order of ``names``.

    Args:
        policies: an (N, L) or (L,) array of total bits, a mapping (or Policy), or a sequence of mappings.
        names: the layers.
        granularity: of the levels that they will be rounded to; None where nothing is rounded.

    Raises:
        TypeError: another form.
        ValueError: wrong shape, an unknown or missing layer, bits outside 1..9; a Policy of another granularity.

    Example:
        >>> as_policies([{"a": 2, "b": 3}, {"b": 8, "a": 4}], ("a", "b")).tolist()
        [[2, 3], [4, 8]]
    """
    if isinstance(policies, Mapping):
        policies = [policies]
    if isinstance(policies, list | tuple) and policies and all(isinstance(policy, Mapping) for policy in policies):
        for policy in policies:
            _same_levels(policy, granularity)
        return np.array([_row(policy, names) for policy in policies], dtype=np.uint8)
    rows = np.asarray(policies)
    if rows.ndim == 1 and len(rows) == len(names):
        rows = rows[None, :]
    if rows.size == 0 and rows.ndim < 2:
        rows = rows.astype(np.uint8).reshape(0, len(names))
    if not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(f"policies must be whole numbers of bits, mappings or Policy objects, not {rows.dtype} values")
    if rows.ndim != 2 or rows.shape[1] != len(names):
        raise ValueError(
            f"policies must have shape (N, {len(names)}), one column a layer ({', '.join(names)}), not {rows.shape}"
        )
    if rows.size and not (rows.min() >= 1 and rows.max() <= MAX_TOTAL_BITS):
        row, column = np.argwhere((rows < 1) | (rows > MAX_TOTAL_BITS))[0]
        raise ValueError(
            f"policy {row} gives layer {names[column]!r} {rows[row, column]} bits; "
            f"total bits (sign included) lie in 1..{MAX_TOTAL_BITS}"
        )
    return np.ascontiguousarray(rows, dtype=np.uint8)


def _same_levels(policy: Mapping[str, int], granularity: Granularity | None) -> None:
    """Refuse a Policy whose bits were found for levels of another granularity."""
    made_with = getattr(policy, "granularity", None)
    if made_with is not None and granularity not in (None, made_with):
        raise ValueError(
            f"the policy was made with granularity={made_with!r} and would be rounded with {granularity!r}: evaluate "
            f"with granularity={made_with!r}, or give the bits alone, dict(policy)"
        )


def _row(policy: Mapping[str, int], names: tuple[str, ...]) -> list[int]:
    for name in policy:
        if name not in names:
            raise ValueError(f"policy names {name!r}, which is no layer to evaluate{nearest(name, names)}")
    missing = [name for name in names if name not in policy]
    if missing:
        raise ValueError(f"policy says nothing about: {', '.join(missing)}")
    return [check_total_bits(int(policy[name]), layer=name) for name in names]
