"""Networks in plain torch: recurrent ones, weights that are made by other modules, layers that are used twice."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from benchmarks.reach._case import Case, image, tokens

__all__ = ["CASES", "Llama"]


class Text(nn.Module):
    """Next-token network around a recurrent layer, its head tied to the embedding where the widths allow it."""

    def __init__(self, kind: str, *, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 24)
        self.recurrent: nn.RNNBase = getattr(nn, kind)(24, 24, num_layers=2, batch_first=True)
        self.head = nn.Linear(24, 64, bias=False)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """(batch, length) -> (batch, length, vocabulary)."""
        return self.head(self.recurrent(self.embedding(input_ids))[0])  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """torch's own transformer encoder, which has a path of its own in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(64, 32)
        layer = nn.TransformerEncoderLayer(32, 2, dim_feedforward=48, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(32, 5)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(batch, length) -> (batch, classes)."""
        return self.head(self.encoder(self.embedding(input_ids)).mean(1))  # type: ignore[no-any-return]


class LowRank(nn.Linear):
    """A linear layer with a trained update of low rank, as LoRA adds it at every call."""

    def __init__(self, inputs: int, outputs: int, rank: int = 2) -> None:
        super().__init__(inputs, outputs)
        self.down = nn.Linear(inputs, rank, bias=False)
        self.up = nn.Linear(rank, outputs, bias=False)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # torch's own name
        """(..., inputs) -> (..., outputs)."""
        return super().forward(input) + self.up(self.down(input))

    def merged(self) -> nn.Linear:
        """One plain layer with the update in its weight."""
        plain = nn.Linear(self.in_features, self.out_features)
        with torch.no_grad():
            plain.weight.copy_(self.weight + self.up.weight @ self.down.weight)
            plain.bias.copy_(self.bias)
        return plain


class RMSNorm(nn.Module):
    """Root mean square normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return F.rms_norm(x, self.weight.shape, self.weight)


class LlamaBlock(nn.Module):
    """Attention with fewer keys than queries and a gated MLP, both with a skip."""

    def __init__(self, width: int, heads: int, groups: int, inner: int) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, groups * self.size, bias=False)
        self.v_proj = nn.Linear(width, groups * self.size, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length, width), the same shape."""
        batch, length, width = x.shape
        y = self.norm1(x)
        q = self.q_proj(y).view(batch, length, self.heads, self.size).transpose(1, 2)
        k, v = (p(y).view(batch, length, self.groups, self.size).transpose(1, 2) for p in (self.k_proj, self.v_proj))
        mixed = F.scaled_dot_product_attention(_turned(q), _turned(k), v, is_causal=True, enable_gqa=True)
        x = x + self.o_proj(mixed.transpose(1, 2).reshape(batch, length, width))
        y = self.norm2(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))  # type: ignore[no-any-return]


def _turned(x: Tensor) -> Tensor:
    """Rotary positions; (batch, heads, length, size)."""
    half = x.shape[-1] // 2
    angle = torch.outer(torch.arange(x.shape[-2]), 10000.0 ** (-torch.arange(half) / half))
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class Llama(nn.Module):
    """A language model in Llama's form: RMS norms, rotary positions, grouped queries, gated MLP, no biases."""

    def __init__(self, *, vocabulary: int, width: int, blocks: int, heads: int, groups: int, inner: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, width)
        self.layers = nn.Sequential(*(LlamaBlock(width, heads, groups, inner) for _ in range(blocks)))
        self.norm = RMSNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(batch, length) -> (batch, length, vocabulary)."""
        return self.lm_head(self.norm(self.layers(self.embed_tokens(input_ids))))  # type: ignore[no-any-return]


class Twice(nn.Module):
    """One layer called twice, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.shared, self.unused = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 16)
        self.last = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, 12) -> (batch, 3)."""
        x = F.relu(self.first(x))
        return self.last(F.relu(self.shared(F.relu(self.shared(x)))))  # type: ignore[no-any-return]


def _normed(norm: Any) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), norm(nn.Conv2d(8, 8, 3)), nn.Flatten(), nn.Linear(8 * 28 * 28, 5)
    )


def _unet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 4, 4, 2, 1, groups=2), nn.ReLU(), nn.Conv2d(4, 2, 1)
    )


def _row() -> tuple[Tensor]:
    return (torch.randn(4, 12),)


def _volume() -> tuple[Tensor]:
    return (torch.randn(2, 1, 8, 8, 8),)


CASES = (
    Case("LSTM text model", "torch", lambda: Text("LSTM", tied=False), tokens(), {}, "recurrent weights"),
    Case("LSTM text model, tied", "torch", lambda: Text("LSTM", tied=True), tokens(), {}, "embedding and head tied"),
    Case("GRU text model", "torch", lambda: Text("GRU", tied=False), tokens(), {"also": ("embedding",)}, "recurrent"),
    Case("nn.TransformerEncoder", "torch", Encoder, tokens(), {}, "in_proj, torch's quick path in evaluation"),
    Case(
        "small Llama",
        "torch",
        lambda: Llama(vocabulary=64, width=32, blocks=2, heads=4, groups=2, inner=48),
        tokens(),
        {},
        "the form that the overhead is measured on",
    ),
    Case(
        "spectral norm",
        "torch",
        lambda: _normed(parametrizations.spectral_norm),
        image(),
        {"skip": ("2",)},
        "the normed layer must be skipped",
    ),
    Case(
        "weight norm",
        "torch",
        lambda: _normed(parametrizations.weight_norm),
        image(),
        {"skip": ("2",)},
        "the normed layer must be skipped",
    ),
    Case(
        "LoRA",
        "torch",
        lambda: nn.Sequential(LowRank(12, 16), nn.ReLU(), LowRank(16, 3)),
        _row,
        {},
        "update added at every call",
    ),
    Case(
        "LoRA, merged",
        "torch",
        lambda: nn.Sequential(LowRank(12, 16).merged(), nn.ReLU(), LowRank(16, 3).merged()),
        _row,
        {},
        "update in the weight",
    ),
    Case("transposed, grouped", "torch", _unet, image(), {}, "channel axis of ConvTranspose"),
    Case(
        "three dimensions", "torch", lambda: nn.Sequential(nn.Conv3d(1, 4, 3), nn.ReLU(), nn.Conv3d(4, 2, 3)), _volume
    ),
    Case("a layer used twice, one never", "torch", Twice, _row, {}, "shared call, idle layer"),
)
