"""The best tree with one root: Chu-Liu and Edmonds' algorithm on scores of head and dependant.

McDonald et al. 2005 (Non-projective dependency parsing using spanning tree algorithms). That one word alone hangs from
the root, as the usual evaluation wants it, is had by lowering all scores of the root by more than any two trees can
differ (Stanojević and Cohen 2021, Root mention, arXiv 2106.07306): the best tree then has as few roots as can be.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["best_heads"]

Scores = npt.NDArray[np.float64]
Heads = npt.NDArray[np.int64]


def best_heads(scores: npt.NDArray[np.floating]) -> list[int]:
    """The heads of words 1 to n in the tree of the largest sum of scores in which one word has head 0.

    Args:
        scores: float (n + 1, n + 1), of each dependant (row) and head (column), 0 the root; its first row and its
            diagonal do not count.

    Raises:
        ValueError: no square array of finite numbers.

    Example:
        >>> best_heads(np.array([[0, 0, 0], [5, 0, 1], [4, 3, 0]]))
        [0, 1]
    """
    own: Scores = np.array(scores, dtype=np.float64)
    if own.ndim != 2 or own.shape[0] != own.shape[1] or not np.isfinite(own).all():
        raise ValueError(f"scores: a square array of finite numbers is expected, not shape {own.shape}")
    if len(own) == 1:
        return []
    np.fill_diagonal(own, -np.inf)
    finite = own[1:][np.isfinite(own[1:])]
    own[1:, 0] -= (len(own) + 1) * (finite.max() - finite.min() + 1.0)
    return [int(head) for head in _tree(own)[1:]]


def _tree(scores: Scores) -> Heads:
    """Heads of the best tree, with -1 for the root; a cycle is drawn together into one word and the rest solved."""
    heads: Heads = scores.argmax(1)
    heads[0] = -1
    cycle = _cycle(heads)
    if cycle is None:
        return heads
    inside = np.zeros(len(heads), dtype=bool)
    inside[cycle] = True
    outside = np.flatnonzero(~inside)  # keeps its order, so that the root stays first
    count = len(outside)
    kept = scores[cycle, heads[cycle]]
    small = np.full((count + 1, count + 1), -np.inf)
    small[:count, :count] = scores[np.ix_(outside, outside)]
    # into the cycle: what is won by breaking it at the word that the arc leads to
    entering = scores[np.ix_(cycle, outside)] - kept[:, None]
    small[count, :count] = entering.max(0)
    leaving = scores[np.ix_(outside, cycle)]
    small[:count, count] = leaving.max(1)
    small[0] = -np.inf
    found = _tree(small)
    for place, word in enumerate(outside):
        if word:
            above = found[place]
            heads[word] = cycle[leaving[place].argmax()] if above == count else outside[above]
    above = found[count]
    broken = entering[:, above].argmax()
    heads[cycle[broken]] = outside[above]
    return heads


def _cycle(heads: Heads) -> Heads | None:
    """The words of one cycle, or None."""
    seen = np.zeros(len(heads), dtype=np.int64)  # in which walk, from 1
    for start in range(1, len(heads)):
        word = start
        while word > 0 and not seen[word]:
            seen[word] = start
            word = heads[word]
        if word > 0 and seen[word] == start:
            cycle = [word]
            while heads[cycle[-1]] != word:
                cycle.append(heads[cycle[-1]])
            return np.array(cycle)
    return None
