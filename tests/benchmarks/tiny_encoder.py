"""An encoder of a few dozen units in the files of a published one, and a treebank of a few sentences."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.treebank.encoder import Encoder, EncoderConfig
from waveq.zoo.datasets.conllu import Sentence, Word

__all__ = ["CONFIG", "LETTERS", "published_names", "safetensors", "sentences", "write_encoder"]

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CONFIG: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 3 + 2 * len(LETTERS),
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
_PUBLISHED = {
    "embedding_norm.": "embeddings.LayerNorm.",
    "word.": "embeddings.word_embeddings.",
    "position.": "embeddings.position_embeddings.",
    "token_type.": "embeddings.token_type_embeddings.",
    ".query.": ".attention.self.query.",
    ".key.": ".attention.self.key.",
    ".value.": ".attention.self.value.",
    ".attended.": ".attention.output.dense.",
    ".attended_norm.": ".attention.output.LayerNorm.",
    ".widen.": ".intermediate.dense.",
    ".narrow.": ".output.dense.",
    ".norm.": ".output.LayerNorm.",
    "layers.": "encoder.layer.",
}


def published_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as Hugging Face's BERT names them, by replacing words one after the other."""
    found = {}
    for name, value in weights.items():
        for own, published in _PUBLISHED.items():
            name = name.replace(own, published) if own.startswith(".") or name.startswith(own) else name
        found[name] = value
    return found


def safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """A file of float32 tensors."""
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, value in tensors.items():
        content = value.detach().numpy().tobytes()
        offsets = [len(body), len(body) + len(content)]
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": offsets}  # type: ignore[dict-item]
        body += content
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def write_encoder(folder: Path) -> Path:
    """A folder as published; every letter is a piece, first in a word or not."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    names = ["[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = {
        "normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": None},
        "model": {"type": "WordPiece", "vocab": {name: number for number, name in enumerate(names)}},
    }
    weights = published_names(Encoder(EncoderConfig(**CONFIG)).state_dict())
    weights["pooler.dense.weight"] = torch.zeros(1)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(safetensors(weights))
    return folder


def sentences(count: int) -> list[Sentence]:
    """Subject, verb and, in half of them, an object; a word's first letter says its tag."""
    drawn = random.Random(0)
    found = []
    for _ in range(count):
        subject, verb, thing = (first + drawn.choice(LETTERS) for first in "svo")
        words = [
            Word(form=subject, upos="NOUN", head=2, deprel="nsubj"),
            Word(form=verb, upos="VERB", head=0, deprel="root"),
            Word(form=thing, upos="NOUN", head=2, deprel="obj:direct"),
        ]
        found.append(Sentence(words=tuple(words[: drawn.choice((2, 3))])))
    return found
