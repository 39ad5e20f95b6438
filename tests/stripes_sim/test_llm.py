"""Language models from their configuration: totals by hand, shapes of attention, experts, scales and caches."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import pytest
from torch import nn

from stripes_sim import Stripes, llm_workload, trace
from stripes_sim.llm import LLMS

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 100,
}


def test_seven_billion_at_four_bits_and_their_cache_by_hand():
    layers = llm_workload("llama-7b", context=4096)
    # 32 blocks of four square and three feed-forward matrices, and the head
    weights = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 4096 * 32000
    cache = 2 * 32 * 32 * 128 * 4096
    assert weights / 2 == pytest.approx(3.30e9, rel=2e-3)
    assert 2 * cache == pytest.approx(2.15e9, rel=2e-3)
    result = Stripes().run(layers, 4, 16)
    assert result.weight_bytes == weights / 2
    assert result.frame["dram_bytes"].sum() == pytest.approx(weights / 2 + 2 * cache, rel=1e-4)
    assert result.bound == "DRAM"
    # one token takes as long as all of that takes to arrive
    assert result.seconds == pytest.approx((weights / 2 + 2 * cache) / 25.6e9, rel=0.01)
    halved = Stripes().run(layers, 4, 16, cache_bits=8)
    assert result.frame["dram_bytes"].sum() - halved.frame["dram_bytes"].sum() == cache
    resident = Stripes(resident_cache=True).run(layers, 4, 16)
    assert resident.frame["dram_bytes"].sum() == pytest.approx(weights / 2, rel=1e-4)


def test_query_heads_that_share_a_key_read_one_cache():
    layers = llm_workload("llama-2-70b", context=4096)
    assert 2 * sum(layer.stored_before for layer in layers) == 2 * 80 * 8 * 128 * 4096 * 2
    scores = next(layer for layer in layers if layer.name.endswith("scores"))
    assert (scores.copies, scores.tokens) == (8, 8)


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_multiply_accumulates_by_the_formula(phase):
    context, batch = 10, 3
    layers = llm_workload(SMALL, context=context, phase=phase, batch=batch)
    tokens = batch * (context if phase == "prefill" else 1)
    block = tokens * (2 * 32 * 32 + 2 * 32 * 8 + 3 * 32 * 48) + 2 * tokens * 8 * 4 * context
    assert sum(layer.macs for layer in layers) == 2 * block + batch * 32 * 100
    assert all((layer.stored_before > 0) == (phase == "decode") for layer in layers if layer.kind == "matmul")


class Block(nn.Module):
    """A block of Llama with torch's own parts, to be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(100, 32)
        self.q, self.o = nn.Linear(32, 32, bias=False), nn.Linear(32, 32, bias=False)
        self.k, self.v = nn.Linear(32, 8, bias=False), nn.Linear(32, 8, bias=False)
        self.gate, self.up = nn.Linear(32, 48, bias=False), nn.Linear(32, 48, bias=False)
        self.down, self.head = nn.Linear(48, 32, bias=False), nn.Linear(32, 100, bias=False)

    def forward(self, ids):
        x = self.embed(ids)
        query, key, value = (each.unflatten(-1, (-1, 4)).transpose(1, 2) for each in (self.q(x), self.k(x), self.v(x)))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
        x = x + self.o(mixed.transpose(1, 2).flatten(2))
        x = x + self.down(self.gate(x).sigmoid() * self.up(x))
        return self.head(x[:, -1:])


def test_it_is_what_a_traced_model_is():
    made = llm_workload({**SMALL, "num_hidden_layers": 1}, context=9, phase="prefill")
    traced = trace(Block(), (9,))

    def shapes(layers):
        return [(layer.kind, layer.in_channels, layer.out_channels, layer.tokens, layer.copies) for layer in layers]

    assert shapes(made) == shapes(traced)


def test_sequences_of_a_batch_share_weights_and_have_a_cache_each():
    together = Stripes().run(llm_workload(SMALL, context=64, batch=5), 4, 8)
    repeated = Stripes().run(llm_workload(SMALL, context=64), 4, 8, batch=5)
    assert together.score == pytest.approx(repeated.score)


@pytest.mark.slow
def test_experts_that_are_taken_are_read():
    config = {**SMALL, "num_local_experts": 8, "num_experts_per_tok": 2}
    first = next(layer for layer in llm_workload(config, context=64) if layer.name.endswith("experts.w1"))
    assert (first.copies, first.matrices, first.tokens) == (2, 2, 1)
    many = next(layer for layer in llm_workload(config, context=64, batch=10) if layer.name.endswith("experts.w1"))
    assert (many.copies, many.matrices, many.tokens) == (8, 8, 3)  # 20 tokens of experts over 8
    total = sum(layer.weight_count for layer in llm_workload("mixtral-8x7b", context=9, batch=64) if layer.has_weights)
    assert total == pytest.approx(46.6e9, rel=0.01)


def test_scales_of_groups_are_stored_with_the_weights():
    plain, grouped = (llm_workload(SMALL, context=8, group_size=size) for size in (None, 16))
    weights = sum(layer.weight_count for layer in plain if layer.has_weights)
    assert sum(layer.scales for layer in grouped) == weights // 16
    bytes_plain, bytes_grouped = (Stripes().run(layers, 4).weight_bytes for layers in (plain, grouped))
    assert bytes_grouped == bytes_plain + 2 * weights / 16
    fc = next(layer for layer in grouped if layer.scales)
    with pytest.raises(ValueError, match="a matmul has no weights to scale, but scales=3"):
        dataclasses.replace(fc, kind="matmul", scales=3)


def test_a_window_cuts_the_context():
    layers = llm_workload({**SMALL, "sliding_window": 16}, context=100)
    assert {layer.out_channels for layer in layers if layer.name.endswith("scores")} == {16}


@pytest.mark.slow
def test_configurations_come_as_names_mappings_and_objects():
    assert llm_workload(SimpleNamespace(**SMALL), context=4) == llm_workload(SMALL, context=4)
    for name in LLMS:
        assert llm_workload(name, context=4)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        ("llama-7", {}, "no language model 'llama-7'; did you mean 'llama-7b'?"),
        ({"hidden_size": 4}, {}, "config has no intermediate_size"),
        ({**SMALL, "vocab_size": 0}, {}, "config vocab_size must be at least 1, but it is 0"),
        ({**SMALL, "num_key_value_heads": 3}, {}, "num_attention_heads=8 is not a multiple of num_key_value_heads=3"),
        ({**SMALL, "num_experts_per_tok": 3}, {}, "num_experts_per_tok=3 is more than num_local_experts=1"),
        (SMALL, {"phase": "decoding"}, "phase must be one of ('prefill', 'decode'), but it is 'decoding'"),
        (SMALL, {"context": 0}, "context must be at least 1, but it is 0"),
        (SMALL, {"batch": 1.5}, "batch must be a whole number, but it is 1.5"),
        (SMALL, {"group_size": 0}, "group_size must be at least 1"),
    ],
)
def test_bad_configurations_are_named(config, options, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        llm_workload(config, **{"context": 8, **options})


def test_bits_of_a_cache_are_checked():
    with pytest.raises(ValueError, match="cache_bits must be from 1 to 16, but it is 0"):
        Stripes().run(llm_workload(SMALL, context=8), 4, cache_bits=0)
