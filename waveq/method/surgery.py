"""What users do to a model after ``attach`` that the method cannot follow: it is found, and said by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from waveq.method.settings import Settings, WaveLayer
from waveq.method.sites import site_name, weight_sites
from waveq.method.watched import Watched

__all__ = [
    "Parents",
    "UnmovedScales",
    "require_layers",
    "require_same_weights",
    "watch",
    "written_over",
]


def require_layers(model: nn.Module, layers: Sequence[WaveLayer], settings: Settings) -> None:
    """Refuse to go on for layers that are no longer part of the model.

    Raises:
        RuntimeError: names them, and layers that have come since ``attach``.
    """
    present = {id(module) for module in model.modules()}
    gone = [layer.name for layer in layers if not all(id(module) in present for module in layer.modules)]
    if not gone:
        return
    ours = {(id(module), tensor) for each in layers for module, tensor in zip(each.modules, each.tensors, strict=True)}
    fresh = [
        name
        for name, site in weight_sites(model).items()
        if (id(site.module), site.tensor) not in ours and name not in settings.skipped
    ]
    raise RuntimeError(
        f"{', '.join(gone)}: no longer part of the model, replaced since attach()"
        + (f"; {', '.join(fresh)}: there instead, and not quantised" if fresh else "")
        + ". Call wq.remove(), and attach() once the model is as it shall be trained"
    )


def require_same_weights(model: nn.Module, layers: Sequence[WaveLayer], values: Mapping[str, Tensor]) -> None:
    """Refuse to round a weight that somebody reads otherwise: what was measured is not what would be left.

    Args:
        model: attached, its layers reading quantised weights.
        layers: what ``attach`` made.
        values: the weight that each layer is to keep.

    Raises:
        RuntimeError: names a layer and who reads its weight.
    """
    for layer in layers:
        for module, tensor in zip(layer.modules, layer.tensors, strict=True):
            if not _alike(getattr(module, tensor), values[layer.name]):
                raise RuntimeError(
                    f"{type(module).__name__}.{tensor} of layer {layer.name!r} is read as something else than its "
                    "quantised weight (a parametrisation was put on top?): take that off before finalize()"
                )
    ours = {id(layer.weight): layer.name for layer in layers}
    for module_name, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            continue
        for tensor, parameter in module._parameters.items():
            if id(parameter) in ours:
                raise RuntimeError(
                    f"{site_name(module_name, tensor)!r} has come to hold the weight of layer {ours[id(parameter)]!r} "
                    "since attach() and reads it without its quantiser: untie them, or tie them before attach()"
                )


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


class Parents:
    """The modules that layers stood in at ``attach``, which may merge what they hold into the weight, and go.

    Adapters do (``merge_and_unload`` of peft): they write into a quantised weight, which is computed anew.

    Args:
        model: attached.
        layers: what ``attach`` made.
    """

    def __init__(self, model: nn.Module, layers: Sequence[WaveLayer]) -> None:
        names = {id(module): name for name, module in model.named_modules()}
        self._of = {layer.name: _above(model, names[id(layer.modules[0])]) for layer in layers}

    def gone(self, model: nn.Module) -> list[str]:
        """A sentence on layers that are left of modules that are gone, once."""
        present = {id(module) for module in model.modules()}
        found = {
            name: next((type(parent).__name__ for parent in parents if id(parent) not in present), None)
            for name, parents in self._of.items()
        }
        told = ", ".join(f"{name} (in a {kind})" for name, kind in found.items() if kind is not None)
        if not told:
            return []
        self._of = {}
        return [
            f"modules that layers stood in are gone since attach(): {told}. If they merged anything into the weights, "
            "as adapters do, it is lost: quantised weights are computed anew whenever they are read. Merge before "
            "attach(), or after wq.remove()."
        ]


def _above(model: nn.Module, name: str) -> list[nn.Module]:
    parts = name.split(".")
    return [model.get_submodule(".".join(parts[:count])) for count in range(1, len(parts))]


class UnmovedScales:
    """Learned scales that no optimizer moves: it was built before ``attach``, which made them.

    Versions of the tensors tell, taken at the end of a step and looked at when the next one begins: in between only the
    user's optimizer writes.
    """

    enough = 20  # steps in which the weights moved and the scales did not

    def __init__(self, layers: Sequence[WaveLayer]) -> None:
        self._layers = [layer for layer in layers if self._scales(layer)]
        self._before: dict[str, tuple[Any, ...]] = {}
        self._still: dict[str, int] = {}
        self._told = False

    @staticmethod
    def _scales(layer: WaveLayer) -> list[Tensor]:
        return [parameter for parameter in layer.state.parameters() if parameter.requires_grad]

    def look(self) -> None:
        """At the beginning of a step."""
        for layer in list(self._layers):
            if layer.name not in self._before:
                continue
            weight, *scales = self._before[layer.name]
            now = self._scales(layer)
            if layer.weight._version == weight or not layer.state.is_quantized or len(now) != len(scales):
                continue  # the last where scales were frozen, or thawed, since
            if any(scale._version != before for scale, before in zip(now, scales, strict=True)):
                self._layers.remove(layer)
                self._still.pop(layer.name, None)
            else:
                self._still[layer.name] = self._still.get(layer.name, 0) + 1

    def remember(self) -> None:
        """At the end of a step."""
        for layer in self._layers:
            self._before[layer.name] = layer.weight._version, *(scale._version for scale in self._scales(layer))

    def unmoved(self, *, at_end: bool = False) -> list[str]:
        """A sentence on the layers whose scales stand still, once."""
        least = 2 if at_end else self.enough
        names = [name for name, count in self._still.items() if count >= least]
        if not names or self._told:
            return []
        self._told = True
        return [
            f"no optimizer moves what is learned beside the weights of {', '.join(names)} (scales, ranges): build the "
            "optimizer from model.parameters() after attach(), which makes them, or freeze them with requires_grad_."
        ]


def written_over(layers: Sequence[WaveLayer]) -> list[str]:
    """A sentence on the layers whose computed weights somebody has written into."""
    names = [layer.name for layer in layers if layer.state.watched is not None and layer.state.watched.was_written()]
    if not names:
        return []
    return [
        f"somebody wrote into the quantised weights of {', '.join(names)} (apply(init), mul_, clamp_): they are "
        "computed anew whenever they are read, and what was written is lost. Write into what is trained, "
        "layer.parametrizations.weight.original, or do it before attach()."
    ]


def watch(layers: Sequence[WaveLayer], *, on: bool) -> None:
    """Begin or end to look for such writing, which takes a copy of each weight meanwhile."""
    for layer in layers:
        layer.state.__dict__["watched"] = Watched() if on else None
