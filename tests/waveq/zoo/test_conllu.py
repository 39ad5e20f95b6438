"""CoNLL-U read and written: closed cases, what is said of damaged lines, and a round trip of anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waveq.zoo.datasets.conllu import (
    EmptyNode,
    MultiwordToken,
    Sentence,
    Word,
    parse_conllu,
    read_conllu,
    write_conllu,
)

# French, with a token of two words, and an empty node where a verb is left out
GAPPING = """\
# newdoc id = essai
# sent_id = essai-1
# text = Paul boit du thé et Anne du café
1 Paul Paul PROPN _ _ 2 nsubj 2:nsubj _
2 boit boire VERB _ Mood=Ind|Tense=Pres 0 root 0:root _
3-4 du _ _ _ _ _ _ _ _
3 de de ADP _ _ 5 case 5:case _
4 le le DET _ _ 5 det 5:det _
5 thé thé NOUN _ _ 2 obj 2:obj _
6 et et CCONJ _ _ 7 cc 7.1:cc _
7 Anne Anne PROPN _ _ 2 conj 7.1:nsubj _
7.1 boit boire VERB _ _ _ _ 2:conj _
8-9 du _ _ _ _ _ _ _ SpaceAfter=No
8 de de ADP _ _ 10 case 10:case _
9 le le DET _ _ 10 det 10:det _
10 café café NOUN _ _ 7 orphan 7.1:obj _
"""


def tabbed(text: str) -> str:
    return "\n".join(line if line.startswith("#") else line.replace(" ", "\t") for line in text.split("\n"))


def test_words_tokens_and_empty_nodes() -> None:
    (sentence,) = parse_conllu(tabbed(GAPPING))
    forms = [word.form for word in sentence.words]
    assert forms == ["Paul", "boit", "de", "le", "thé", "et", "Anne", "de", "le", "café"]
    assert [word.head for word in sentence.words] == [2, 0, 5, 5, 2, 7, 2, 10, 10, 7]
    assert sentence.words[1].feats == "Mood=Ind|Tense=Pres"
    assert [(token.first, token.last, token.misc) for token in sentence.multiword_tokens] == [
        (3, 4, "_"),
        (8, 9, "SpaceAfter=No"),
    ]
    assert sentence.empty_nodes == (
        EmptyNode(after=7, number=1, form="boit", lemma="boire", upos="VERB", deps="2:conj"),
    )
    assert sentence.metadata == {
        "newdoc id": "essai",
        "sent_id": "essai-1",
        "text": "Paul boit du thé et Anne du café",
    }
    assert "\n".join(sentence.lines()) + "\n" == tabbed(GAPPING)


def test_spaces_stand_where_the_format_has_them() -> None:
    (sentence,) = parse_conllu("1\t10 000\t10 000\tNUM\t_\t_\t0\troot\t_\tGloss=ten thousand\n")
    assert sentence.words[0].form == sentence.words[0].lemma == "10 000"
    assert sentence.words[0].misc == "Gloss=ten thousand"


def test_an_underscore_may_be_the_word_itself() -> None:
    (sentence,) = parse_conllu("1\t_\t_\tSYM\t_\t_\t_\t_\t_\t_")
    assert sentence.words[0].form == "_"
    assert sentence.words[0].head is None


def test_files_of_windows_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "fr.conllu"
    path.write_bytes(b"\xef\xbb\xbf" + tabbed(GAPPING).replace("\n", "\r\n").encode() + b"\r\n\r\n\r\n")
    assert read_conllu(path) == parse_conllu(tabbed(GAPPING))


def test_texts_of_windows_and_texts_that_just_end() -> None:
    expected = parse_conllu(tabbed(GAPPING))
    assert parse_conllu(tabbed(GAPPING).replace("\n", "\r\n") + "\r\n") == expected
    assert parse_conllu(tabbed(GAPPING).rstrip("\n")) == expected
    assert parse_conllu("\n\n" + tabbed(GAPPING) + "\n\n\n" + tabbed(GAPPING)) == expected * 2  # blank lines in plenty
    assert parse_conllu("") == parse_conllu("\n\n") == []


def test_empty_nodes_before_the_first_word_and_several_after_one() -> None:
    text = tabbed("0.1 _ _ PRON _ _ _ _ 1:nsubj _\n1 va aller VERB _ _ 0 root 0:root _\n1.1 a _ X _ _ _ _ _ _")
    (sentence,) = parse_conllu(
        text
        + tabbed("\n1.2 b _ X _ _ _ _ _ _\n2-3 du _ _ _ _ _ _ _ _\n")
        + tabbed("2 de _ ADP _ _ 1 obl _ _\n3 le _ DET _ _ 2 det _ _")
    )
    assert [(node.after, node.number, node.form) for node in sentence.empty_nodes] == [
        (0, 1, "_"),
        (1, 1, "a"),
        (1, 2, "b"),
    ]
    assert [word.head for word in sentence.words] == [0, 1, 2]
    assert parse_conllu("\n".join(sentence.lines())) == [sentence]


def test_comments_are_anything_after_a_hash() -> None:
    (sentence,) = parse_conllu("#\n##\n# text = 1 = 1\n# text_en=\n#sent_id=x\n1\ta\t_\t_\t_\t_\t0\troot\t_\t_")
    assert sentence.comments == ("", "#", " text = 1 = 1", " text_en=", "sent_id=x")
    assert sentence.metadata == {"text": "1 = 1", "text_en": "", "sent_id": "x"}


def test_a_line_separator_of_unicode_ends_no_line() -> None:
    (sentence,) = parse_conllu("1\ta\u2028b\t_\t_\t_\t_\t0\troot\t_\t_\n")
    assert sentence.words[0].form == "a\u2028b"


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        ("2 boit boire", "2 boit", 5, "10 fields separated by tabs are expected, not 9"),
        ("2 boit boire", "2 boit ", 5, "LEMMA is empty; what is not given is written _"),
        ("2 boit", "3 boit", 5, "ID 3 where word 2 is expected"),
        ("2 boit", "II boit", 5, "ID 'II' where a number, a range such as 3-4 or one such as 3.1 is expected"),
        ("2 boit", "٢ boit", 5, "ID '٢' where a number"),
        ("3-4 du", "4-5 du", 6, "ID 4-5 where a range that begins with 3 is expected"),
        ("3-4 du", "3-2 du", 6, "ID 3-2 where a range that begins with 3"),
        ("3-4 du", "3-4-5 du", 6, "ID '3-4-5' where two numbers with '-' between them are expected"),
        ("3-4 du", "3-9 du", 13, "token 8-9 begins within token 3-9"),
        ("8-9 du", "8-11 du", 17, "a token goes on to word 11, but the sentence ends with word 10"),
        ("3-4 du _", "3-4 du de", 6, "LEMMA of a token of several words is 'de' where _ is expected"),
        ("7.1 boit", "6.1 boit", 12, "ID 6.1 where 7.1 is expected"),
        ("7.1 boit", "7.2 boit", 12, "ID 7.2 where 7.1 is expected"),
        ("7.1 boit boire VERB _ _ _", "7.1 boit boire VERB _ _ 2", 12, "HEAD of an empty node is '2'"),
        ("4 le le DET _ _ 5", "4 le le DET _ _ 4", 8, "HEAD of word 4 is the word itself"),
        ("4 le le DET _ _ 5", "4 le le DET _ _ 11", 8, "HEAD is 11, but the sentence has 10 words"),
        ("4 le le DET _ _ 5", "4 le le DET _ _ 05", 8, "HEAD '05' where the ID of a word, 0 or _ is expected"),
        ("4 le le DET _ _ 5", "4 le le DET _ _ -1", 8, "HEAD '-1' where the ID of a word, 0 or _ is expected"),
        ("5 thé", "# again\n5 thé", 9, "a comment within a sentence; comments come before its first word"),
        ("1 Paul", "\n1 Paul", 4, "a sentence without words ends here"),
        ("10 café café NOUN _ _ 7 orphan 7.1:obj _", "10-11 x _ _ _ _ _ _ _ _", 17, "token 10-11 has no words"),
    ],
)
def test_damage_is_named_with_its_line(old: str, new: str, line: int, why: str, tmp_path: Path) -> None:
    assert GAPPING.count(old) == 1
    path = tmp_path / "fr.conllu"
    path.write_text(tabbed(GAPPING.replace(old, new)), encoding="utf-8")
    with pytest.raises(ValueError, match=r"fr\.conllu") as error:
        read_conllu(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert why in str(error.value)


def test_a_space_where_none_may_be_is_named() -> None:
    with pytest.raises(ValueError, match="text:1: UPOS 'NO UN' holds a space"):
        parse_conllu("1\ta\t_\tNO UN\t_\t_\t0\troot\t_\t_")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        read_conllu(tmp_path / "none.conllu")
    (tmp_path / "latin.conllu").write_bytes(b"1\tcaf\xe9")
    with pytest.raises(ValueError, match=r"latin\.conllu: damaged, or not UTF-8"):
        read_conllu(tmp_path / "latin.conllu")


@pytest.mark.parametrize(
    "sentence",
    [
        Sentence(words=(Word(form="a\tb"),)),
        Sentence(words=(Word(form="a"),), comments=(" two\nlines",)),
        Sentence(
            words=(Word(form="a"), Word(form="b")), multiword_tokens=(MultiwordToken(first=5, last=6, form="ab"),)
        ),
        Sentence(words=()),
    ],
)
def test_what_the_format_cannot_say_is_not_written(sentence: Sentence, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not written"):
        write_conllu(tmp_path / "a.conllu", [sentence])
    assert not (tmp_path / "a.conllu").exists()


_BARE = st.text(st.sampled_from("aé1٢-._=|#:日\u2028\x1c\x85"), min_size=1, max_size=4)
_SPACED = st.lists(_BARE, min_size=1, max_size=2).map(" ".join)


@st.composite
def sentences(draw: st.DrawFn) -> Sentence:
    count = draw(st.integers(1, 6))
    words = tuple(
        Word(
            form=draw(_SPACED),
            lemma=draw(_SPACED),
            upos=draw(_BARE),
            feats=draw(_BARE),
            head=draw(st.none() | st.integers(0, count).filter(lambda head, place=place: head != place)),
            deprel=draw(_BARE),
            misc=draw(_SPACED),
        )
        for place in range(1, count + 1)
    )
    cuts = sorted(draw(st.sets(st.integers(1, count + 1), max_size=4)))
    tokens = tuple(
        MultiwordToken(first=first, last=last - 1, form=draw(_SPACED), misc=draw(_SPACED))
        for first, last in zip(cuts[::2], cuts[1::2], strict=False)
    )
    empty = tuple(
        EmptyNode(after=after, number=number, form=draw(_SPACED), deps=draw(_BARE))
        for after in range(count + 1)
        for number in range(1, 1 + draw(st.integers(0, 2)))
    )
    comments = tuple(draw(st.lists(_SPACED, max_size=2)))
    return Sentence(words=words, multiword_tokens=tokens, empty_nodes=empty, comments=comments)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(found=st.lists(sentences(), max_size=3))
def test_what_is_written_is_read_back(found: list[Sentence]) -> None:
    text = "".join("\n".join(sentence.lines()) + "\n\n" for sentence in found)
    assert parse_conllu(text) == found
