"""UPOS and LAS by the rules of the CoNLL 2018 shared task (Zeman et al. 2018), with the words as the treebank has them.

Every word counts, punctuation too. LAS asks for head and relation, and of relations only what stands before the colon:
``nsubj:pass`` is as good as ``nsubj``. Empty nodes and tokens of several words do not count. Where the words are given,
precision, recall and F1 of that task's script are one number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from waveq.zoo.datasets.conllu import Sentence, Word
from waveq.zoo.datasets.treebanks import require_tree

__all__ = ["TagsAndTrees", "score"]


@dataclass(frozen=True, kw_only=True)
class TagsAndTrees:
    """Percent of words."""

    upos: float
    """Whose tag is right."""
    uas: float
    """Whose head is right."""
    las: float
    """Whose head and universal relation are right."""


def score(gold: Sequence[Sentence], found: Sequence[Sentence]) -> TagsAndTrees:
    """Compare sentence by sentence and word by word.

    Raises:
        ValueError: other sentences or words, or one found that is no tree with one root, which that task refuses.

    Example:
        >>> gold = Sentence(words=(Word(form="Oui", upos="INTJ", head=0, deprel="root"),))
        >>> found = Sentence(words=(Word(form="Oui", upos="ADV", head=0, deprel="root"),))
        >>> score([gold], [found])
        TagsAndTrees(upos=0.0, uas=100.0, las=100.0)
    """
    pairs: list[tuple[Word, Word]] = []
    for place, (right, guess) in enumerate(zip(gold, found, strict=True), start=1):
        if [word.form for word in right.words] != [word.form for word in guess.words]:
            raise ValueError(f"sentence {place}: other words than the treebank's")
        require_tree(guess, f"sentence {place}")
        pairs.extend(zip(right.words, guess.words, strict=True))
    heads = [right.head == guess.head for right, guess in pairs]
    relations = [_universal(right) == _universal(guess) for right, guess in pairs]
    return TagsAndTrees(
        upos=_percent([right.upos == guess.upos for right, guess in pairs]),
        uas=_percent(heads),
        las=_percent([head and relation for head, relation in zip(heads, relations, strict=True)]),
    )


def _universal(word: Word) -> str:
    return word.deprel.partition(":")[0]


def _percent(hits: Sequence[bool]) -> float:
    return 100.0 * sum(hits) / len(hits)
