"""Policies that give bits to weights and to inputs, evaluated by one evaluator for each choice of input bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from waveq.method.operand_names import input_name

if TYPE_CHECKING:
    from waveq.evaluate.evaluator import PolicyEvaluator
    from waveq.evaluate.finetune import PolicyFinetuner

__all__ = ["PairEvaluator"]

Policies = npt.NDArray[np.uint8]


class PairEvaluator:
    """Accuracy of policies whose columns are weights and inputs.

    Policies with the same input bits are handed to one evaluator, which is made for them and forgotten afterwards.

    Args:
        make: from input bits by layer to an evaluator with these, a PolicyEvaluator or PolicyFinetuner.
        inputs: the layers whose inputs have columns.

    Attributes:
        names: the columns: weights, then inputs ("conv1 (inputs)").

    Example:
        >>> import torch; from torch import nn; from waveq import PolicyEvaluator
        >>> _ = torch.manual_seed(0)
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        >>> data = torch.randn(50, 4), torch.randint(3, (50,))
        >>> pairs = PairEvaluator(lambda inputs: PolicyEvaluator(net, data, activation_bits=inputs), ["2"])
        >>> pairs.names, pairs.accuracy([[2, 2, 4], [8, 8, 8]]).shape
        (('0', '2', '2 (inputs)'), (2,))
    """

    def __init__(
        self, make: Callable[[Mapping[str, int]], PolicyEvaluator | PolicyFinetuner], inputs: Sequence[str]
    ) -> None:
        self._make, self._inputs = make, tuple(inputs)
        first = make(dict.fromkeys(self._inputs, 8))
        self._weights = len(first.names)
        self.names = (*first.names, *map(input_name, self._inputs))

    def accuracy(self, policies: Any) -> npt.NDArray[np.float64]:
        """Shares of samples that are classified right, (N,) float64.

        Args:
            policies: (N, columns) array of bits with the columns of ``names``, or mappings of these names.
        """
        return self._by_inputs(policies, lambda evaluator, rows: evaluator.accuracy(rows))

    def losses(self, policies: Any) -> npt.NDArray[np.float64]:
        """Mean cross-entropy in nats, (N,) float64; of a PolicyEvaluator alone."""
        return self._by_inputs(policies, lambda evaluator, rows: evaluator.losses(rows))

    def correct(self, policies: Any) -> npt.NDArray[np.bool_]:
        """Which samples are classified right, (N, samples) bool."""
        return self._by_inputs(policies, _correct)

    def _by_inputs(self, policies: Any, ask: Callable[[Any, Policies], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        rows = self._rows(policies)
        choices, which = np.unique(rows[:, self._weights :], axis=0, return_inverse=True)
        found: npt.NDArray[Any] | None = None
        for place, bits in enumerate(choices.tolist()):
            mine = np.flatnonzero(which.reshape(-1) == place)
            evaluator = self._make(dict(zip(self._inputs, bits, strict=True)))
            values = ask(evaluator, np.ascontiguousarray(rows[mine, : self._weights]))
            if found is None:
                found = np.empty((len(rows), *values.shape[1:]), dtype=values.dtype)
            found[mine] = values
        return np.empty(0) if found is None else found

    def _rows(self, policies: Any) -> Policies:
        if isinstance(policies, Mapping):
            policies = [policies]
        if not isinstance(policies, np.ndarray) and len(policies) and isinstance(policies[0], Mapping):
            missing = [name for name in self.names if name not in policies[0]]
            if missing:
                raise ValueError(f"a policy has no bits for {missing[0]!r}; the columns are {', '.join(self.names)}")
            policies = [[policy[name] for name in self.names] for policy in policies]
        rows = np.asarray(policies)
        if rows.ndim != 2 or rows.shape[1] != len(self.names):
            raise ValueError(f"policies must have shape (N, {len(self.names)}), one column for each of {self.names}")
        return rows.astype(np.uint8)


def _correct(evaluator: Any, rows: Policies) -> npt.NDArray[np.bool_]:
    if hasattr(evaluator, "predictions"):
        found: npt.NDArray[np.bool_] = evaluator.correct(rows, each=True)
        return found
    return np.asarray(evaluator.correct(rows))
