"""How much each layer minds: change one layer's bits at a time and evaluate again (figure 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from pareto._check import Floats
from pareto.space import MAX_BITS, Policies

__all__ = ["Evaluate", "sensitivity"]

# policies (n, L) uint8 -> (n,) scores, (n, S) booleans (one per test sample) or (n, R) scores (one per seed)
Evaluate = Callable[[Policies], npt.ArrayLike]


def sensitivity(
    policy: Mapping[str, int],
    evaluate: Evaluate,
    *,
    steps: Sequence[int] = (-1,),
    min_bits: int = 1,
    max_bits: int = MAX_BITS,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Evaluate a policy, and every policy that differs from it in one layer by one of `steps`.

    Args:
        policy: layer -> total stored bits.
        evaluate: called once with an (n, L) uint8 array, columns in the order of `policy`, row 0 being the
            policy itself. It may fine-tune or not. It returns
            - (n,) numbers: one score each, no standard error;
            - (n, R) numbers: the same score from R seeds; the standard error is that of the R paired
              differences;
            - (n, S) booleans: whether each of S test samples is right; the score is 100 x their mean
              (percent) and the standard error comes from a bootstrap over samples, paired between policies.
        steps: changes in bits; -1 is figure 5, (-1, 1) adds one bit more.
        min_bits, max_bits: changes that would leave this range have no row.
        resamples: bootstrap draws (booleans only).
        seed: of the bootstrap.

    Returns:
        One row per layer and step: layer, step, bits, changed_bits, baseline, value, change (= value -
        baseline, negative where the change harms an accuracy), standard_error (NaN where none can be had).

    Raises:
        TypeError, ValueError: a policy without layers or with bits that are no integers in range, an
            `evaluate` that returns another shape or NaN (with the policy).

    >>> table = sensitivity({"conv": 4, "fc": 2}, lambda policies: policies @ [10.0, 1.0])
    >>> table[["layer", "bits", "changed_bits", "change"]]
      layer  bits  changed_bits  change
    0  conv     4             3   -10.0
    1    fc     2             1    -1.0
    """
    names, bits = _check_policy(policy, min_bits, max_bits)
    _check_steps(steps, resamples)
    moves = [
        (layer, step) for step in steps for layer in range(len(names)) if min_bits <= bits[layer] + step <= max_bits
    ]
    policies = np.tile(np.array(bits, dtype=np.uint8), (1 + len(moves), 1))
    for row, (layer, step) in enumerate(moves, start=1):
        policies[row, layer] = bits[layer] + step
    scores = _scores(evaluate(policies), names, policies)
    values, errors = _summary(scores, resamples, seed)
    return pd.DataFrame(
        {
            "layer": [names[layer] for layer, _ in moves],
            "step": [step for _, step in moves],
            "bits": [bits[layer] for layer, _ in moves],
            "changed_bits": [bits[layer] + step for layer, step in moves],
            "baseline": values[0],
            "value": values[1:],
            "change": values[1:] - values[0],
            "standard_error": errors,
        }
    )


def _check_policy(policy: Mapping[str, int], min_bits: int, max_bits: int) -> tuple[list[str], list[int]]:
    if not isinstance(policy, Mapping):
        raise TypeError(f"policy must map layer names to bits, got {type(policy).__name__}")
    if not policy:
        raise ValueError("policy must name at least one layer, it is empty")
    if not 1 <= min_bits <= max_bits <= MAX_BITS:
        raise ValueError(f"1 <= min_bits <= max_bits <= {MAX_BITS} must hold, got {min_bits} and {max_bits}")
    for name, width in policy.items():
        if isinstance(width, bool) or not isinstance(width, (int, np.integer)):
            raise TypeError(f"policy[{name!r}] must be an integer, got {width!r}")
        if not min_bits <= width <= max_bits:
            raise ValueError(f"policy[{name!r}] must lie in {min_bits}..{max_bits}, got {width}")
    return list(policy), [int(width) for width in policy.values()]


def _check_steps(steps: Sequence[int], resamples: int) -> None:
    if not len(steps) or any(not isinstance(step, (int, np.integer)) or step == 0 for step in steps):
        raise ValueError(f"steps must be integers other than 0, such as (-1, 1), got {steps!r}")
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {resamples}")


def _scores(returned: npt.ArrayLike, names: Sequence[str], policies: Policies) -> npt.NDArray[Any]:
    scores = np.asarray(returned)
    if scores.ndim not in (1, 2) or len(scores) != len(policies):
        raise ValueError(
            f"evaluate must return shape ({len(policies)},) or ({len(policies)}, repeats), it returned {scores.shape}"
        )
    if scores.ndim == 2 and scores.shape[1] == 0:
        raise ValueError("evaluate returned no repeats: shape " + str(scores.shape))
    if scores.dtype == bool:
        return scores if scores.ndim == 2 else scores[:, None]
    scores = scores.astype(np.float64)
    wrong = np.argwhere(np.isnan(scores))
    if wrong.size:
        policy = dict(zip(names, policies[wrong[0][0]].tolist(), strict=True))
        raise ValueError(f"evaluate returned NaN for policy {policy}")
    return scores


def _summary(scores: npt.NDArray[Any], resamples: int, seed: int) -> tuple[Floats, Floats]:
    """The score of every row, and the standard error of each row's difference from row 0."""
    if scores.ndim == 1:
        return scores, np.full(len(scores) - 1, np.nan)
    if scores.dtype == bool:
        return 100.0 * scores.mean(axis=1), 100.0 * _bootstrap(scores, resamples, seed)
    values = scores.mean(axis=1)
    repeats = scores.shape[1]
    if repeats == 1:
        return values, np.full(len(scores) - 1, np.nan)
    differences = scores[1:] - scores[0]
    return values, differences.std(axis=1, ddof=1) / np.sqrt(repeats)


def _bootstrap(correct: npt.NDArray[np.bool_], resamples: int, seed: int) -> Floats:
    """Standard error of mean(correct[i]) - mean(correct[0]) over draws of samples with replacement.

    A resample matters only through how many of its S draws fall on samples lost, kept and won, which is
    multinomial: drawing those three counts is the same bootstrap without S x resamples indices.
    """
    generator = np.random.default_rng(seed)
    samples = correct.shape[1]
    lost = (correct[0] & ~correct[1:]).sum(axis=1) / samples
    won = (~correct[0] & correct[1:]).sum(axis=1) / samples
    errors = np.empty(len(lost))
    for row in range(len(lost)):
        shares = np.array([lost[row], won[row], max(0.0, 1.0 - lost[row] - won[row])])
        draws = generator.multinomial(samples, shares / shares.sum(), size=resamples)
        errors[row] = ((draws[:, 1] - draws[:, 0]) / samples).std(ddof=1)
    return errors
