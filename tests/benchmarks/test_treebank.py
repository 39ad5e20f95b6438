"""The parts of table5: pieces, weights, encoder, trees, heads, scores; each against a closed case or a slow twin."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.treebank.batches import IGNORED, Labels, batches, encode, endless
from benchmarks.treebank.encoder import Encoder, EncoderConfig, own_names
from benchmarks.treebank.parser import Biaffine, Parser, parsed
from benchmarks.treebank.pieces import WordPiece, pieces_of
from benchmarks.treebank.pretrained import read_encoder
from benchmarks.treebank.safetensors import parse_safetensors
from benchmarks.treebank.scores import score
from benchmarks.treebank.trees import best_heads
from tests.benchmarks.tiny_encoder import CONFIG, published_names, safetensors, sentences, write_encoder
from waveq.zoo.datasets.conllu import Sentence, Word
from waveq.zoo.datasets.treebanks import require_tree

# ---------------------------------------------------------------------- trees


def is_tree(heads: tuple[int, ...]) -> bool:
    try:
        require_tree(Sentence(words=tuple(Word(form="a", head=head) for head in heads)))
    except ValueError:
        return False
    return True


def total(scores: np.ndarray, heads: tuple[int, ...] | list[int]) -> float:
    return float(sum(scores[word, head] for word, head in enumerate(heads, start=1)))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_no_tree_with_one_root_is_better(count: int) -> None:
    rng = np.random.default_rng(count)
    trees = [heads for heads in itertools.product(range(count + 1), repeat=count) if is_tree(heads)]
    assert len(trees) == count ** (count - 1)  # Cayley's formula, times the choice of the root
    for spread in (1.0, 30.0):
        for _ in range(20):
            scores = rng.normal(size=(count + 1, count + 1)) * spread
            found = best_heads(scores)
            assert is_tree(tuple(found))
            assert total(scores, found) == pytest.approx(max(total(scores, heads) for heads in trees))


def test_one_root_even_where_two_score_more() -> None:
    scores = np.array([[0.0, 0.0, 0.0], [9.0, 0.0, 1.0], [9.0, 2.0, 0.0]])
    assert best_heads(scores) == [0, 1]


def test_nested_cycles_of_a_long_sentence() -> None:
    scores = np.random.default_rng(3).normal(size=(61, 61))
    for word in range(1, 60, 2):  # pairs that want each other, and pairs of pairs
        scores[word, word + 1] = scores[word + 1, word] = 20.0
        scores[word, (word + 2) % 60 + 1] = 10.0
    given = scores.copy()
    assert is_tree(tuple(best_heads(scores)))
    assert np.array_equal(scores, given)


def test_scores_that_are_none() -> None:
    assert best_heads(np.zeros((1, 1))) == []
    for wrong in (np.zeros((2, 3)), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="a square array of finite numbers is expected"):
            best_heads(wrong)


# ---------------------------------------------------------------------- scores


def test_upos_and_las_of_an_example_made_by_hand() -> None:
    gold = Sentence(
        words=(
            Word(form="Elle", upos="PRON", head=2, deprel="nsubj:pass"),
            Word(form="vue", upos="VERB", head=0, deprel="root"),
            Word(form="ici", upos="ADV", head=2, deprel="advmod"),
            Word(form=".", upos="PUNCT", head=2, deprel="punct"),
        )
    )
    changes = (
        {"deprel": "nsubj"},  # as good as its subtype
        {"upos": "ADJ"},
        {"deprel": "obl"},  # the right head alone
        {"head": 3},  # punctuation counts
    )
    words = tuple(replace(word, **change) for word, change in zip(gold.words, changes, strict=True))
    found = score([gold], [replace(gold, words=words)])
    assert (found.upos, found.uas, found.las) == (75.0, 75.0, 50.0)
    assert score([gold], [gold]).las == 100.0


def test_what_is_no_answer_is_not_scored() -> None:
    gold = Sentence(words=(Word(form="a", head=0), Word(form="b", head=1)))
    with pytest.raises(ValueError, match="sentence 1: other words than the treebank's"):
        score([gold], [Sentence(words=gold.words[:1])])
    two_roots = replace(gold, words=(gold.words[0], replace(gold.words[1], head=0)))
    with pytest.raises(ValueError, match="sentence 1: 2 words have HEAD 0"):
        score([gold], [two_roots])


# ---------------------------------------------------------------------- pieces and weights

_NAMES = ["[UNK]", "[CLS]", "[SEP]", "is", "##tan", "##bul", "!", "c", "中", "$", "σ", "##σ"]
_VOCABULARY = {name: number for number, name in enumerate(_NAMES)}


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("İstanbul", ["is", "##tan", "##bul"]),
        ("ISTAN!", ["is", "##tan", "!"]),
        ("is\u200b\x07tan", ["is", "##tan"]),
        ("istanx", ["[UNK]"]),
        ("ç中ç", ["c", "中", "c"]),
        ("c $", ["c", "$"]),
        ("ΣΣ", ["σ", "##σ"]),
        ("\u0301", ["[UNK]"]),
        ("c" * 101, ["[UNK]"]),
    ],
)
def test_pieces_of_words(word: str, found: list[str]) -> None:
    pieces = WordPiece(_VOCABULARY, lowercase=True)
    assert [_NAMES[number] for number in pieces.of(word)] == found


def test_case_and_accents_are_kept_where_they_count() -> None:
    vocabulary = {name: number for number, name in enumerate(["[UNK]", "[CLS]", "[SEP]", "É", "e"])}
    assert WordPiece(vocabulary, lowercase=False).of("É") == [3]
    assert WordPiece(vocabulary, lowercase=True).of("É") == [4]


def test_other_pieces_come_from_their_package() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.Unigram([("<s>", 0.0), ("</s>", 0.0), ("▁", -2.0), ("▁le", -1.0), ("s", -1.5)], 0)
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.post_processor = tokenizers.processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 1)])
    content = made.to_str()
    pieces = pieces_of(json.loads(content), content, where="tokenizer.json")
    assert (pieces.begin, pieces.end, pieces.of("les")) == (0, 1, [3, 4])


def test_pieces_without_their_package_or_fields() -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json: field 'lowercase' is missing"):
        pieces_of(
            {"model": {"type": "WordPiece", "vocab": {}}, "normalizer": {"type": "BertNormalizer"}},
            "",
            where="tokenizer.json",
        )


def test_tensors_of_a_file() -> None:
    given = {"a": torch.arange(6.0).reshape(2, 3), "empty": torch.zeros(0, 4)}
    content = safetensors(given)
    found = parse_safetensors(content, where="x")
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], given[name]) for name in given)
    with pytest.raises(ValueError, match=r"x: truncated"):
        parse_safetensors(content[:20], where="x")
    with pytest.raises(ValueError, match=r"x: tensor 'a' has bytes 0 to 24 of 20 for shape \[2, 3\]"):
        parse_safetensors(content[:-4], where="x")
    with pytest.raises(ValueError, match=r"x: tensor 'a' has bytes 0 to 24 of 24 for shape \[2, 4\]"):
        parse_safetensors(content.replace(b"[2, 3]", b"[2, 4]"), where="x")
    with pytest.raises(ValueError, match="x: tensor 'a' is described as"):
        parse_safetensors(content.replace(b"F32", b"F3X"), where="x")


# ---------------------------------------------------------------------- encoder


def twin(encoder: Encoder, pieces: Tensor, present: Tensor) -> Tensor:
    """The encoder put together from torch's own layers."""
    config = encoder.config
    places = torch.arange(pieces.shape[1]) + config.first_position
    x = encoder.embedding_norm(encoder.word(pieces) + encoder.position(places) + encoder.token_type.weight[0])
    for own in encoder.layers:
        layer = nn.TransformerEncoderLayer(
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=config.layer_norm_eps,
            batch_first=True,
        )
        parts = (own.query, own.key, own.value)
        layer.self_attn.in_proj_weight.data = torch.cat([part.weight for part in parts])
        layer.self_attn.in_proj_bias.data = torch.cat([part.bias for part in parts])
        layer.self_attn.out_proj = own.attended
        layer.linear1, layer.linear2, layer.norm1, layer.norm2 = own.widen, own.narrow, own.attended_norm, own.norm
        x = layer.train()(x, src_key_padding_mask=~present)
    return x


@pytest.mark.parametrize("kind", ["bert", "camembert"])
def test_encoder_is_the_sum_of_torchs_layers(kind: str) -> None:
    torch.manual_seed(1)
    encoder = Encoder(EncoderConfig(**{**CONFIG, "model_type": kind, "pad_token_id": 1}))
    pieces = torch.randint(0, 50, (2, 7))
    present = torch.ones(2, 7, dtype=torch.bool)
    present[1, 4:] = False
    found = encoder(pieces, present)
    assert torch.allclose(found[present], twin(encoder, pieces, present)[present], atol=1e-5)
    assert encoder.config.first_position == (2 if kind == "camembert" else 0)
    assert encoder.config.most_pieces == CONFIG["max_position_embeddings"] - encoder.config.first_position


def test_padding_changes_nothing() -> None:
    encoder = Encoder(EncoderConfig(**CONFIG))
    pieces = torch.randint(0, 50, (1, 9))
    present = torch.arange(9)[None] < 5
    alone = encoder(pieces[:, :5], present[:, :5])
    assert torch.allclose(encoder(pieces, present)[:, :5], alone, atol=1e-5)


def test_published_names_become_ours() -> None:
    weights = Encoder(EncoderConfig(**CONFIG)).state_dict()
    published = {f"roberta.{name}": value for name, value in published_names(weights).items()}
    assert "roberta.encoder.layer.0.attention.output.LayerNorm.bias" in published
    assert own_names(published).keys() == weights.keys()


def test_encoders_that_are_none(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "tiny")
    assert read_encoder(folder).name == "tiny"
    for field, value, why in (
        ("model_type", "bret", "config.json: model_type: 'bret' is no encoder"),
        ("hidden_act", "relu", "hidden_act: 'gelu' is expected, not 'relu'"),
        ("num_attention_heads", 3, "hidden_size: 16 is no multiple of 3 heads"),
        ("num_hidden_layers", 3, "model.safetensors: not the weights of this config.json"),
    ):
        (folder / "config.json").write_text(json.dumps({**CONFIG, field: value}))
        with pytest.raises(ValueError, match=why):
            read_encoder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        read_encoder(folder)


# ---------------------------------------------------------------------- numbers and heads


def tiny(tmp_path: Path) -> tuple[Parser, Labels]:
    encoder = read_encoder(write_encoder(tmp_path / "tiny")).encoder
    labels = Labels.of(sentences(20))
    torch.manual_seed(0)
    return Parser(encoder, labels, arc_size=8, relation_size=6, dropout=0.0), labels


def test_numbers_of_a_batch(tmp_path: Path) -> None:
    pieces = read_encoder(write_encoder(tmp_path / "tiny")).pieces
    labels = Labels(tags=("NOUN",), relations=("nsubj", "root"))
    given = Sentence(
        words=(Word(form="ab", upos="NOUN", head=2, deprel="nsubj"), Word(form="c", upos="VERB", head=0, deprel="root"))
    )
    examples = encode([given, Sentence(words=given.words[1:])], pieces, labels, most_pieces=6)
    (batch,) = batches(examples, 2, "cpu", [0, 1])
    assert batch.pieces[0].tolist() == [1, 3, 3 + 26 + 1, 5, 2]
    assert batch.first.tolist() == [[0, 1, 3], [0, 1, 0]]
    assert batch.words.tolist() == [[True, True, True], [True, True, False]]
    assert batch.present.sum(1).tolist() == [5, 3]
    assert batch.tags.tolist() == [[IGNORED, 0, IGNORED], [IGNORED, IGNORED, IGNORED]]  # VERB is not in training
    assert batch.heads.tolist() == [[IGNORED, 2, 0], [IGNORED, 0, IGNORED]]
    assert batch.relations.tolist() == [[IGNORED, 0, 1], [IGNORED, 1, IGNORED]]
    with pytest.raises(ValueError, match="sentence 1 has 5 pieces; the encoder takes 4"):
        encode([given], pieces, labels, most_pieces=4)


def test_a_pass_has_every_sentence_once(tmp_path: Path) -> None:
    pieces = read_encoder(write_encoder(tmp_path / "tiny")).pieces
    examples = encode(sentences(12), pieces, Labels.of(sentences(12)), most_pieces=40)
    stream = endless(examples, 4, "cpu", torch.Generator().manual_seed(0))
    one_pass = [
        row[: int(count)].tolist()
        for batch in itertools.islice(stream, 3)
        for row, count in zip(batch.pieces, batch.present.sum(1), strict=True)
    ]
    assert sorted(one_pass) == sorted(example.pieces for example in examples)


def test_biaffine_is_the_sum_it_says() -> None:
    torch.manual_seed(2)
    layer = Biaffine(3, 2)
    nn.init.normal_(layer.weight)
    x, y = torch.randn(2, 4, 3), torch.randn(2, 4, 3)
    one = torch.ones(1)
    pairs = layer.pairs(x, y)
    for b, i, j, label in itertools.product(range(2), range(4), range(4), range(2)):
        expected = torch.cat([x[b, i], one]) @ layer.weight[label] @ torch.cat([y[b, j], one])
        assert torch.allclose(pairs[b, i, j, label], expected, atol=1e-5)
    assert torch.allclose(layer.matched(x, y), torch.stack([pairs[:, i, i] for i in range(4)], 1), atol=1e-5)


@pytest.mark.slow
def test_every_weight_gets_a_gradient_and_the_sentences_are_learned(tmp_path: Path) -> None:
    parser, labels = tiny(tmp_path)
    given = sentences(20)
    examples = encode(given, read_encoder(tmp_path / "tiny").pieces, labels, most_pieces=40)
    optimizer = torch.optim.Adam(parser.parameters(), 1e-2)
    (batch,) = batches(examples, 20, "cpu", range(20))
    first = None
    for step in range(40):
        loss = parser.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        first = float(loss.detach()) if first is None else first
        if step == 1:  # at step 0 the biaffine weights are zero, and what is before them gets nothing
            unmoved = [
                name for name, each in parser.named_parameters() if each.grad is None or not bool(each.grad.any())
            ]
            assert [name for name in unmoved if not name.endswith("key.bias")] == []  # which changes no attention
        optimizer.step()
    found = parsed(parser, examples, given, size=7)
    reached = score(given, found)
    assert float(loss.detach()) < 0.3 * first
    assert min(reached.upos, reached.las) == 100.0
    assert parser.training


def test_answers_are_trees_in_the_order_of_the_sentences(tmp_path: Path) -> None:
    parser, labels = tiny(tmp_path)
    given = sentences(9)
    examples = encode(given, read_encoder(tmp_path / "tiny").pieces, labels, most_pieces=40)
    found = parsed(parser, examples, given, size=4)
    for right, guess in zip(given, found, strict=True):
        assert [word.form for word in right.words] == [word.form for word in guess.words]
        require_tree(guess)
    alone = [parsed(parser, [example], [sentence])[0] for example, sentence in zip(examples, given, strict=True)]
    assert found == alone
