"""Accuracy of many policies on one float model: post-training quantisation, exact sample by sample."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.func import functional_call

from waveq.attachment import _resolve_activations
from waveq.evaluate_data import EvaluationData
from waveq.evaluate_weights import WeightBank, as_policies, plain_layers
from waveq.layers import nearest, quantizable
from waveq.parametrization import FixedActivation
from waveq.quantizers import quantizer_names
from waveq.quantizers.base import ScaleMode, check_scale_mode

__all__ = ["PolicyEvaluator"]


class PolicyEvaluator:
    """How well a float model does when its layers' weights are rounded to the bits of a policy, without training.

    The model is copied as it is now, put in evaluation mode (batch norm uses its running statistics), and stays on its
    device; the caller's model is not touched. Each layer is rounded once per number of bits.

    Args:
        model: a module from x to class scores (n, classes), with plain float weights.
        loader: an iterable of (x, y) batches, y being class numbers (n,), or one (x, y) pair of tensors. Up to 1 GiB is
            held in memory; larger data are read anew at every call, and must then come in one order.
        quantizer: a registered weight quantiser.
        scale: what the levels are multiplied by. The default here is "max" (max|w| of the layer): DoReFa as released
            ("none") makes weights span [-1, 1], which without training is hopeless in a network without batch norm.
        skip: layers left in floating point: exact names or patterns ("layer1.*").
        activation_bits: bits of the layers' inputs, 1 to 8 (DoReFa's quantiser, inputs clipped to [0, 1]): one number
            for all but the network's first layer, or a mapping by layer name. A layer whose first batch of inputs
            holds negative values gets a signed grid. A Policy's own ``activation_bits`` are not read.

    Attributes:
        names: the quantised layers, in ``named_modules()`` order: the columns of a policy array.
        labels: (samples,) int64 class numbers.

    Raises:
        TypeError: a loader or policy of a wrong form.
        ValueError: unknown layer, quantizer or scale; nothing to quantise; parametrised or NaN weights.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> evaluator = PolicyEvaluator(net, (torch.randn(50, 4), torch.randint(3, (50,))))
        >>> evaluator.names
        ('0', '2')
        >>> evaluator.accuracy(np.array([[2, 2], [8, 8]], dtype=np.uint8)).shape
        (2,)
    """

    def __init__(
        self,
        model: nn.Module,
        loader: Any,
        *,
        quantizer: str = "dorefa",
        scale: ScaleMode = "max",
        skip: Iterable[str] = (),
        activation_bits: int | Mapping[str, int] | None = None,
    ) -> None:
        if quantizer not in quantizer_names():
            raise ValueError(f"unknown quantizer {quantizer!r}{nearest(quantizer, quantizer_names())}")
        check_scale_mode(scale)
        layers = plain_layers(model, skip)
        self.names = tuple(layers)
        self.quantizer, self.scale = quantizer, scale
        self._data = EvaluationData(loader)
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        self._layers = {name: self._model.get_submodule(name) for name in self.names}
        self._device: torch.device = next(iter(self._layers.values())).weight.device  # type: ignore[assignment]
        self._bank = WeightBank(self._layers, quantizer=quantizer, scale=scale)
        self.activation_bits = _resolve_activations(activation_bits, list(self.names), next(iter(quantizable(model))))
        self._quantize_inputs()

    @property
    def labels(self) -> Tensor:
        """(samples,) int64, on the CPU."""
        return self._data.labels

    def accuracy(self, policies: Any) -> npt.NDArray[np.float64]:
        """Share of samples whose class is predicted, (N,) float64 in [0, 1].

        Args:
            policies: (N, L) array of total bits with the columns of ``names``, a mapping or Policy, or a list of them.
        """
        return np.asarray(self.correct(policies, each=True).mean(axis=1), dtype=np.float64)

    def predictions(self, policies: Any) -> npt.NDArray[np.int64]:
        """Predicted classes, (N, samples) int64; the first class wins a tie."""
        rows = as_policies(policies, self.names)
        found = np.empty((len(rows), len(self._data)), dtype=np.int64)
        with torch.no_grad():
            start = 0
            for x, y in self._data:
                images = x.to(self._device)
                for index, row in enumerate(rows):
                    found[index, start : start + len(y)] = self._scores(row, images).argmax(dim=1).cpu().numpy()
                start += len(y)
        return found

    def correct(self, policy: Any, *, each: bool = False) -> npt.NDArray[np.bool_]:
        """Which samples are predicted right, (samples,) bool; with ``each`` (N, samples) for N policies."""
        right: npt.NDArray[np.bool_] = self.predictions(policy) == self.labels.numpy()
        if each:
            return right
        if len(right) != 1:
            raise ValueError(
                f"correct() takes one policy, not {len(right)}; for several use correct(policies, each=True)"
            )
        return right.reshape(-1)

    def _scores(self, row: npt.NDArray[np.uint8], x: Tensor) -> Tensor:
        weights = {f"{name}.weight": self._bank.weight(name, int(b)) for name, b in zip(self.names, row, strict=True)}
        scores = functional_call(self._model, weights, (x,), tie_weights=True)
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise TypeError(f"model must return class scores of shape (n, classes), it returned {shape}")
        return scores

    def _quantize_inputs(self) -> None:
        """Hook the input quantisers; the float model's first batch shows which layers' inputs have a sign."""
        if not self.activation_bits:
            return
        signed: dict[str, bool] = {}
        watches = [
            self._layers[name].register_forward_pre_hook(functools.partial(_note_sign, signed, name))
            for name in self.activation_bits
        ]
        with torch.no_grad():
            self._model(next(iter(self._data))[0].to(self._device))
        for watch in watches:
            watch.remove()
        for name, bits in self.activation_bits.items():
            hook = FixedActivation(bits, signed=signed.get(name, False))
            self._layers[name].register_forward_pre_hook(hook)


def _note_sign(signed: dict[str, bool], name: str, _module: nn.Module, args: tuple[Any, ...]) -> None:
    signed.setdefault(name, bool((args[0] < 0).any()))
