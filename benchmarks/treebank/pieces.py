"""Words to pieces of words: WordPiece here, other vocabularies through the package ``tokenizers``."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, Protocol

__all__ = ["PackagePieces", "Pieces", "WordPiece", "pieces_of"]


_CHINESE = (
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2CEAF),
    (0x2F800, 0x2FA1F),
)


class Pieces(Protocol):
    """What is wanted of a vocabulary."""

    begin: int
    """What stands before a sentence."""
    end: int
    """What stands after it."""

    def of(self, word: str) -> list[int]:
        """The numbers of a word's pieces, one at least."""


class WordPiece:
    """BERT's pieces (Devlin et al. 2019): accents and case dropped if so told, punctuation cut off, then the longest
    piece of the vocabulary again and again; a part that cannot be put together is [UNK].

    Example:
        >>> vocabulary = {name: i for i, name in enumerate(["[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able", "."])}
        >>> WordPiece(vocabulary, lowercase=True).of("Unaffâble.")
        [3, 4, 5, 6]
    """

    longest_part = 100

    def __init__(self, vocabulary: Mapping[str, int], *, lowercase: bool, strip_accents: bool | None = None) -> None:
        self._vocabulary = vocabulary
        self._lowercase = lowercase
        self._strip_accents = lowercase if strip_accents is None else strip_accents
        self.begin, self.end, self._unknown = (vocabulary[name] for name in ("[CLS]", "[SEP]", "[UNK]"))

    def of(self, word: str) -> list[int]:
        """See ``Pieces``."""
        found = [number for part in _parts(self._normal(word)) for number in self._pieces(part)]
        return found or [self._unknown]

    def _normal(self, word: str) -> str:
        if self._strip_accents:
            word = "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn")
        # letter by letter: at the end of a word Python has another small sigma than the vocabularies' makers had
        return "".join(c.lower() for c in word) if self._lowercase else word

    def _pieces(self, part: str) -> list[int]:
        if len(part) > self.longest_part:
            return [self._unknown]
        found: list[int] = []
        start = 0
        while start < len(part):
            prefix = "##" if start else ""
            ends = (end for end in range(len(part), start, -1) if prefix + part[start:end] in self._vocabulary)
            end = next(ends, None)
            if end is None:
                return [self._unknown]
            found.append(self._vocabulary[prefix + part[start:end]])
            start = end
        return found


class PackagePieces:
    """Any ``tokenizer.json``, such as CamemBERT's SentencePiece."""

    def __init__(self, content: str, *, where: str) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError:
            raise ValueError(f"{where}: pieces other than WordPiece need pip install tokenizers") from None
        self._tokenizer = Tokenizer.from_str(content)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.begin, self.end = self._tokenizer.encode("").ids

    def of(self, word: str) -> list[int]:
        """See ``Pieces``."""
        found: list[int] = self._tokenizer.encode([word], is_pretokenized=True, add_special_tokens=False).ids
        return found or [self.end]


def pieces_of(told: Mapping[str, Any], content: str, *, where: str) -> Pieces:
    """The vocabulary of a ``tokenizer.json``.

    Args:
        told: the file, parsed.
        content: the file.
        where: its name, for errors.

    Raises:
        ValueError: it needs a package that is not installed, or lacks a field.
    """
    model, normalizer = told.get("model") or {}, told.get("normalizer") or {}
    if model.get("type") != "WordPiece" or normalizer.get("type") != "BertNormalizer":
        return PackagePieces(content, where=where)
    try:
        return WordPiece(
            model["vocab"], lowercase=normalizer["lowercase"], strip_accents=normalizer.get("strip_accents")
        )
    except KeyError as error:
        raise ValueError(f"{where}: field {error} is missing") from None


def _parts(word: str) -> list[str]:
    """Cut at spaces, and before and after each punctuation mark and each Chinese character; control characters go."""
    parts: list[str] = []
    new = True
    for c in word:
        category = unicodedata.category(c)
        if c.isspace():
            new = True
        elif category in ("Cc", "Cf") or c == "\ufffd":
            continue
        elif category.startswith("P") or _ascii_symbol(c) or any(low <= ord(c) <= high for low, high in _CHINESE):
            parts.append(c)
            new = True
        elif new:
            parts.append(c)
            new = False
        else:
            parts[-1] += c
    return parts


def _ascii_symbol(c: str) -> bool:
    """BERT counts $, +, ^ and the like as punctuation."""
    return "!" <= c <= "~" and not c.isalnum()
