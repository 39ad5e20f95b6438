"""Every layer's weights at every number of bits, each rounded once, and the policies that choose among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.func import functional_call

from waveq._names import nearest
from waveq.functional import MAX_TOTAL_BITS
from waveq.method.arguments import (
    resolve_activation_quantizer,
    resolve_granularity,
    resolve_quantizer,
    resolve_scale,
)
from waveq.method.chosen import ChosenWeight, choose_weights
from waveq.method.options import Method
from waveq.method.presets import get_preset
from waveq.method.sites import site_names
from waveq.method.wrappers import names_of, resolve_names, unwrapped
from waveq.policy import Policy
from waveq.quantizers import Quantizer, check_total_bits, quantizer_class, scale_modes
from waveq.quantizers.base import Granularity, ScaleMode

__all__ = ["Columns", "Policies", "WeightBank", "as_policies", "evaluated", "rounding"]

Policies = npt.NDArray[np.uint8]


def evaluated(model: nn.Module, method: Method) -> tuple[nn.Module, Method, dict[str, ChosenWeight]]:
    """The network inside wrappers, its own names in the options, and the tensors that are quantised: as in ``attach``.

    Args:
        model: with plain float weights; not changed.
        method: quantizer, scale, granularity, skip, also, and what is said of inputs.

    Returns:
        Network, options with ``quantizer``, ``scale``, ``granularity`` and ``activation_quantizer`` filled in, and
        weights by name.

    Raises:
        ValueError: see ``attach``.
    """
    preset = get_preset(method.preset)
    found = resolve_quantizer(method.quantizer, None, preset)
    scale = resolve_scale(method.scale, found, preset)
    granularity = resolve_granularity(method.granularity, None, found, scale)
    if scale not in scale_modes(found):
        known = ", ".join(map(repr, scale_modes(found)))
        raise ValueError(f"scale must be one of {known} for quantizer {found.method!r}, not {scale!r}")
    model = unwrapped(model)
    if isinstance(model, nn.Module):
        method = resolve_names(method, site_names(model))
    weights = choose_weights(model, skip=method.skip, also=method.also).weights
    activation = resolve_activation_quantizer(method, found.activation, preset)
    filled: dict[str, Any] = {
        "quantizer": found,
        "scale": scale,
        "granularity": granularity,
        "activation_quantizer": activation,
    }
    return model, replace(method, **filled), weights


def rounding(
    quantizer: Quantizer | None, scale: ScaleMode | None, granularity: Granularity = "layer"
) -> dict[str, Any]:
    """The arguments of ``ChosenWeight.rounded``, ``attach``'s own choice where one is None.

    Example:
        >>> rounding(None, None)["scale"], rounding("dorefa", None)["scale"]
        ('learned', 'max')
    """
    preset = get_preset(Method.preset)
    found = resolve_quantizer(quantizer, None, preset)
    return {"quantizer": found, "scale": resolve_scale(scale, found, preset), "granularity": granularity}


class WeightBank:
    """Quantised weights by layer and total bits, computed at the first use and kept.

    Args:
        weights: what is quantised, by name.
        quantizer: a method.
        scale: its scale; None is its own.
        granularity: what has a scale of its own.

    Example:
        >>> bank = WeightBank(choose_weights(nn.Sequential(nn.Linear(2, 2))).weights, quantizer="dorefa", scale="max")
        >>> bank.weight("0", 3) is bank.weight("0", 3)
        True
    """

    def __init__(
        self,
        weights: Mapping[str, ChosenWeight],
        *,
        quantizer: Quantizer,
        scale: ScaleMode | None,
        granularity: Granularity = "layer",
    ) -> None:
        self._weights = dict(weights)
        self._levels: dict[str, Any] = {"quantizer": quantizer, "scale": scale, "granularity": granularity}
        self._done: dict[tuple[str, int], Tensor] = {}

    def weight(self, name: str, total_bits: int) -> Tensor:
        """The weights of a layer on its B-bit grid, shape and dtype as in the model."""
        key = name, total_bits
        if key not in self._done:
            self._done[key] = self._weights[name].rounded(total_bits, **self._levels).contiguous()
        return self._done[key]

    def float_weight(self, name: str) -> Tensor:
        """The layer's own weights."""
        return self._weights[name].tensor.detach()

    def in_place(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by layer, as ``functional_call`` takes them: wherever the layer's weight is read."""
        return {key: tensor for name, tensor in tensors.items() for key in self._weights[name].keys}

    def scores(self, model: nn.Module, policy: Mapping[str, int], x: Tensor) -> Tensor:
        """The model's own scores (n, classes) with the weights of one policy: the plain way.

        Raises:
            TypeError: the model returns something else.
        """
        weights = self.in_place({name: self.weight(name, int(bits)) for name, bits in policy.items()})
        scores = functional_call(model, weights, (x,), tie_weights=False)
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise TypeError(f"model must return class scores of shape (n, classes), it returned {shape}")
        return scores


@dataclass(frozen=True)
class Columns:
    """What policies have to fit: the columns of a policy array, and what else they may say.

    Attributes:
        weights: what is quantised, by name.
        quantizer: the method.
        activation_bits: bits of the inputs by layer.
        granularity: what has a scale of its own.
    """

    weights: Mapping[str, ChosenWeight]
    quantizer: Quantizer
    activation_bits: Mapping[str, int]
    granularity: Granularity = "layer"

    def rows(self, policies: Any) -> Policies:
        """``as_policies``, once it is sure that the method has these bits, and that a Policy is meant for all this.

        Raises:
            ValueError: bits that the method does not have; a Policy of another method, or with other input bits.
        """
        found = quantizer_class(self.quantizer)
        listed = [policies] if isinstance(policies, Mapping) else policies
        if isinstance(listed, list | tuple):
            listed = [self._own_names(each) if isinstance(each, Mapping) else each for each in listed]
        rows = as_policies(listed, tuple(self.weights))
        wrong = np.argwhere(~np.isin(rows, np.array(list(found.bit_counts), dtype=np.uint8)))
        if len(wrong):
            row, column = wrong[0]
            least, most = found.bit_counts[0], found.bit_counts[-1]
            raise ValueError(
                f"policy {row} gives layer {tuple(self.weights)[column]!r} {rows[row, column]} bits; quantizer "
                f"{found.method!r} has {least} to {most}"
            )
        return rows

    def _own_names(self, policy: Mapping[str, int]) -> dict[str, int]:
        """The first name of each weight, and the model's own names instead of a wrapper's."""
        first = {name: weight.names[0] for weight in self.weights.values() for name in weight.names}
        inside = names_of(policy, first)
        own = {name: first.get(inside.get(name, name), name) for name in policy}
        if isinstance(policy, Policy):
            self._check(policy, own)
        chosen: dict[str, int] = {}
        for name, bits in policy.items():
            if chosen.setdefault(own[name], int(bits)) != bits:
                raise ValueError(
                    f"layers that share the weight of {own[name]!r} must have the same bits: {dict(policy)}"
                )
        return chosen

    def _check(self, policy: Policy, own: Mapping[str, str]) -> None:
        method = quantizer_class(self.quantizer).method
        if policy.quantizer not in (None, method):
            raise ValueError(
                f"the policy is made for quantizer {policy.quantizer!r}, policies are evaluated with {method!r}; give "
                f"quantizer={policy.quantizer!r}, or the bits alone: dict(policy)"
            )
        if policy.granularity not in (None, self.granularity):
            raise ValueError(
                f"the policy was made with granularity={policy.granularity!r}, policies are evaluated with "
                f"{self.granularity!r}; give granularity={policy.granularity!r}, or the bits alone: dict(policy)"
            )
        inputs = {own[name]: bits for name, bits in policy.activation_bits.items()}
        if inputs and inputs != dict(self.activation_bits):
            raise ValueError(
                f"the policy quantises inputs ({inputs}) that are not those that are quantised here "
                f"({dict(self.activation_bits) or 'none'}): give activation_bits=policy, or dict(policy)"
            )


def as_policies(policies: Any, names: tuple[str, ...]) -> Policies:
    """Policies in any accepted form as an (N, L) uint8 array, columns in the order of ``names``.

    Args:
        policies: an (N, L) or (L,) array of total bits, a mapping (or Policy), or a sequence of mappings.
        names: the layers.

    Raises:
        TypeError: another form.
        ValueError: wrong shape, an unknown or missing layer, bits outside 1..9.

    Example:
        >>> as_policies([{"a": 2, "b": 3}, {"b": 8, "a": 4}], ("a", "b")).tolist()
        [[2, 3], [4, 8]]
    """
    if isinstance(policies, Mapping):
        policies = [policies]
    if isinstance(policies, list | tuple) and policies and all(isinstance(policy, Mapping) for policy in policies):
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


def _row(policy: Mapping[str, int], names: tuple[str, ...]) -> list[int]:
    for name in policy:
        if name not in names:
            raise ValueError(
                f"policy names {name!r}, which is no layer to evaluate{nearest(name, names)} (embeddings and experts: "
                "also=...)"
            )
    missing = [name for name in names if name not in policy]
    if missing:
        raise ValueError(f"policy says nothing about: {', '.join(missing)}")
    return [check_total_bits(int(policy[name]), layer=name) for name in names]
