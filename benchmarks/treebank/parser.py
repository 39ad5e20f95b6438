"""A tagger and a biaffine parser on an encoder (Dozat and Manning 2017, Deep biaffine attention, arXiv 1611.01734)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.treebank.batches import IGNORED, Batch, Example, Labels, batches
from benchmarks.treebank.encoder import Encoder
from benchmarks.treebank.trees import best_heads
from waveq.zoo.datasets.conllu import Sentence

__all__ = ["Parser", "Vectors", "parsed"]


@dataclass(frozen=True)
class Vectors:
    """What the heads make of the words: float tensors."""

    tags: Tensor
    """(B, W, tags)."""
    heads: Tensor
    """(B, W, W): score of each dependant (row) and head (column); minus infinity where there is no word."""
    as_dependant: Tensor
    """(B, W, size), for relations."""
    as_head: Tensor
    """(B, W, size), for relations."""


class Biaffine(nn.Module):
    """x^T U y + a^T x + b^T y + c for each of ``out`` labels; begins at zero, where all are alike."""

    def __init__(self, size: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(out, size + 1, size + 1))

    def pairs(self, x: Tensor, y: Tensor) -> Tensor:
        """Scores (B, W, V, out) of all pairs of x (B, W, size) and y (B, V, size)."""
        return torch.einsum("bxi,oij,byj->bxyo", _with_one(x), self.weight, _with_one(y))

    def matched(self, x: Tensor, y: Tensor) -> Tensor:
        """Scores (B, W, out) of each x with the y of its own place."""
        return torch.einsum("bxi,oij,bxj->bxo", _with_one(x), self.weight, _with_one(y))


class Parser(nn.Module):
    """Tags and trees from the vector of each word's first piece; the root has that of the piece before the sentence."""

    def __init__(self, encoder: Encoder, labels: Labels, *, arc_size: int, relation_size: int, dropout: float) -> None:
        super().__init__()
        size = encoder.config.hidden_size
        self.encoder = encoder
        self.labels = labels
        self.dropout = nn.Dropout(dropout)
        self.tag = nn.Linear(size, len(labels.tags))
        self.arc_dependant = nn.Linear(size, arc_size)
        self.arc_head = nn.Linear(size, arc_size)
        self.arc = Biaffine(arc_size, 1)
        self.relation_dependant = nn.Linear(size, relation_size)
        self.relation_head = nn.Linear(size, relation_size)
        self.relation = Biaffine(relation_size, len(labels.relations))

    def forward(self, batch: Batch) -> Vectors:
        """Scores and vectors of a batch."""
        encoded = self.encoder(batch.pieces, batch.present)
        words = encoded.gather(1, batch.first[:, :, None].expand(-1, -1, encoded.shape[2]))
        words = self.dropout(words)
        parts = (self.arc_dependant, self.arc_head, self.relation_dependant, self.relation_head)
        arc_dependant, arc_head, dependant, head = (self.dropout(F.gelu(part(words))) for part in parts)
        heads = self.arc.pairs(arc_dependant, arc_head).squeeze(3)
        return Vectors(self.tag(words), heads.masked_fill(~batch.words[:, None, :], -torch.inf), dependant, head)

    def relations(self, vectors: Vectors, heads: Tensor) -> Tensor:
        """Scores (B, W, relations) of each word with its head, int64 (B, W)."""
        size = vectors.as_head.shape[2]
        chosen = vectors.as_head.gather(1, heads[:, :, None].expand(-1, -1, size))
        return self.relation.matched(vectors.as_dependant, chosen)

    def loss(self, batch: Batch) -> Tensor:
        """The sum of three cross-entropies, each a mean over words: tags, heads, relations to the right heads."""
        vectors = self(batch)
        relations = self.relations(vectors, batch.heads.clamp_min(0))
        terms = ((vectors.tags, batch.tags), (vectors.heads, batch.heads), (relations, batch.relations))
        return torch.stack([_cross_entropy(scores, labels) for scores, labels in terms]).sum()


@torch.no_grad()
def parsed(
    parser: Parser, examples: Sequence[Example], sentences: Sequence[Sentence], *, size: int = 32
) -> list[Sentence]:
    """The sentences with the parser's tags and trees: the best tree with one root, then each word's best relation."""
    was_training = parser.training
    parser.eval()
    device = next(parser.parameters()).device.type
    order = sorted(range(len(examples)), key=lambda number: len(examples[number].pieces))
    rows = (row for batch in batches(examples, size, device, order) for row in _answers(parser, batch))
    found = dict(zip(order, rows, strict=True))
    parser.train(was_training)
    return [_answered(sentence, found[place], parser.labels) for place, sentence in enumerate(sentences)]


def _answers(parser: Parser, batch: Batch) -> Iterator[tuple[list[int], list[int], list[int]]]:
    """Tags, heads and relations of each sentence's words."""
    vectors = parser(batch)
    counts = batch.words.sum(1).tolist()
    scores = vectors.heads.double().log_softmax(2).cpu().numpy()
    heads = torch.zeros_like(batch.heads)
    for place, count in enumerate(counts):
        heads[place, 1:count] = torch.tensor(best_heads(scores[place, :count, :count]), device=heads.device)
    tags, relations = vectors.tags.argmax(2), parser.relations(vectors, heads).argmax(2)
    for place, count in enumerate(counts):
        tag, head, relation = (each[place, 1:count].tolist() for each in (tags, heads, relations))
        yield tag, head, relation


def _answered(sentence: Sentence, answers: tuple[list[int], list[int], list[int]], labels: Labels) -> Sentence:
    words = tuple(
        replace(word, upos=labels.tags[tag], head=head, deprel=labels.relations[relation])
        for word, tag, head, relation in zip(sentence.words, *answers, strict=True)
    )
    return replace(sentence, words=words)


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1)


def _cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(scores.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
