"""What of a model is quantised and what is not: one row a parameter tensor, with the reason."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from waveq.functional import phase
from waveq.method.settings import Settings, WaveLayer
from waveq.method.sites import EMBEDDINGS, site_name

__all__ = ["Row", "Summary", "count_weights", "never_ran", "own_forward", "summarize"]


_PUBLISHED = ("torch.nn.", "transformers.pytorch_utils")  # whose layers are known


@dataclass(frozen=True, kw_only=True)
class Row:
    """One parameter tensor.

    Attributes:
        name: of the parameter in the plain model.
        tied: the other names that hold the same tensor.
        module: its module's name.
        kind: the class of that module.
        shape: of the tensor.
        share: of all values of the model's parameters, 0 to 1.
        layer: the name in policies of the layer that quantises it; None where none does.
        why: the reason where none does; "" otherwise.
        calls: how often the quantised weight was read; None where a compiled graph reads it, which counts nothing.
        bits: total bits as they would be frozen now; None in floating point.
        beta: real magnitude bits.
        scales: how many sets of levels the weights lie on: 1, or one for each output channel, or slice of a stack.
        input_bits: of the layer's inputs; None in floating point.
        input_beta: the inputs' real bits less one, where they are or were learned.
        input_signed: whether inputs have a sign; None until one was seen.
        distance: of the weights to their levels, the mean in units of the distance between levels: 0 on them, 1/4 where
            the weights are spread evenly.
    """

    name: str
    module: str
    kind: str
    shape: tuple[int, ...]
    share: float
    tied: tuple[str, ...] = ()
    layer: str | None = None
    why: str = ""
    calls: int | None = 0
    bits: int | None = None
    beta: float | None = None
    scales: int | None = None
    input_bits: int | None = None
    input_beta: float | None = None
    input_signed: bool | None = None
    distance: float | None = None


class Summary(Sequence[Row]):
    """The rows of ``wq.summary()``; its text is the table.

    Attributes:
        share: of the values of all parameters that is quantised, 0 to 1.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = tuple(rows)
        self.share = sum(row.share for row in rows if row.layer is not None)

    def __getitem__(self, place: int | slice) -> Row:  # type: ignore[override]
        return self._rows[place]  # type: ignore[return-value]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    @property
    def totals(self) -> str:
        """One sentence: how much is quantised, and the largest tensors that are not."""
        tensors = sum(row.layer is not None for row in self._rows)
        rest = sorted((r for r in self._rows if r.layer is None and len(r.shape) > 1), key=lambda r: -r.share)
        large = [f"{row.name} {_percent(row.share)} ({row.why})" for row in rest[:3] if row.share >= 0.01]
        left = f"; in floating point: {', '.join(large)}" if large else ""
        return f"{_percent(self.share)} of all weights are quantised, in {tensors} of {len(self)} tensors{left}."

    def __str__(self) -> str:
        heads = (
            *("tensor", "module", "shape", "share", "attached", "calls"),
            *("bits", "beta", "scales", "inputs", "off levels"),
        )
        cells = [heads, *map(_cells, self._rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        return "\n".join([*lines, self.totals])

    __repr__ = __str__


def _cells(row: Row) -> tuple[str, ...]:
    sign = {None: "sign not seen", True: "signed", False: "unsigned"}[row.input_signed]
    return (
        " = ".join((row.name, *row.tied)),
        row.kind,
        "x".join(map(str, row.shape)) or "1",
        _percent(row.share),
        "yes" if row.layer is not None else f"no: {row.why}",
        "-" if row.layer is None else "compiled" if row.calls is None else str(row.calls),
        "float" if row.bits is None else str(row.bits),
        "-" if row.beta is None else f"{row.beta:.2f}",
        "-" if row.scales is None else str(row.scales),
        "float" if row.input_bits is None else f"{row.input_bits}, {_of_inputs(row)}{sign}",
        "-" if row.distance is None else f"{row.distance:.3f}",
    )


def _of_inputs(row: Row) -> str:
    return "" if row.input_beta is None else f"beta {row.input_beta:.2f}, "


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


@torch.no_grad()
def summarize(model: nn.Module, layers: Sequence[WaveLayer], settings: Settings, *, distances: bool = True) -> Summary:
    """One row for each parameter tensor of the user's; what the method itself learns is left out.

    Args:
        model: attached.
        layers: what ``attach`` made.
        settings: what it decided.
        distances: whether the distances to the levels are wanted, which look at all weights.
    """
    attached = {id(layer.weight): layer for layer in layers}
    total = max(1, count_weights(model))
    rows: dict[int, Row] = {}
    for module_name, module, tensor, parameter in _parameters(model):
        name = f"{module_name}.{tensor}" if module_name else tensor
        if (known := rows.get(id(parameter))) is not None:
            rows[id(parameter)] = replace(known, tied=(*known.tied, name))
            continue
        layer = attached.get(id(parameter))
        rows[id(parameter)] = Row(
            name=name,
            module=module_name,
            kind=_plain_kind(module).__name__,
            shape=tuple(parameter.shape) if _has_shape(parameter) else (),
            share=_size(parameter) / total,
            why=_why_not(module, module_name, tensor, parameter, settings) if layer is None else "",
            **({} if layer is None else _of_layer(layer, distances)),
        )
    return Summary(list(rows.values()))


def _parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, str, nn.Parameter]]:
    """Name of the module, module, name of the tensor there and tensor; without what the method itself learns."""
    for name, module in model.named_modules():
        if ".parametrizations." not in f".{name}.":
            for tensor, parameter in _own_parameters(module):
                yield name, module, tensor, parameter


def _own_parameters(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A module's parameters under their plain names: a parametrised one is what its values are made from."""
    for tensor, parameter in module._parameters.items():
        if parameter is not None:
            yield tensor, parameter
    if parametrize.is_parametrized(module):
        for tensor, chain in module.parametrizations.items():  # type: ignore[union-attr, operator]
            for inner, parameter in chain._parameters.items():
                if parameter is not None:
                    yield tensor if inner == "original" else f"{tensor}.{inner}", parameter


def _plain_kind(module: nn.Module) -> type[nn.Module]:
    """The user's class, beneath the one that torch puts before it for a parametrisation."""
    kind = type(module)
    return kind.__mro__[1] if parametrize.is_parametrized(module) else kind


def _of_layer(layer: WaveLayer, distances: bool) -> dict[str, Any]:
    state = layer.state
    off = math.nan
    if distances:
        turns = phase(layer.wave_input("quantizer"), state.wave_beta(), state.grid)
        off = float((turns - turns.round()).abs().mean())
    return {
        "layer": layer.name,
        "calls": None if state.compiled else state.reads,
        "bits": layer.total_bits,
        "beta": layer.beta,
        "scales": state.quantizer.numbers,
        "input_bits": state.activation_bits,
        "input_beta": None if state.inputs is None else float(state.inputs.beta.detach()),
        "input_signed": None if state.signed_now < 0 or state.activation is None else state.signed_now == 1,
        "distance": None if math.isnan(off) else off,
    }


def _why_not(module: nn.Module, module_name: str, tensor: str, parameter: nn.Parameter, settings: Settings) -> str:
    name = site_name(module_name, tensor)
    if name in settings.skipped:
        return "skip"
    if not _has_shape(parameter):
        return "no weights yet"
    if parametrize.is_parametrized(module, tensor.split(".")[0]):
        return "another parametrisation"
    if isinstance(module, EMBEDDINGS):
        return f"embedding, also=({name!r},)"
    if parameter.ndim < 2:
        return "bias" if tensor.startswith("bias") or tensor.endswith("bias") else "one axis"
    return f"no layer that is known, also=({name!r},)"


def count_weights(model: nn.Module) -> int:
    """Values of all the user's parameters, each tensor once."""
    return sum({id(each): _size(each) for *_, each in _parameters(model)}.values())


def _size(parameter: nn.Parameter) -> int:
    return parameter.numel() if _has_shape(parameter) else 0


def _has_shape(parameter: object) -> bool:
    return not isinstance(parameter, nn.parameter.UninitializedParameter)


def never_ran(layers: Sequence[WaveLayer], steps: int) -> list[str]:
    """Sentences on layers that training never reached, and on input quantisers that never saw an input."""
    ran = [layer for layer in layers if layer.state.ran]
    if not steps or not ran:
        return []
    idle = [layer.name for layer in layers if not layer.state.ran]
    deaf = [
        each.name
        for each in ran
        if each.state.activation is not None and not (each.state.input_calls or each.state.compiled)
    ]
    found = [
        (idle, "never ran: {}. Nothing was learned of these bits, and a budget leaves them out: skip these layers."),
        (
            deaf,
            "the inputs were never quantised in: {}. Their weights are read, but no call reaches the modules "
            "themselves: leave them out of activation_bits.",
        ),
    ]
    return [text.format(", ".join(names)) for names, text in found if names]


def own_forward(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Layers of a class that is derived from a known one and computes something else, each with that class's name.

    Args:
        modules: by name.
    """
    found = {}
    for name, module in modules.items():
        kind = _plain_kind(module)
        known = next((each for each in kind.__mro__ if each.__module__.startswith(_PUBLISHED)), None)
        formulas = ("forward", "_conv_forward")
        if known not in (None, nn.Module) and any(
            getattr(kind, f, None) is not getattr(known, f, None) for f in formulas
        ):
            found[name] = kind.__name__
    return found
