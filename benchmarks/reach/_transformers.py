"""Networks of transformers, from configurations of a few dozen units; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.reach._case import Case, tokens

__all__ = ["CASES"]

_SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LLAMA = {**_SMALL, "num_key_value_heads": 1, "head_dim": 16}


def _case(
    name: str,
    why: str = "",
    *,
    config: str,
    inputs: Callable[[], Mapping[str, Any]] | None = None,
    attach: dict[str, Any] | None = None,
    **options: Any,
) -> Case:
    def make() -> nn.Module:
        import transformers

        kind: Any = getattr(transformers, name)
        model: nn.Module = kind(getattr(transformers, config)(**options))
        return model

    return Case(f"transformers {name}", "transformers", make, inputs or tokens(), attach or {}, why)


def _sound() -> dict[str, Any]:
    return {"input_values": torch.randn(2, 800)}


def _spectrum() -> dict[str, Any]:
    return {"input_features": torch.randn(2, 16, 40), "decoder_input_ids": torch.randint(5, 60, (2, 6))}


def _pixels() -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


_ENCODER_DECODER: dict[str, Any] = {
    "vocab_size": 64,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
_EXPERTS = {"attach": {"also": ("*experts*",)}, "num_experts_per_tok": 2}

CASES = (
    _case("BertForMaskedLM", "embedding and head tied", config="BertConfig", **_SMALL),
    _case("BertForSequenceClassification", config="BertConfig", **_SMALL),
    _case("RobertaForMaskedLM", "embedding and head tied", config="RobertaConfig", **_SMALL),
    _case(
        "DistilBertForMaskedLM",
        "embedding and head tied",
        config="DistilBertConfig",
        **{"vocab_size": 64, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 64},
    ),
    _case(
        "AlbertForMaskedLM",
        "one block used by all layers",
        config="AlbertConfig",
        **{**_SMALL, "embedding_size": 16, "inner_group_num": 1},
    ),
    _case("DebertaV2ForSequenceClassification", config="DebertaV2Config", **_SMALL),
    _case(
        "GPT2LMHeadModel",
        "Conv1D, embedding and head tied",
        config="GPT2Config",
        **{"vocab_size": 64, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2},
    ),
    _case(
        "OPTForCausalLM",
        "embedding and head tied",
        config="OPTConfig",
        **{**_SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32},
    ),
    _case("LlamaForCausalLM", config="LlamaConfig", **_LLAMA),
    _case("Qwen2ForCausalLM", "embedding and head tied", config="Qwen2Config", tie_word_embeddings=True, **_LLAMA),
    _case("GemmaForCausalLM", "embedding and head tied, scaled", config="GemmaConfig", **_LLAMA),
    _case(
        "MixtralForCausalLM",
        "experts in one tensor",
        config="MixtralConfig",
        **{**_LLAMA, **_EXPERTS, "num_local_experts": 4},
    ),
    _case(
        "Qwen3MoeForCausalLM",
        "experts in one tensor",
        config="Qwen3MoeConfig",
        **{**_LLAMA, **_EXPERTS, "num_experts": 4, "moe_intermediate_size": 16},
    ),
    _case(
        "T5ForConditionalGeneration",
        "one embedding, three holders",
        config="T5Config",
        inputs=tokens("input_ids decoder_input_ids"),
        **{"vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2},
    ),
    _case(
        "BartForConditionalGeneration",
        "one embedding, four holders",
        config="BartConfig",
        inputs=tokens("input_ids decoder_input_ids"),
        **{**_ENCODER_DECODER, "max_position_embeddings": 64},
    ),
    _case(
        "WhisperForConditionalGeneration",
        "convolutions over sound, tied head",
        config="WhisperConfig",
        inputs=_spectrum,
        **{**_ENCODER_DECODER, "num_mel_bins": 16, "max_source_positions": 20, "max_target_positions": 20},
    ),
    _case(
        "Wav2Vec2ForCTC",
        "weight norm in its positions",
        config="Wav2Vec2Config",
        inputs=_sound,
        attach={"skip": ("*pos_conv_embed*",)},
        **{
            **_SMALL,
            "conv_dim": (16, 16),
            "conv_kernel": (10, 3),
            "conv_stride": (5, 2),
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 4,
            "mask_time_prob": 0.0,
            "layerdrop": 0.0,
        },
    ),
    _case(
        "CLIPModel",
        "two towers",
        config="CLIPConfig",
        inputs=lambda: {**tokens()(), **_pixels()},
        text_config={**_SMALL, "projection_dim": 16},
        vision_config={**_SMALL, "image_size": 32, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
    ),
    _case(
        "SegformerForSemanticSegmentation",
        "segmentation",
        config="SegformerConfig",
        inputs=_pixels,
        **{
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [8, 16, 16, 32],
            "num_attention_heads": [1, 1, 2, 2],
            "decoder_hidden_size": 16,
        },
    ),
    _case(
        "MambaForCausalLM",
        "state space, A_log in float",
        config="MambaConfig",
        **{"vocab_size": 64, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2},
    ),
)
