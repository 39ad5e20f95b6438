"""One policy that cannot be measured keeps nobody else from being measured.

A unit of policies that raises is halved until the one to blame is alone; that one, and any whose metric is NaN, is
recorded with its reason. An evaluator that fails for every policy is no policy's fault, and ends the run.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pareto._policies import Policies
from pareto._samples import packed, unpacked

if TYPE_CHECKING:
    from pareto.engines import Evaluate
    from pareto.store import Store

__all__ = ["Tolerant", "keep", "warn_of_failures"]

_DOUBTFUL = 8  # failures in a row that are too many to go on with the unit, or to begin with


class Tolerant:
    """An `evaluate` whose answer has two columns more: which samples were right, as bits, and why there is no result.

    Both are None where there is nothing to tell.

    Args:
        evaluate: (n, L) uint8 -> (n,) or (n, M) floats, or (n, S) booleans: which of S samples are right, the one
            metric being the percentage of these.
        metrics: the M names.
        control: (1, L) policies that were measured before, at most one: it tells whether `evaluate` works at all.

    >>> def evaluate(rows):
    ...     if (rows == 3).any():
    ...         raise ArithmeticError("diverged")
    ...     return rows.sum(axis=1)
    >>> Tolerant(evaluate, ("accuracy",), np.empty((0, 1), np.uint8))(np.array([[2], [3], [4]], np.uint8)).tolist()
    [[2.0, None, None], [nan, None, 'ArithmeticError: diverged'], [4.0, None, None]]
    """

    def __init__(self, evaluate: Evaluate, metrics: tuple[str, ...], control: Policies) -> None:
        self._evaluate, self._metrics, self._control = evaluate, metrics, control
        self._failures = 0  # since something was measured
        self._error: Exception | None = None  # the last of them

    def __call__(self, policies: Policies) -> npt.NDArray[Any]:
        """(n, M + 2) objects."""
        answer = self._halved(policies)
        if self._failures:  # nothing was measured after the last failure: is it the policies, or the evaluator?
            self._doubt()
        return answer

    def _halved(self, policies: Policies) -> npt.NDArray[Any]:
        try:
            values, correct = _measured(self._evaluate(policies))
        except Exception as error:
            if len(policies) > 1:
                half = len(policies) // 2
                return np.concatenate([self._halved(policies[:half]), self._halved(policies[half:])])
            self._failed(1, error)
            return self._answer(np.full((1, len(self._metrics)), np.nan), None, f"{type(error).__name__}: {error}")
        if values.shape != (len(policies), len(self._metrics)):
            raise ValueError(
                f"evaluate must return shape ({len(policies)}, {len(self._metrics)}), one row a policy and one column "
                f"for each of {', '.join(self._metrics)}; got {values.shape}"
            )
        right = ~np.isnan(values).any(axis=1)
        if right.any():
            self._control, self._failures = policies[right][:1], 0
        else:
            self._failed(len(policies), ValueError(f"{self._nan(values[0])} for policy {policies[0].tolist()}"))
        return self._answer(values, correct, None)

    def _answer(
        self, values: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_] | None, reason: str | None
    ) -> npt.NDArray[Any]:
        out = np.empty((len(values), values.shape[1] + 2), dtype=object)
        out[:, :-2] = values
        bits = [None] * len(values) if correct is None else packed(correct)
        for row, measured in enumerate(values):
            out[row, -2] = bits[row]
            out[row, -1] = reason or (self._nan(measured) if np.isnan(measured).any() else None)
        return out

    def _nan(self, measured: npt.NDArray[np.float64]) -> str:
        return f"{self._metrics[int(np.isnan(measured).argmax())]} is NaN"

    def _failed(self, count: int, error: Exception) -> None:
        self._failures, self._error = self._failures + count, error
        if self._failures >= _DOUBTFUL:
            self._doubt()

    def _doubt(self) -> None:
        """Raise the last error where a policy that was measured before cannot be measured any more."""
        assert self._error is not None
        if len(self._control):
            self._failures = 0
            if np.isnan(_measured(self._evaluate(self._control))[0]).any():
                raise self._error
        elif self._failures >= _DOUBTFUL:
            raise self._error


def _measured(answer: Any) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_] | None]:
    """Metrics (n, M), and which samples were right where the evaluator says so."""
    given = np.asarray(answer)
    if given.dtype == np.bool_ and given.ndim == 2:
        return 100.0 * given.mean(axis=1, dtype=np.float64)[:, None], given
    values = given.astype(np.float64)
    return values[:, None] if values.ndim == 1 else values, None


def keep(store: Store, unit: Policies, answer: npt.NDArray[Any] | str) -> None:
    """Record what a `Tolerant` has answered, or why no worker lived to ask it."""
    if isinstance(answer, str):
        store.add_failures(unit, [answer] * len(unit))
        return
    right = np.array([reason is None for reason in answer[:, -1]], dtype=np.bool_)
    if right.any():
        bits = answer[right, -2].tolist()
        correct = None if None in bits else unpacked(bits)
        store.add(unit[right], answer[right, :-2].astype(np.float64), correct=correct)
    if not right.all():
        store.add_failures(unit[~right], answer[~right, -1].tolist())


def warn_of_failures(store: Store) -> None:
    """Say how many policies have no result, and why the first has none."""
    failures = store.failures()
    if len(failures):
        first = failures.iloc[0]
        policy = {name: int(first[name]) for name in store.layers}
        warnings.warn(
            f"{store.path}: {len(failures)} {'policy has' if len(failures) == 1 else 'policies have'} failed and no "
            f"result, such as {policy} ({first['reason']}); Store.failures() lists them, retry_failed tries them again",
            stacklevel=3,
        )
