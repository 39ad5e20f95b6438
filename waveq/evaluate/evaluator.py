"""Accuracy of many policies on one float model: post-training quantisation, exact sample by sample."""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from waveq.evaluate.inputs import quantize_inputs
from waveq.evaluate.prefix.replay import Replay, UntraceableError
from waveq.evaluate.samples import EvaluationData, Stretch
from waveq.evaluate.scores import count_hits, mark_hits, predicted_classes
from waveq.evaluate.weights import Columns, Policies, WeightBank, evaluated
from waveq.method.chosen import choose_weights
from waveq.method.options import Method
from waveq.quantizers import Quantizer, quantizer_class
from waveq.quantizers.base import Granularity, ScaleMode

__all__ = ["PolicyEvaluator"]

Scores = Iterator[tuple[int, Tensor]]
_WORTH_A_TAPE = 8  # policies; recording a tape costs about as much as a few passes over the data


class PolicyEvaluator:
    """How well a float model does when its layers' weights are rounded to the bits of a policy, without training.

    The model is copied as it is now, put in evaluation mode (batch norm uses its running statistics), and stays on its
    device; the caller's model is not touched. Each layer is rounded once per number of bits.

    Args:
        model: a module from x to class scores (n, classes), with plain float weights.
        loader: an iterable of (x, y) batches, y being class numbers (n,), or one (x, y) pair of tensors. Up to 1 GiB is
            held in memory; larger data are read anew at every call, and must then come in one order.
        quantizer: a registered weight quantiser, or the class of one; None is ``attach``'s own choice, "lsq".
        scale: what the levels are multiplied by; None is ``attach``'s own choice: "max" (max|w| of the layer) where the
            method has it, for LSQ the step that it starts from. DoReFa as released ("none") makes weights span [-1, 1],
            which without training is hopeless in a network without batch norm.
        granularity: what has a scale of its own: "layer", which None stands for, or "channel", each output channel.
        skip: layers left in floating point: exact names or patterns ("layer1.*").
        also: weights to quantise beyond the usual ones, as for ``attach``: embeddings, stacked experts.
        activation_bits: bits of the layers' inputs, 1 to 8: one number for all but the network's first layer, or a
            mapping by layer name. Their ranges and signs are found in the loader's first batch, in floating point. A
            Policy brings bits, ranges and signs as its run left them: with it, the accuracy of its bits is that of the
            finalised network as long as the weights are.
        activation_quantizer: the inputs' quantiser; None is ``attach``'s own choice for the method.
        share_prefixes: run what several policies have in common once. The scores are the same to the last bit (that is
            checked on the data before it is relied upon); False is for comparing.
        memory_bytes: bound on the activations that are alive at once; sets the samples that are taken at a time.

    Attributes:
        names: the quantised layers, in ``named_modules()`` order: the columns of a policy array.
        labels: (samples,) int64 class numbers.
        plain_reason: why prefixes are not shared; None where they are.

    Raises:
        TypeError: a loader or policy of a wrong form; a model inside a wrapper that ``attach`` refuses.
        ValueError: unknown layer, quantizer or scale; nothing to quantise; weights that ``attach`` refuses
            (parametrised, NaN, read by something that must not find them rounded).

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
        quantizer: Quantizer | None = None,
        scale: ScaleMode | None = None,
        granularity: Granularity | None = None,
        skip: Iterable[str] = (),
        also: Iterable[str] = (),
        activation_bits: int | Mapping[str, int] | None = None,
        activation_quantizer: str | None = None,
        share_prefixes: bool = True,
        memory_bytes: int = 1 << 30,
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
        self._data = EvaluationData(loader)
        self._model = copy.deepcopy(inner).eval().requires_grad_(False)
        weights = choose_weights(self._model, skip=method.skip, also=method.also).weights
        self.names = tuple(weights)
        self.scale = method.scale
        self.granularity: Granularity = method.granularity or "layer"
        self._device = next(iter(weights.values())).tensor.device
        first = next(iter(self._data))[0].to(self._device)
        self.activation_bits = quantize_inputs(self._model, method, first)
        assert method.quantizer is not None  # the class, for a process that receives this need not know its name
        self.quantizer = quantizer_class(method.quantizer).method
        self._columns = Columns(weights, method.quantizer, self.activation_bits, self.granularity)
        self._bank = WeightBank(weights, quantizer=method.quantizer, scale=method.scale, granularity=self.granularity)
        self.plain_reason = None if share_prefixes else "share_prefixes=False"
        self._replay = Replay(self._model, self.names, self._bank, self._device, memory_bytes)

    def __getstate__(self) -> dict[str, Any]:
        """Another process records its own tapes: they hold compiled code."""
        return {**self.__dict__, "_replay": self._replay.without_tapes()}

    @property
    def labels(self) -> Tensor:
        """(samples,) int64, on the CPU."""
        return self._data.labels

    def accuracy(self, policies: Any) -> npt.NDArray[np.float64]:
        """Share of samples whose class is predicted, (N,) float64 in [0, 1].

        Args:
            policies: (N, L) array of total bits with the columns of ``names``, a mapping or Policy, or a list of them.
        """
        rows = self._columns.rows(policies)
        labels, hits, lock = self.labels.numpy(), np.zeros(len(rows), dtype=np.int64), threading.Lock()

        def count(part: slice, scores: Scores) -> None:
            mine = np.zeros(len(rows), dtype=np.int64)
            for row, values in scores:
                mine[row] = count_hits(values, labels[part])
            with lock:
                np.add(hits, mine, out=hits)

        self._visit(rows, count)
        return hits / len(self._data)

    def losses(self, policies: Any) -> npt.NDArray[np.float64]:
        """Mean cross-entropy in nats, (N,) float64."""
        rows = self._columns.rows(policies)
        total, lock = np.zeros(len(rows)), threading.Lock()

        def add(part: slice, scores: Scores) -> None:
            mine = np.zeros(len(rows))
            labels = self.labels[part].to(self._device)
            for row, values in scores:
                mine[row] = float(F.cross_entropy(values.double(), labels, reduction="sum"))
            with lock:
                np.add(total, mine, out=total)

        self._visit(rows, add)
        return total / len(self._data)

    def predictions(self, policies: Any) -> npt.NDArray[np.int64]:
        """Predicted classes, (N, samples) int64; the first class wins a tie."""
        rows = self._columns.rows(policies)
        found = np.empty((len(rows), len(self._data)), dtype=np.int64)

        def store(part: slice, scores: Scores) -> None:
            for row, values in scores:
                found[row, part] = predicted_classes(values)

        self._visit(rows, store)
        return found

    def correct(self, policies: Any, *, each: bool = False) -> npt.NDArray[np.bool_]:
        """Which samples are predicted right by one policy, (samples,) bool; with ``each`` (N, samples) for N policies.

        Raises:
            ValueError: several policies without ``each``.
        """
        rows = self._columns.rows(policies)
        if not each and len(rows) != 1:
            raise ValueError(f"correct() takes one policy, not {len(rows)}; for several use correct(..., each=True)")
        right, labels = np.empty((len(rows), len(self._data)), dtype=np.bool_), self.labels.numpy()

        def mark(part: slice, scores: Scores) -> None:
            for row, values in scores:
                mark_hits(values, labels[part], right[row, part])

        self._visit(rows, mark)
        return right if each else right[0]

    def _visit(self, rows: Policies, consume: Callable[[slice, Scores], None]) -> None:
        """Hand out the scores of every policy for every sample, part by part; parts count from the first sample."""
        if not len(rows):
            return
        for stretch in self._data.stretches():

            def shifted(part: slice, scores: Scores, start: int = stretch.start) -> None:
                consume(slice(part.start + start, part.stop + start), scores)

            if self._may_share(rows, stretch):
                try:
                    self._replay.visit(rows, stretch, shifted)
                    continue
                except UntraceableError as reason:
                    self._give_up_sharing(str(reason))
            self._visit_plainly(rows, stretch, shifted)

    def _may_share(self, rows: Policies, stretch: Stretch) -> bool:
        return self.plain_reason is None and (len(rows) >= _WORTH_A_TAPE or self._replay.knows(stretch))

    def _give_up_sharing(self, reason: str) -> None:
        self.plain_reason = reason
        warnings.warn(f"policies are evaluated one by one, prefixes cannot be shared: {reason}", stacklevel=5)

    def _visit_plainly(self, rows: Policies, stretch: Stretch, consume: Callable[[slice, Scores], None]) -> None:
        start = 0
        for x in torch.split(stretch.x, list(stretch.lengths)):
            consume(slice(start, start + len(x)), self._plain_scores(rows, x.to(self._device)))
            start += len(x)

    def _plain_scores(self, rows: Policies, x: Tensor) -> Scores:
        for index, row in enumerate(rows.tolist()):
            with torch.no_grad():
                yield index, self._bank.scores(self._model, dict(zip(self.names, row, strict=True)), x)
