"""Workloads of decoder-only language models from their configuration: nothing is downloaded and nothing is run.

Llama-, Mistral- and Mixtral-like models, T tokens at once over a context of C (prefill: T = C; decode: T = 1 for each
sequence), N sequences:

    q, k, v, o, gate, up, down     linear, N T tokens; of E experts each token takes k, spread evenly
    scores, values                 (T G x d) @ (d x C) and (T G x C) @ (C x d), for N K key heads of G query heads each
    lm_head                        linear, N tokens: only the last ones are needed

In decode the keys and values of the context are a cache that was stored before the run. Names are those that
transformers gives, so that a policy of such a model fits. The whole square of scores is computed, as without a mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from stripes_sim.bits import nearest
from stripes_sim.layers import LayerShape

__all__ = ["LLMS", "Phase", "llm_workload"]

Phase = Literal["prefill", "decode"]


def _config(width: int, inner: int, depth: int, heads: int, keys: int, words: int, **more: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": words,
        **more,
    }


LLMS: dict[str, dict[str, int]] = {
    "llama-7b": _config(4096, 11008, 32, 32, 32, 32000),
    "llama-13b": _config(5120, 13824, 40, 40, 40, 32000),
    "llama-2-70b": _config(8192, 28672, 80, 64, 8, 32000),
    "llama-3-8b": _config(4096, 14336, 32, 32, 8, 128256),
    "llama-3-70b": _config(8192, 28672, 80, 64, 8, 128256),
    "mistral-7b": _config(4096, 14336, 32, 32, 8, 32000, sliding_window=4096),
    "mixtral-8x7b": _config(4096, 14336, 32, 32, 8, 32000, num_local_experts=8, num_experts_per_tok=2),
}
"""The published configurations by name, in the fields of transformers' config.json."""

_REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_OPTIONAL = ("num_key_value_heads", "head_dim", "sliding_window", "num_local_experts", "num_experts_per_tok")


@dataclass(frozen=True)
class _Run:
    """One run: sequences, new tokens of each, length of the context that they attend to, values that share a scale."""

    sequences: int
    tokens: int
    context: int
    stored: bool
    group_size: int | None


def llm_workload(
    config: str | Mapping[str, Any] | Any,
    *,
    context: int,
    phase: Phase = "decode",
    batch: int = 1,
    group_size: int | None = None,
) -> list[LayerShape]:
    """The layers of one run of a language model.

    Args:
        config: a name of `LLMS`, a mapping with the fields of transformers' config.json, or an object that has them.
        context: tokens that are attended to; a sliding window cuts them.
        phase: "prefill" computes all of them at once, "decode" the next one.
        batch: sequences; ``run(..., batch=1)`` is meant for the result.
        group_size: weights that share a 16-bit scale; None stores no scales.

    Returns:
        `LayerShape` objects. Experts that no token takes are not among them, so ``weight_bytes`` counts those taken.

    Raises:
        ValueError, TypeError: an unknown name or phase, a field that is missing or no positive integer.

    >>> layers = llm_workload("llama-7b", context=4096)
    >>> sum(layer.weight_count for layer in layers if layer.has_weights) // 2  # bytes at 4 bits
    3303538688
    >>> sum(layer.stored_before for layer in layers) * 2  # bytes of the cache at 16 bits
    2147483648
    """
    if phase not in get_args(Phase):
        raise ValueError(f"phase must be one of {get_args(Phase)}, but it is {phase!r}")
    sizes = _sizes(config)
    given = {"context": context, "batch": batch, **({} if group_size is None else {"group_size": group_size})}
    for argument, value in given.items():
        _positive(argument, value)
    attended = min(context, sizes.get("sliding_window", context))
    run = _Run(batch, context if phase == "prefill" else 1, attended, phase == "decode", group_size)
    layers = [_lookup(sizes, run)]
    for number in range(sizes["num_hidden_layers"]):
        layers += _block(f"model.layers.{number}", sizes, run)
    head = _linear("lm_head", sizes["hidden_size"], sizes["vocab_size"], batch, run)
    return [*layers, head]


def _sizes(config: Any) -> dict[str, int]:
    if isinstance(config, str):
        if config not in LLMS:
            raise ValueError(f"no language model {config!r}{nearest(config, [*LLMS])} (known: {', '.join(LLMS)})")
        config = LLMS[config]
    keys = (*_REQUIRED, *_OPTIONAL)
    found = [config.get(key) if isinstance(config, Mapping) else getattr(config, key, None) for key in keys]
    said = {key: value for key, value in zip(keys, found, strict=True) if value is not None}
    for key in _REQUIRED:
        if key not in said:
            raise ValueError(f"config has no {key}, which a Llama-like model needs (needed: {', '.join(_REQUIRED)})")
    sizes = {key: _positive(f"config {key}", value) for key, value in said.items()}
    heads = sizes["num_attention_heads"]
    groups = sizes.setdefault("num_key_value_heads", heads)
    sizes.setdefault("head_dim", sizes["hidden_size"] // heads)
    if heads % groups:
        raise ValueError(f"config num_attention_heads={heads} is not a multiple of num_key_value_heads={groups}")
    taken, experts = sizes.get("num_experts_per_tok", 1), sizes.get("num_local_experts", 1)
    if taken > experts:
        raise ValueError(f"config num_experts_per_tok={taken} is more than num_local_experts={experts}")
    return sizes


def _positive(what: str, value: object) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{what} must be a whole number, but it is {value!r}")
    number = int(value.__index__())
    if number < 1:
        raise ValueError(f"{what} must be at least 1, but it is {number}")
    return number


def _block(name: str, sizes: dict[str, int], run: _Run) -> list[LayerShape]:
    width, head, keys = sizes["hidden_size"], sizes["head_dim"], sizes["num_key_value_heads"]
    queries, rows = sizes["num_attention_heads"], run.sequences * run.tokens
    attention = f"{name}.self_attn"
    return [
        _linear(f"{attention}.q_proj", width, queries * head, rows, run),
        _linear(f"{attention}.k_proj", width, keys * head, rows, run),
        _linear(f"{attention}.v_proj", width, keys * head, rows, run),
        _product(f"{attention}.scores", head, run.context, sizes, run),
        _product(f"{attention}.values", run.context, head, sizes, run),
        _linear(f"{attention}.o_proj", queries * head, width, rows, run),
        *_feed_forward(name, sizes, run),
    ]


def _feed_forward(name: str, sizes: dict[str, int], run: _Run) -> list[LayerShape]:
    width, inner, rows = sizes["hidden_size"], sizes["intermediate_size"], run.sequences * run.tokens
    experts, taken = sizes.get("num_local_experts", 1), sizes.get("num_experts_per_tok", 1)
    if experts == 1:
        place, copies, parts = f"{name}.mlp", 1, ("gate_proj", "up_proj", "down_proj")
        router = []
    else:
        place, copies, parts = f"{name}.block_sparse_moe.experts", min(experts, rows * taken), ("w1", "w3", "w2")
        router = [_linear(f"{name}.block_sparse_moe.gate", width, experts, rows, run)]
        rows = -(-rows * taken // copies)
    first, second, last = parts
    return [
        *router,
        _linear(f"{place}.{first}", width, inner, rows, run, copies),
        _linear(f"{place}.{second}", width, inner, rows, run, copies),
        _linear(f"{place}.{last}", inner, width, rows, run, copies),
    ]


def _linear(name: str, inputs: int, outputs: int, tokens: int, run: _Run, copies: int = 1) -> LayerShape:
    scales = 0 if run.group_size is None else copies * outputs * -(-inputs // run.group_size)
    return LayerShape(
        name=name,
        kind="linear",
        in_channels=inputs,
        out_channels=outputs,
        tokens=tokens,
        copies=copies,
        matrices=copies,
        scales=scales,
    )


def _product(name: str, inputs: int, outputs: int, sizes: dict[str, int], run: _Run) -> LayerShape:
    copies = run.sequences * sizes["num_key_value_heads"]
    return LayerShape(
        name=name,
        kind="matmul",
        in_channels=inputs,
        out_channels=outputs,
        tokens=run.tokens * (sizes["num_attention_heads"] // sizes["num_key_value_heads"]),
        copies=copies,
        stored_before=copies * inputs * outputs if run.stored else 0,
    )


def _lookup(sizes: dict[str, int], run: _Run) -> LayerShape:
    return LayerShape(
        name="model.embed_tokens",
        kind="embedding",
        in_channels=sizes["vocab_size"],
        out_channels=sizes["hidden_size"],
        tokens=run.sequences * run.tokens,
    )
