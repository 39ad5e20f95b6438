"""Treebanks: found by name and by folder, cut into parts, refused where a sentence is no tree."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from waveq.zoo import load_treebank
from waveq.zoo.datasets.conllu import Sentence, Word, write_conllu
from waveq.zoo.datasets.data import data_status, load_data
from waveq.zoo.datasets.treebanks import require_tree


def sentence(text: str, *heads: int) -> Sentence:
    words = zip(text.split(), heads, strict=True)
    return Sentence(words=tuple(Word(form=form, head=head) for form, head in words))


def three_parts(folder: Path, prefix: str) -> None:
    folder.mkdir(parents=True)
    for part, forms in (("train", ("oui", "non")), ("dev", ("si",)), ("test", ("mais",))):
        write_conllu(folder / f"{prefix}-ud-{part}.conllu", [sentence(form, 0) for form in forms])


@pytest.mark.parametrize(
    ("name", "folder", "prefix"),
    [
        ("fr-spoken", "UD_French-Spoken", "fr_spoken"),
        ("fr-spoken", "UD_French-Rhapsodie", "fr_rhapsodie"),
        ("fr-partut", "UD_French-ParTUT", "fr_partut"),
        ("FR_ParTUT", ".", "fr_partut"),
    ],
)
def test_french_treebanks_as_they_are_published(name: str, folder: str, prefix: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    three_parts(root / folder, prefix)
    found = load_treebank(name, data_dir=root)
    parts = [[each.words[0].form for each in part] for part in (found.train, found.validation, found.test())]
    assert parts == [["oui", "non"], ["si"], ["mais"]]
    (row,) = (row for row in data_status(root) if row.name == found.name)
    assert row.available
    assert row.found == root / folder


def test_a_folder_and_a_file_of_ones_own(tmp_path: Path) -> None:
    three_parts(tmp_path / "UD_Latin-Mine", "la_mine")
    found = load_treebank(str(tmp_path / "UD_Latin-Mine"))
    assert (found.name, len(found.train), len(found.validation), len(found.test())) == ("UD_Latin-Mine", 2, 1, 1)
    write_conllu(tmp_path / "all.conllu", [sentence(f"mot {i} fin", 0, 1, 1) for i in range(200)])
    cut = load_treebank(str(tmp_path / "all.conllu"))
    assert len(cut.train) + len(cut.validation) + len(cut.test()) == 200
    assert 10 <= len(cut.test()) <= 30
    assert not set(cut.train) & set(cut.test())


def test_the_cut_does_not_depend_on_the_order(tmp_path: Path) -> None:
    all_of_them = [sentence(f"mot {i}", 0, 1) for i in range(100)]
    write_conllu(tmp_path / "a.conllu", all_of_them)
    write_conllu(tmp_path / "b.conllu", all_of_them[::-1])
    one, other = (load_treebank(str(tmp_path / name)) for name in ("a.conllu", "b.conllu"))
    assert set(one.test()) == set(other.test())


def test_a_package_brings_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "turkish_treebanks").mkdir()
    (tmp_path / "turkish_treebanks" / "__init__.py").touch()
    (tmp_path / "data").mkdir()
    write_conllu(tmp_path / "data" / "web.conllu", [sentence(f"söz {i}", 0, 1) for i in range(100)])
    monkeypatch.setitem(sys.modules, "turkish_treebanks", None)
    monkeypatch.delitem(sys.modules, "turkish_treebanks")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_treebank("tr-web", data_dir=tmp_path / "nowhere").train[0].words[0].form == "söz"


def test_errors_say_where_and_what(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fr-spoken is not there; looked for fr_spoken-ud-.* or .*To get it"):
        load_treebank("fr-spoken", data_dir=tmp_path)
    with pytest.raises(ValueError, match="did you mean 'fr-partut'"):
        load_treebank("fr-partuts", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"has 0 files \*-train\.conllu where one is expected"):
        load_treebank(str(tmp_path))
    with pytest.raises(ValueError, match="tr-wiki is a treebank, which load_treebank reads"):
        load_data("tr-wiki")
    write_conllu(tmp_path / "one.conllu", [sentence("seul", 0)])
    with pytest.raises(ValueError, match=r"one\.conllu: no sentence for the "):
        load_treebank(str(tmp_path / "one.conllu"))


def test_a_sentence_has_one_tree(tmp_path: Path) -> None:
    require_tree(sentence("a b c", 2, 0, 2))
    with pytest.raises(ValueError, match="2 words have HEAD 0"):
        require_tree(sentence("a b c", 0, 0, 2))
    with pytest.raises(ValueError, match="word 2 hangs from itself"):
        require_tree(sentence("a b c", 0, 3, 2))
    named = Sentence(words=(Word(form="a"),), comments=(" sent_id = s7",))
    with pytest.raises(ValueError, match="sent_id s7: word 1 has no HEAD"):
        require_tree(named)
    three_parts(tmp_path / "bank", "xx_bank")
    write_conllu(tmp_path / "bank" / "xx_bank-ud-dev.conllu", [sentence("a b", 2, 1)])
    with pytest.raises(ValueError, match=r"xx_bank-ud-dev\.conllu: 0 words have HEAD 0"):
        load_treebank(str(tmp_path / "bank"))


def test_a_treebank_with_all_that_the_format_has(tmp_path: Path) -> None:
    """Tokens of several words, an empty node, comments, lines of Windows, a file that just ends; trees are of words."""
    first = "# sent_id = 1\n1-2 du _ _ _ _ _ _ _ _\n1 de _ ADP _ _ 3 case _ _\n2 le _ DET _ _ 3 det _ _\n"
    first += "3 pain _ NOUN _ _ 0 root _ SpaceAfter=No\n3.1 boire _ VERB _ _ _ _ 0:root _\n"
    lines = [line if line.startswith("#") else line.replace(" ", "\t") for line in first.split("\n")]
    text = "\r\n".join([*lines, *lines]).rstrip("\r\n")
    for part in ("train", "dev", "test"):
        (tmp_path / f"fr_essai-ud-{part}.conllu").write_bytes(text.encode())
    found = load_treebank(str(tmp_path))
    for sentences in (found.train, found.validation, found.test()):
        assert [[word.form for word in each.words] for each in sentences] == [["de", "le", "pain"]] * 2
        assert [each.metadata["sent_id"] for each in sentences] == ["1", "1"]


def test_a_second_root_is_named_with_its_file_and_sentence(tmp_path: Path) -> None:
    three_parts(tmp_path / "bank", "xx_bank")
    twice = Sentence(words=(Word(form="a", head=0), Word(form="b", head=0)), comments=(" sent_id = w-7",))
    write_conllu(tmp_path / "bank" / "xx_bank-ud-train.conllu", [sentence("oui", 0), twice])
    with pytest.raises(ValueError, match=r"xx_bank-ud-train\.conllu, sent_id w-7: 2 words have HEAD 0 where one root"):
        load_treebank(str(tmp_path / "bank"))
