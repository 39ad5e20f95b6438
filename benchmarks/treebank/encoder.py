"""An encoder in the form of BERT (Devlin et al. 2019, arXiv 1810.04805), or of RoBERTa, as CamemBERT is one.

Its linear layers are what table5 quantises: four of attention and two of the feed-forward part in each layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Encoder", "EncoderConfig", "own_names"]

_COUNTS_FROM_PAD = ("roberta", "camembert", "xlm-roberta")
"""The kinds whose positions begin behind the padding's number."""
_NAMES = (
    (r"^(bert|roberta)\.", ""),
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.self\.", "."),
    (r"\.attention\.output\.dense\.", ".attended."),
    (r"\.attention\.output\.LayerNorm\.", ".attended_norm."),
    (r"\.intermediate\.dense\.", ".widen."),
    (r"\.output\.dense\.", ".narrow."),
    (r"\.output\.LayerNorm\.", ".norm."),
    (r"^embeddings\.LayerNorm\.", "embedding_norm."),
    (r"^embeddings\.(word|position|token_type)_embeddings\.", r"\1."),
)
_NOT_OURS = re.compile(r"(^|\.)(pooler|lm_head|cls)\.|position_ids$")


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes, under the names of a model's ``config.json``."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    model_type: str = "bert"
    hidden_act: str = "gelu"

    def __post_init__(self) -> None:
        if self.model_type not in ("bert", *_COUNTS_FROM_PAD):
            known = ", ".join(("bert", *_COUNTS_FROM_PAD))
            raise ValueError(f"model_type: {self.model_type!r} is no encoder that is known here (known: {known})")
        if self.hidden_act != "gelu":
            raise ValueError(f"hidden_act: 'gelu' is expected, not {self.hidden_act!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size: {self.hidden_size} is no multiple of {self.num_attention_heads} heads")

    @classmethod
    def of(cls, told: Mapping[str, Any], *, where: str) -> EncoderConfig:
        """What a ``config.json`` says; what it says beyond that is left aside.

        Raises:
            ValueError: a size is missing, or another kind of model; names the file.
        """
        given = {each.name: told[each.name] for each in fields(cls) if each.name in told}
        try:
            return cls(**given)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from None

    @property
    def first_position(self) -> int:
        """The number of a sentence's first position."""
        return self.pad_token_id + 1 if self.model_type in _COUNTS_FROM_PAD else 0

    @property
    def most_pieces(self) -> int:
        """The longest sentence in pieces."""
        return self.max_position_embeddings - self.first_position


class _Layer(nn.Module):
    """Attention and feed-forward part, each followed by its sum with what came in and a layer norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size, wide = config.hidden_size, config.intermediate_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(size, size)
        self.key = nn.Linear(size, size)
        self.value = nn.Linear(size, size)
        self.attended = nn.Linear(size, size)
        self.attended_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.widen = nn.Linear(size, wide)
        self.narrow = nn.Linear(wide, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        query, key, value = (self._by_head(part(x)) for part in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = self.attended_norm(x + self.attended(mixed.transpose(1, 2).flatten(2)))
        out: Tensor = self.norm(x + self.narrow(F.gelu(self.widen(x))))
        return out

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Encoder(nn.Module):
    """Pieces to vectors; random until weights are loaded."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.word = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.embedding_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))
        for embedding in (self.word, self.position, self.token_type):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, pieces: Tensor, present: Tensor) -> Tensor:
        """Vectors float32 (B, T, hidden_size) of pieces int64 (B, T); ``present`` bool (B, T) is False for padding."""
        first = self.config.first_position
        places = torch.arange(first, first + pieces.shape[1], device=pieces.device)
        x = self.embedding_norm(self.word(pieces) + self.position(places) + self.token_type.weight[0])
        for layer in self.layers:
            x = layer(x, present[:, None, None, :])
        return x  # type: ignore[no-any-return]


def own_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published weights under the names of ``Encoder``; poolers and heads of pretraining are left out.

    Example:
        >>> list(own_names({"bert.encoder.layer.0.output.dense.bias": torch.zeros(1), "cls.bias": torch.zeros(1)}))
        ['layers.0.narrow.bias']
    """
    found = {}
    for name, value in weights.items():
        if _NOT_OURS.search(name):
            continue
        for pattern, own in _NAMES:
            name = re.sub(pattern, own, name)
        found[name] = value
    return found
