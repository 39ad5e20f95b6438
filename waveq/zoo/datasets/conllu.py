"""CoNLL-U, the format of treebanks: sentences of words with tags, heads and relations, read and written.

The format as it stands at https://universaldependencies.org/format.html (version 2): ten fields a line, separated by
tabs; lines for words (``3``), for tokens of several words (``3-4``) and for empty nodes (``3.1``); comments before a
sentence, a blank line after it. What is read can be written back without a change. Tags, features and enhanced
dependencies are kept as they stand: whether they are those of Universal Dependencies is not asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from waveq._files import write_text
from waveq._reading import read_text

__all__ = ["EmptyNode", "MultiwordToken", "Sentence", "Word", "parse_conllu", "read_conllu", "write_conllu"]

_FIELDS = ("ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC")
_MAY_HOLD_SPACES = ("FORM", "LEMMA", "MISC")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")  # int() takes 03 and other scripts' digits, and refuses thousands of them
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Word:
    """A syntactic word, what parsers are judged by; its ID is its place in the sentence, from 1. ``_``: not given."""

    form: str
    lemma: str = "_"
    upos: str = "_"
    xpos: str = "_"
    feats: str = "_"
    head: int | None = None
    """ID of the head, 0 for the root; None where the file says nothing."""
    deprel: str = "_"
    deps: str = "_"
    misc: str = "_"


@dataclass(frozen=True, kw_only=True)
class MultiwordToken:
    """What is written as one and counts as several words: French "du", which is "de" and "le"."""

    first: int
    """ID of its first word."""
    last: int
    """ID of its last word."""
    form: str
    feats: str = "_"
    misc: str = "_"


@dataclass(frozen=True, kw_only=True)
class EmptyNode:
    """A word that is not said, of enhanced dependencies: ID ``after.number``. It has no head, parsers do not see it."""

    after: int
    """ID of the word that it follows, 0 for none."""
    number: int
    """From 1, where several follow one word."""
    form: str = "_"
    lemma: str = "_"
    upos: str = "_"
    xpos: str = "_"
    feats: str = "_"
    deps: str = "_"
    misc: str = "_"


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """A sentence; the basic tree is that of its words."""

    words: tuple[Word, ...]
    multiword_tokens: tuple[MultiwordToken, ...] = ()
    """In the order of their words."""
    empty_nodes: tuple[EmptyNode, ...] = ()
    """In the order of their IDs."""
    comments: tuple[str, ...] = ()
    """What stands after the # of each line."""

    def __len__(self) -> int:
        return len(self.words)

    @property
    def metadata(self) -> dict[str, str]:
        """Comments of the form "# key = value", such as ``sent_id`` and ``text``; of a key given twice the last.

        Example:
            >>> Sentence(words=(), comments=(" sent_id = a-1", " said aloud")).metadata
            {'sent_id': 'a-1'}
        """
        pairs = (comment.partition("=") for comment in self.comments if "=" in comment)
        return {key.strip(): value.strip() for key, _, value in pairs}

    def lines(self) -> Iterator[str]:
        """Its lines in a file, without the blank one after it.

        Example:
            >>> print(*Sentence(words=(Word(form="Oui", upos="INTJ", head=0, deprel="root"),)).lines())
            1 Oui _ INTJ _ _ 0 root _ _
        """
        yield from (f"#{comment}" for comment in self.comments)
        yield from (_empty_line(node) for node in self.empty_nodes if node.after == 0)
        for place, word in enumerate(self.words, start=1):
            for token in self.multiword_tokens:
                if token.first == place:
                    name = f"{token.first}-{token.last}"
                    yield "\t".join((name, token.form, "_", "_", "_", token.feats, "_", "_", "_", token.misc))
            head = "_" if word.head is None else str(word.head)
            own = (word.form, word.lemma, word.upos, word.xpos, word.feats, head, word.deprel, word.deps, word.misc)
            yield "\t".join((str(place), *own))
            yield from (_empty_line(node) for node in self.empty_nodes if node.after == place)


def read_conllu(path: Path | str) -> list[Sentence]:
    """The sentences of a CoNLL-U file.

    Args:
        path: a regular file in UTF-8; its lines may end as on Windows.

    Raises:
        ValueError: not there, or not CoNLL-U; the message names the file and the line.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_conllu(f"{folder}/a.conllu", [Sentence(words=(Word(form="Oui"),))])
        ...     read_conllu(f"{folder}/a.conllu")[0].words[0].form
        'Oui'
    """
    try:
        text = read_text(path, most_bytes=_MOST_BYTES)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    return parse_conllu(text, where=str(path))


def write_conllu(path: Path | str, sentences: Iterable[Sentence]) -> None:
    """Write sentences, all at once.

    Raises:
        ValueError: one that CoNLL-U cannot say, for instance with a tab in a field; nothing is written then.
        OSError: the file cannot be written.
    """
    sentences = list(sentences)
    text = "".join("\n".join(sentence.lines()) + "\n\n" for sentence in sentences)
    if parse_conllu(text, where=f"{path}, not written") != sentences:
        raise ValueError(f"{path}, not written: a field, a comment or an ID would be read back as something else")
    write_text(path, text)


def parse_conllu(text: str, *, where: str = "text") -> list[Sentence]:
    """The sentences in a text.

    Args:
        text: lines that end in LF, or in CR and LF; the last blank line may be missing.
        where: what errors name before the line.

    Raises:
        ValueError: not CoNLL-U; the message names the line, what stands there and what was expected.

    Example:
        >>> du_pain = '''1-2 du _ _ _ _ _ _ _ _
        ... 1 de de ADP _ _ 3 case _ _
        ... 2 le le DET _ _ 3 det _ _
        ... 3 pain pain NOUN _ _ 0 root _ _'''
        >>> (sentence,) = parse_conllu(du_pain.replace(" ", "\\t"))
        >>> [word.form for word in sentence.words], sentence.multiword_tokens[0].form
        (['de', 'le', 'pain'], 'du')
        >>> parse_conllu("1 de _", where="a.conllu")
        Traceback (most recent call last):
        ValueError: a.conllu:1: 10 fields separated by tabs are expected, not 1
    """
    sentences: list[Sentence] = []
    reading = _Reading(where)
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines() would split at U+2028 too
        reading.number = number
        if line := line.removesuffix("\r"):
            reading.take(line)
        elif reading.begun:
            sentences.append(reading.end())
    if reading.begun:
        sentences.append(reading.end())
    return sentences


def _empty_line(node: EmptyNode) -> str:
    name = f"{node.after}.{node.number}"
    own = (node.form, node.lemma, node.upos, node.xpos, node.feats)
    return "\t".join((name, *own, "_", "_", node.deps, node.misc))


class _Reading:
    """What has been read of one sentence; ``number`` is the line's."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.number = 0
        self._forget()

    def _forget(self) -> None:
        self._comments: list[str] = []
        self._words: list[Word] = []
        self._word_lines: list[int] = []
        self._tokens: list[MultiwordToken] = []
        self._empty: list[EmptyNode] = []

    @property
    def begun(self) -> bool:
        """Whether a sentence is under way."""
        return bool(self._comments or self._words or self._tokens or self._empty)

    def take(self, line: str) -> None:
        if line.startswith("#"):
            if self._words or self._tokens or self._empty:
                raise self._error("a comment within a sentence; comments come before its first word")
            self._comments.append(line[1:])
            return
        fields = self._fields(line)
        name = fields[0]
        if _NUMBER.fullmatch(name):
            self._word(fields)
        elif "-" in name:
            self._token(fields)
        elif "." in name:
            self._empty_node(fields)
        else:
            raise self._error(f"ID {name!r} where a number, a range such as 3-4 or one such as 3.1 is expected")

    def end(self) -> Sentence:
        if not self._words:
            raise self._error("a sentence without words ends here")
        self._require_token_begun()
        last = max((token.last for token in self._tokens), default=0)
        if last > len(self._words):
            raise self._error(f"a token goes on to word {last}, but the sentence ends with word {len(self._words)}")
        for number, word in zip(self._word_lines, self._words, strict=True):
            if word.head is not None and word.head > len(self._words):
                self.number = number
                raise self._error(f"HEAD is {word.head}, but the sentence has {len(self._words)} words")
        sentence = Sentence(
            words=tuple(self._words),
            multiword_tokens=tuple(self._tokens),
            empty_nodes=tuple(self._empty),
            comments=tuple(self._comments),
        )
        self._forget()
        return sentence

    def _fields(self, line: str) -> Sequence[str]:
        fields = line.split("\t")
        if len(fields) != len(_FIELDS):
            raise self._error(f"{len(_FIELDS)} fields separated by tabs are expected, not {len(fields)}")
        for name, value in zip(_FIELDS, fields, strict=True):
            if not value:
                raise self._error(f"{name} is empty; what is not given is written _")
            if " " in value and name not in _MAY_HOLD_SPACES:
                raise self._error(f"{name} {value!r} holds a space")
        return fields

    def _word(self, fields: Sequence[str]) -> None:
        name, form, lemma, upos, xpos, feats, head, deprel, deps, misc = fields
        place = len(self._words) + 1
        if int(name) != place:
            raise self._error(f"ID {name} where word {place} is expected")
        if head != "_" and not _NUMBER.fullmatch(head):
            raise self._error(f"HEAD {head!r} where the ID of a word, 0 or _ is expected")
        found = None if head == "_" else int(head)
        if found == place:
            raise self._error(f"HEAD of word {place} is the word itself")
        word = Word(
            form=form,
            lemma=lemma,
            upos=upos,
            xpos=xpos,
            feats=feats,
            head=found,
            deprel=deprel,
            deps=deps,
            misc=misc,
        )
        self._words.append(word)
        self._word_lines.append(self.number)

    def _token(self, fields: Sequence[str]) -> None:
        first, last = self._pair(fields[0], "-")
        if first != len(self._words) + 1 or last < first:
            raise self._error(f"ID {fields[0]} where a range that begins with {len(self._words) + 1} is expected")
        if self._tokens and first <= self._tokens[-1].last:
            raise self._error(f"token {fields[0]} begins within token {self._tokens[-1].first}-{self._tokens[-1].last}")
        self._require_nothing(fields, ("LEMMA", "UPOS", "XPOS", "HEAD", "DEPREL", "DEPS"), "a token of several words")
        self._tokens.append(MultiwordToken(first=first, last=last, form=fields[1], feats=fields[5], misc=fields[9]))

    def _empty_node(self, fields: Sequence[str]) -> None:
        after, number = self._pair(fields[0], ".")
        self._require_token_begun()
        before = self._empty[-1].number if self._empty and self._empty[-1].after == len(self._words) else 0
        if (after, number) != (len(self._words), before + 1):
            raise self._error(f"ID {fields[0]} where {len(self._words)}.{before + 1} is expected")
        self._require_nothing(fields, ("HEAD", "DEPREL"), "an empty node")
        form, lemma, upos, xpos, feats = fields[1:6]
        deps, misc = fields[8:]
        node = EmptyNode(
            after=after,
            number=number,
            form=form,
            lemma=lemma,
            upos=upos,
            xpos=xpos,
            feats=feats,
            deps=deps,
            misc=misc,
        )
        self._empty.append(node)

    def _pair(self, name: str, separator: str) -> tuple[int, int]:
        parts = name.split(separator)
        if len(parts) != 2 or not all(_NUMBER.fullmatch(part) for part in parts):
            raise self._error(f"ID {name!r} where two numbers with {separator!r} between them are expected")
        return int(parts[0]), int(parts[1])

    def _require_token_begun(self) -> None:
        if self._tokens and self._tokens[-1].first > len(self._words):
            raise self._error(f"token {self._tokens[-1].first}-{self._tokens[-1].last} has no words right after it")

    def _require_nothing(self, fields: Sequence[str], names: Sequence[str], what: str) -> None:
        for name in names:
            if (value := fields[_FIELDS.index(name)]) != "_":
                raise self._error(f"{name} of {what} is {value!r} where _ is expected")

    def _error(self, why: str) -> ValueError:
        return ValueError(f"{self.where}:{self.number}: {why}")
