"""Accuracy after fine-tuning: every policy is trained for a few epochs from the same float network.

The paper's protocol. Policies differ only in their bits, so a group of them can be trained as one: parameters gain a
leading dimension, the model runs under ``torch.func.vmap``, and one optimiser step serves all. Each policy sees the
same batches in the same order as it would alone, and comes out the same up to floating-point order. On a GPU that
fills the device. On a CPU it pays only where operations are so small that their overhead counts: a few steps of either
kind are timed first, and the faster one does the work. The cores of a CPU train groups side by side.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from waveq.evaluate.finetune_group import Group, Recipe, forked_random, seconds_per_policy
from waveq.evaluate.inputs import quantize_inputs
from waveq.evaluate.samples import EvaluationData
from waveq.evaluate.side_by_side import cores, run_side_by_side
from waveq.evaluate.weights import Columns, Policies, evaluated
from waveq.method.chosen import choose_weights
from waveq.method.options import Method
from waveq.quantizers import Quantizer, quantizer_class
from waveq.quantizers.base import Granularity, ScaleMode

__all__ = ["PolicyFinetuner", "finetune_policies"]

_GROUP = {"cpu": 16, "cuda": 128}


class PolicyFinetuner:
    """Fine-tunes policies from one float model and reports their accuracies.

    The optimiser is SGD with momentum. Weights are quantised in the forward pass from the first step on, with a
    straight-through gradient; biases, batch norm and a quantiser's own parameters train along. The caller's model and
    the global random state are left alone; the result depends on the arguments and the seed only.

    Args:
        model: a module from x to class scores (n, classes), with plain float weights.
        train_data: (x, y) tensors, or an iterable of (x, y) batches that fits in memory; shuffled anew every epoch.
        test_data: the same form; accuracies are measured on these samples.
        quantizer: a registered weight quantiser, or the class of one; None is ``attach``'s own choice, "lsq".
        scale: what the levels are multiplied by, "max", "none" or "learned"; None is ``attach``'s own choice.
        granularity: what has a scale of its own: "layer", which None stands for, or "channel", each output channel.
        skip: layers left in floating point: exact names or patterns.
        also: weights to quantise beyond the usual ones, as for ``attach``.
        activation_bits: bits of the layers' inputs, as for PolicyEvaluator; their ranges and signs are found in the
            first batch of training data, in floating point, and stay.
        activation_quantizer: the inputs' quantiser; None is ``attach``'s own choice for the method.
        epochs: passes over the training data.
        batch_size: samples per step; the last, smaller batch of an epoch is used too.
        lr: learning rate, constant.
        momentum: of SGD.
        weight_decay: of SGD, on all parameters.
        seed: decides the order of samples and dropout masks.
        together: "auto", or how many policies are trained as one (1: one at a time). What cannot be trained as one is
            trained one at a time, with a warning that says why.

    Attributes:
        names: the quantised layers: the columns of a policy array.
        group: how many policies are trained as one; None until "auto" has measured.
        timings: {policies together: seconds per policy and step}, what "auto" measured.

    Raises:
        TypeError: data of a wrong form.
        ValueError: unknown layer, quantizer or scale; numbers out of range; nothing to quantise; NaN weights; training
            data that do not fit in memory.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.randn(64, 2); y = (x[:, 0] > 0).long()
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> tuner = PolicyFinetuner(net, (x, y), (x, y), epochs=8, batch_size=16, lr=0.2, together=2)
        >>> bool((tuner.accuracy([{"0": 2, "2": 2}, {"0": 8, "2": 8}]) > 0.8).all())
        True
    """

    def __init__(
        self,
        model: nn.Module,
        train_data: Any,
        test_data: Any,
        *,
        quantizer: Quantizer | None = None,
        scale: ScaleMode | None = None,
        granularity: Granularity | None = None,
        skip: Iterable[str] = (),
        also: Iterable[str] = (),
        activation_bits: int | Mapping[str, int] | None = None,
        activation_quantizer: str | None = None,
        epochs: int = 1,
        batch_size: int = 128,
        lr: float = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        seed: int = 0,
        together: int | Literal["auto"] = "auto",
    ) -> None:
        inner, method, _ = evaluated(
            model,
            Method(
                quantizer=quantizer,
                scale=scale,
                granularity=granularity,
                skip=skip,
                also=also,
                activation_bits=activation_bits,
                activation_quantizer=activation_quantizer,
            ),
        )
        for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
            _check_whole(name, value, least)
        for name, number in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            if not 0 <= number < float("inf"):
                raise ValueError(f"{name} must be a finite number >= 0, not {number!r}")
        if together != "auto":
            _check_whole("together", together, 1)
        self._model = copy.deepcopy(inner).requires_grad_(False)
        self._weights = choose_weights(self._model, skip=method.skip, also=method.also).weights
        self.names = tuple(self._weights)
        self.granularity: Granularity = method.granularity or "layer"
        self._device = next(self._model.parameters()).device
        self._train = _in_memory("train_data", train_data, self._device)
        self._test = _in_memory("test_data", test_data, self._device)
        self.activation_bits = quantize_inputs(self._model, method, self._train[0][:batch_size])
        assert method.quantizer is not None
        self._columns = Columns(self._weights, method.quantizer, self.activation_bits, self.granularity)
        self._recipe = Recipe(
            quantizer=method.quantizer,  # not by name: a process that receives this need not know it
            scale=method.scale,
            granularity=self.granularity,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            seed=seed,
        )
        self.group = None if together == "auto" else together
        self.timings: dict[int, float] = {}

    def accuracy(self, policies: Any, *, progress: Callable[[int, int], None] | None = None) -> npt.NDArray[np.float64]:
        """Share of test samples whose class is predicted after fine-tuning, (N,) float64.

        Args:
            policies: (N, L) array of total bits with the columns of ``names``, a mapping or Policy, or a list of them.
            progress: called with (policies done, policies in all) after every group.
        """
        shares: npt.NDArray[np.float64] = self.correct(policies, progress=progress).mean(axis=1, dtype=np.float64)
        return shares

    def correct(self, policies: Any, *, progress: Callable[[int, int], None] | None = None) -> npt.NDArray[np.bool_]:
        """Which test samples are predicted right after fine-tuning, (N, samples) bool."""
        rows = self._columns.rows(policies)
        right = np.empty((len(rows), len(self._test[1])), dtype=bool)
        with forked_random(self._device):
            if len(rows) > 1 and self.group != 1 and (reason := self._why_not_together(rows[:2])):
                warnings.warn(f"policies are trained one at a time: {reason}", stacklevel=2)
                self.group = 1
            if len(rows) > 1 and self.group is None:
                self.group = self._faster_group(rows)
            size = self.group or 1

            def work(start: int) -> None:
                group = self._make(rows[start : start + size])
                group.train(*self._train)
                right[start : start + size] = (group.predict(self._test[0]) == self._test[1]).cpu().numpy()

            def report(start: int) -> None:
                if progress is not None:
                    progress(min(start + size, len(rows)), len(rows))

            starts = range(0, len(rows), size)
            threads = 1 if len(starts) < 2 or self._draws_random_numbers(rows) else cores(self._device)
            run_side_by_side(work, starts, threads=threads, device=self._device, done=report)
        return right

    def _make(self, rows: Policies) -> Group:
        return Group(self._model, self._weights, rows, self._recipe)

    def _why_not_together(self, rows: Policies) -> str:
        """What keeps two policies from being trained as one; "" where nothing does."""
        if not quantizer_class(self._recipe.quantizer).learns_bits:
            return f"quantizer {quantizer_class(self._recipe.quantizer).method!r} has no levels for any number of bits"
        try:
            self._make(rows).step(self._train[0][:2], self._train[1][:2])
        except (RuntimeError, ValueError) as error:  # what vmap raises for operations without a batching rule
            return str(error).splitlines()[0]
        return ""

    def _draws_random_numbers(self, rows: Policies) -> bool:
        """Whether a training step does (dropout): the generator is one for all threads, so these take turns."""
        before = torch.get_rng_state()
        seconds_per_policy(self._make(rows[:1]), *self._train)
        return not torch.equal(before, torch.get_rng_state())

    def _faster_group(self, rows: Policies) -> int:
        """Time a few steps alone and together."""
        together = min(_GROUP.get(self._device.type, _GROUP["cpu"]), len(rows))
        for size in (1, together):
            self.timings[size] = seconds_per_policy(self._make(rows[:size]), *self._train)
        return min(self.timings, key=lambda size: self.timings[size])


def finetune_policies(
    model: nn.Module,
    policies: Any,
    train_data: Any,
    test_data: Any,
    *,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> npt.NDArray[np.float64]:
    """Accuracies (N,) of N policies, each fine-tuned from the same float model.

    Args:
        model, train_data, test_data, settings: as for PolicyFinetuner.
        policies: (N, L) array of total bits, a mapping or Policy, or a list of them.
        progress: called with (policies done, policies in all).

    Example:
        >>> x = torch.randn(20, 2); y = (x[:, 0] > 0).long()
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> finetune_policies(net, np.array([[2], [8]], dtype=np.uint8), (x, y), (x, y), together=1).shape
        (2,)
    """
    return PolicyFinetuner(model, train_data, test_data, **settings).accuracy(policies, progress=progress)


def _check_whole(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, not {value!r}")


def _in_memory(name: str, data: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    held = EvaluationData(data, name=name)
    stretches = list(held.stretches())
    if len(stretches) != 1:
        raise ValueError(f"{name}: fine-tuning needs samples of one shape that fit in memory (1 GiB)")
    return stretches[0].x.to(device), held.labels.to(device)
