"""Networks of torchvision: classification, segmentation and detection."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.reach._case import Case, image

__all__ = ["CASES"]


def _case(name: str, why: str = "", *, size: int = 32, room: str = "", **options: Any) -> Case:
    def make() -> nn.Module:
        import torchvision.models

        models: Any = getattr(torchvision.models, room) if room else torchvision.models
        return getattr(models, name)(num_classes=5, **options)  # type: ignore[no-any-return]

    return Case(f"torchvision {name}", "torchvision", make, image(size), {}, why)


def _vision_transformer() -> nn.Module:
    from torchvision.models import VisionTransformer

    model: nn.Module = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=5
    )
    return model


def _fully_convolutional() -> nn.Module:
    """``fcn_resnet50`` on a smaller backbone."""
    from torchvision.models import resnet18
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    backbone = IntermediateLayerGetter(resnet18(), {"layer4": "out", "layer3": "aux"})
    model: nn.Module = FCN(backbone, FCNHead(512, 5), FCNHead(256, 5))
    return model


def _detection() -> nn.Module:
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    model.transform.fixed_size = (96, 96)  # instead of 320
    return model  # type: ignore[no-any-return]


def _boxes() -> tuple[Any, ...]:
    target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 40.0]]), "labels": torch.tensor([1])}
    return ([torch.rand(3, 64, 64), torch.rand(3, 64, 64)], [target, target])


_PLAIN: dict[str, Any] = {"weights": None, "weights_backbone": None}

CASES = (
    _case("resnet18"),
    _case("mobilenet_v2", "depthwise"),
    _case("mobilenet_v3_small", "squeeze and excite"),
    _case("shufflenet_v2_x0_5", "channels shuffled"),
    _case("squeezenet1_1", size=64),
    _case("googlenet", "auxiliary heads, unused in evaluation", aux_logits=True, init_weights=False),
    _case("mnasnet0_5"),
    _case("regnet_x_400mf", "grouped"),
    Case(
        "torchvision VisionTransformer",
        "torchvision",
        _vision_transformer,
        image(),
        {},
        "MultiheadAttention's in_proj and out_proj",
    ),
    _case("deeplabv3_mobilenet_v3_large", "segmentation", room="segmentation", size=32, **_PLAIN),
    Case("torchvision FCN", "torchvision", _fully_convolutional, image(), {}, "segmentation, auxiliary head"),
    _case("lraspp_mobilenet_v3_large", "segmentation", room="segmentation", size=32, **_PLAIN),
    Case("torchvision ssdlite320", "torchvision", _detection, _boxes, {}, "detection: losses in training, boxes after"),
)
