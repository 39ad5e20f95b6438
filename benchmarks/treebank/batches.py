"""Sentences as numbers: pieces, and for each word its first piece, tag, head and relation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.treebank.pieces import Pieces
from waveq.zoo.datasets.conllu import Sentence

__all__ = ["IGNORED", "Batch", "Example", "Labels", "batches", "encode", "endless"]

IGNORED = -100
"""In place of a tag, head or relation that no loss counts: padding, the root, labels that training does not have."""


@dataclass(frozen=True)
class Labels:
    """The tags and relations of the training part, in the order of the alphabet."""

    tags: tuple[str, ...]
    relations: tuple[str, ...]

    @classmethod
    def of(cls, sentences: Sequence[Sentence]) -> Labels:
        """Those that occur."""
        words = [word for sentence in sentences for word in sentence.words]
        return cls(tuple(sorted({word.upos for word in words})), tuple(sorted({word.deprel for word in words})))


@dataclass(frozen=True)
class Example:
    """A sentence; the first entry of all but the pieces is the root's, whose piece is the one before the sentence."""

    pieces: list[int]
    first: list[int]
    tags: list[int]
    heads: list[int]
    relations: list[int]


@dataclass(frozen=True)
class Batch:
    """Sentences side by side, padded: int64 and bool tensors of shape (B, T) for pieces and (B, W) for words."""

    pieces: Tensor
    present: Tensor
    first: Tensor
    words: Tensor
    """True where there is a word or the root."""
    tags: Tensor
    heads: Tensor
    relations: Tensor


def encode(sentences: Sequence[Sentence], pieces: Pieces, labels: Labels, *, most_pieces: int) -> list[Example]:
    """Sentences as numbers.

    Raises:
        ValueError: a sentence with more pieces than the encoder takes.
    """
    tags = {name: number for number, name in enumerate(labels.tags)}
    relations = {name: number for number, name in enumerate(labels.relations)}
    known: dict[str, list[int]] = {}
    examples = []
    for place, sentence in enumerate(sentences, start=1):
        numbers, first = [pieces.begin], [0]
        for word in sentence.words:
            if word.form not in known:
                known[word.form] = pieces.of(word.form)
            first.append(len(numbers))
            numbers.extend(known[word.form])
        numbers.append(pieces.end)
        if len(numbers) > most_pieces:
            raise ValueError(f"sentence {place} has {len(numbers)} pieces; the encoder takes {most_pieces}")
        examples.append(
            Example(
                numbers,
                first,
                [IGNORED, *(tags.get(word.upos, IGNORED) for word in sentence.words)],
                [IGNORED, *(IGNORED if word.head is None else word.head for word in sentence.words)],
                [IGNORED, *(relations.get(word.deprel, IGNORED) for word in sentence.words)],
            )
        )
    return examples


def batches(examples: Sequence[Example], size: int, device: str, order: Sequence[int]) -> Iterator[Batch]:
    """All examples in an order, ``size`` sentences at a time; the last batch may have fewer."""
    for start in range(0, len(order), size):
        chosen = [examples[number] for number in order[start : start + size]]
        pieces = _padded([each.pieces for each in chosen], 0, device)
        words = _padded([each.first for each in chosen], IGNORED, device)
        yield Batch(
            pieces=pieces,
            present=_padded([[1] * len(each.pieces) for each in chosen], 0, device).bool(),
            first=words.clamp_min(0),
            words=words != IGNORED,
            tags=_padded([each.tags for each in chosen], IGNORED, device),
            heads=_padded([each.heads for each in chosen], IGNORED, device),
            relations=_padded([each.relations for each in chosen], IGNORED, device),
        )


def endless(examples: Sequence[Example], size: int, device: str, generator: torch.Generator) -> Iterator[Batch]:
    """Full batches for ever, shuffled anew for each pass; sentences of like length are together, to save padding."""
    while True:
        shuffled = torch.randperm(len(examples), generator=generator).tolist()
        by_length = sorted(shuffled, key=lambda number: len(examples[number].pieces))
        starts = list(range(0, len(examples) - size + 1, size))
        for place in torch.randperm(len(starts), generator=generator).tolist():
            yield from batches(examples, size, device, by_length[starts[place] : starts[place] + size])


def _padded(rows: Sequence[Sequence[int]], filling: int, device: str) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filling] * (longest - len(row))] for row in rows], device=device)
