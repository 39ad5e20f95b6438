"""Treebanks by name or folder: found, read, cut into parts. Sentences with tags and trees, where others have images."""

from __future__ import annotations

import importlib.util
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from waveq._names import by_name
from waveq.zoo.datasets.conllu import Sentence, read_conllu
from waveq.zoo.datasets.sources import data_root

__all__ = ["TREEBANKS", "Treebank", "TreebankSource", "load_treebank", "require_tree"]

_PARTS = {"train": "train", "validation": "dev", "test": "test"}  # our words and Universal Dependencies'


@dataclass(frozen=True, kw_only=True)
class TreebankSource:
    """A treebank's files and where they are looked for."""

    name: str
    summary: str
    folders: tuple[str, ...]
    """Below the data directory, in the order in which they are looked into."""
    files: tuple[str, ...]
    """Each a name, or one with {part}, which is train, dev and test: the forms in which the treebank is published."""
    how_to_get: str
    package: str = ""
    """An installed package that brings the files in a folder ``data`` beside it."""

    def places(self, root: Path) -> tuple[Path, ...]:
        """Every folder that is looked into, in order."""
        return (*(root / folder for folder in self.folders), *_beside(self.package))

    def find(self, root: Path) -> dict[str, Path] | None:
        """The file of each part, all in one folder; None where they are not there."""
        for place in self.places(root):
            for file in self.files:
                found = {part: place / file.format(part=ud) for part, ud in _PARTS.items()}
                if all(path.is_file() for path in found.values()):
                    return found
        return None


TREEBANKS: dict[str, TreebankSource] = {
    source.name: source
    for source in (
        TreebankSource(
            name="fr-spoken",
            summary="French as it is spoken, tags and trees (benchmarks: table5); UD French Spoken, later Rhapsodie",
            folders=("UD_French-Spoken", "UD_French-Rhapsodie", "fr-spoken", "."),
            files=("fr_spoken-ud-{part}.conllu", "fr_rhapsodie-ud-{part}.conllu"),
            how_to_get="github.com/UniversalDependencies/UD_French-Rhapsodie (CC BY-SA 4.0)",
        ),
        TreebankSource(
            name="fr-partut",
            summary="French talks, laws and encyclopedia, 1,020 sentences with tags and trees (benchmarks: table5)",
            folders=("UD_French-ParTUT", "fr-partut", "."),
            files=("fr_partut-ud-{part}.conllu",),
            how_to_get="github.com/UniversalDependencies/UD_French-ParTUT (CC BY-NC-SA 4.0)",
        ),
        TreebankSource(
            name="tr-web",
            summary="Turkish from the web, 2,541 sentences with tags and trees (benchmarks: table5)",
            folders=("turkish-treebanks", "turkish-treebanks/data", "."),
            files=("web.conllu",),
            package="turkish_treebanks",
            how_to_get="pip install turkish-treebanks (Apache-2.0)",
        ),
        TreebankSource(
            name="tr-wiki",
            summary="Turkish encyclopedia, 2,310 sentences with tags and trees (benchmarks: table5)",
            folders=("turkish-treebanks", "turkish-treebanks/data", "."),
            files=("wiki.conllu",),
            package="turkish_treebanks",
            how_to_get="pip install turkish-treebanks (Apache-2.0)",
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Treebank:
    """A treebank in parts; every sentence has one tree over its words."""

    name: str
    train: tuple[Sentence, ...]
    validation: tuple[Sentence, ...]
    _files: Mapping[str, Path] = field(repr=False)

    def test(self) -> tuple[Sentence, ...]:
        """Read the test part. Nothing may be chosen by it: call this once, at the end."""
        return _read_part(self._files, "test")


def load_treebank(name: str, *, data_dir: Path | str | None = None) -> Treebank:
    """A treebank, found in its usual places or in a folder of one's own.

    Treebanks of Universal Dependencies are published in three parts. One that comes as a single file is cut by the
    CRC-32 of each sentence's forms, a tenth for validation and a tenth for the test, so that equal sentences are in
    the same part and every run has the same ones.

    Args:
        name: a name of ``TREEBANKS``; a folder with files such as ``fr_gsd-ud-train.conllu``, ``-dev`` and ``-test``;
            or one CoNLL-U file.
        data_dir: where names are looked for; by default $WAVEQ_DATA, else `data`.

    Raises:
        ValueError: unknown name; not there (the message lists where it was looked for and how to get it); a damaged
            file (the message names file and line); a sentence without one tree; an empty part.

    Example:
        >>> load_treebank("fr-partout")
        Traceback (most recent call last):
        ValueError: treebank: nothing is called 'fr-partout'; did you mean 'fr-partut'? (known: fr-spoken, ...)
    """
    path = Path(name).expanduser()
    if name not in TREEBANKS and path.exists():
        files = _files_at(path)
        name = path.stem if path.is_file() else path.resolve().name
    else:
        source = by_name("treebank", name, TREEBANKS)
        name = source.name
        found = source.find(data_root(data_dir))
        if found is None:
            looked = ", ".join(map(str, source.places(data_root(data_dir))))
            raise ValueError(
                f"treebank: {name} is not there; looked for {' or '.join(source.files)} in {looked}. To get it: "
                f"{source.how_to_get}"
            )
        files = found
    train, validation = (_read_part(files, part) for part in ("train", "validation"))
    return Treebank(name=name, train=train, validation=validation, _files=files)


def require_tree(sentence: Sentence, where: str = "sentence") -> None:
    """Refuse what is not one tree: every word has a head, one of them is the root, and all hang from it.

    Raises:
        ValueError: names the sentence by its ``sent_id`` and the word.

    Example:
        >>> from waveq.zoo.datasets.conllu import Word
        >>> require_tree(Sentence(words=(Word(form="a", head=2), Word(form="b", head=1))))
        Traceback (most recent call last):
        ValueError: sentence: 0 words have HEAD 0 where one root is expected
    """
    if sent_id := sentence.metadata.get("sent_id"):
        where = f"{where}, sent_id {sent_id}"
    heads = [word.head for word in sentence.words]
    if None in heads:
        raise ValueError(f"{where}: word {heads.index(None) + 1} has no HEAD")
    if (roots := heads.count(0)) != 1:
        raise ValueError(f"{where}: {roots} words have HEAD 0 where one root is expected")
    for place in range(1, len(heads) + 1):
        above: int | None = place
        for _ in heads:
            above = heads[above - 1] if above else 0
        if above:
            raise ValueError(f"{where}: word {place} hangs from itself, not from the root")


def _beside(package: str) -> Sequence[Path]:
    found = importlib.util.find_spec(package) if package else None
    return () if found is None or found.origin is None else (Path(found.origin).parent.parent / "data",)


def _files_at(path: Path) -> dict[str, Path]:
    if path.is_file():
        return dict.fromkeys(_PARTS, path)
    found = {}
    for part, ud in _PARTS.items():
        files = sorted(path.glob(f"*-{ud}.conllu"))
        if len(files) != 1:
            raise ValueError(f"treebank: {path} has {len(files)} files *-{ud}.conllu where one is expected")
        found[part] = files[0]
    return found


def _read_part(files: Mapping[str, Path], part: str) -> tuple[Sentence, ...]:
    sentences = read_conllu(files[part])
    if len(set(files.values())) == 1:
        sentences = [sentence for sentence in sentences if _part_of(sentence) == part]
    if not sentences:
        raise ValueError(f"{files[part]}: no sentence for the {part} part")
    for sentence in sentences:
        require_tree(sentence, str(files[part]))
    return tuple(sentences)


def _part_of(sentence: Sentence) -> str:
    text = "\t".join(word.form for word in sentence.words)
    return {0: "test", 1: "validation"}.get(zlib.crc32(text.encode()) % 10, "train")
