"""Networks of timm, by name, with fewer and narrower blocks where a keyword allows it."""

from __future__ import annotations

import importlib
from typing import Any

from torch import nn

from benchmarks.reach._case import Case, image

__all__ = ["CASES"]


def _case(name: str, why: str = "", *, size: int = 32, attach: dict[str, Any] | None = None, **options: Any) -> Case:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, num_classes=5, **options)  # type: ignore[no-any-return]

    return Case(f"timm {name}", "timm", make, image(size), attach or {}, why)


def _built(name: str, module: str, why: str, **options: Any) -> Case:
    """A class of timm whose named models are all large."""

    def make() -> nn.Module:
        return getattr(importlib.import_module(f"timm.models.{module}"), name)(num_classes=5, **options)  # type: ignore

    return Case(f"timm {name}", "timm", make, image(), {}, why)


_VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}

CASES = (
    _case("vit_tiny_patch16_224", **_VIT),
    _case("deit_tiny_distilled_patch16_224", "two heads", **_VIT),
    _case("eva02_tiny_patch14_224", "rotary positions", **_VIT),
    _case("beit_base_patch16_224", "relative positions", **_VIT),
    _case("cait_xxs24_224", "class attention", **{**_VIT, "num_heads": 2}),
    _case(
        "swin_tiny_patch4_window7_224",
        "windows",
        img_size=32,
        patch_size=2,
        window_size=4,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(1, 2),
    ),
    _case("convnext_atto", "depthwise 7x7, layer scale", depths=(1, 1, 1, 1), dims=(8, 16, 16, 32)),
    _built("MlpMixer", "mlp_mixer", "MLP over tokens", img_size=32, patch_size=8, num_blocks=2, embed_dim=32),
    _built("MetaFormer", "metaformer", "pooling in attention's place", depths=(1, 1, 1, 1), dims=(8, 16, 16, 32)),
    _case("efficientnet_b0", "depthwise, squeeze and excite"),
    _case("tf_efficientnet_lite0", "convolutions that pad for themselves"),
    _case("mobilenetv3_small_050"),
    _case("regnety_002", "grouped"),
    _case("densenet121", "concatenation", growth_rate=8, block_config=(2, 2, 2, 2)),
    _case("ghostnet_050"),
    _built(
        "ResNetV2",
        "resnetv2",
        "standardised convolutions",
        layers=(1, 1, 1, 1),
        channels=(128, 128, 128, 128),
        stem_chs=32,
    ),
    _case("nf_resnet26", "scaled standardised convolutions"),
    _case("repvgg_a0", "branches to be merged"),
    _case("mobileone_s0", "branches to be merged"),
    _case("levit_128s", "linear layers with batch norm", size=224),
    _case("mobilevit_xxs", "convolutions and attention", size=64),
)
