"""Quantised weights of several layers, and their waves, behind one autograd node a group.

All that learns beside the weights (beta, scales) enters through ``Formulas``: the quantiser's levels on (L,) vectors.
The loops say what goes back to the numbers in a layer's row, and autograd on those vectors takes it on. That happens
inside the node: outside it, a second backward pass would find freed tensors, and checkpointing would count them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from waveq._kernels.constants import constants
from waveq._kernels.engine import Column, Engine, Table, rows_of
from waveq._kernels.layout import narrowed
from waveq._kernels.levels import Given, Levels, Quantizer
from waveq._kernels.parts import Parts, in_parts, out_of_parts
from waveq.functional import Grid

__all__ = ["GROUP", "Formulas", "Layer", "Record", "Sines", "groups_of", "hand_out", "records_of", "stacked", "waves"]

_PITCH, _GAIN, _DIVISOR, _V_DIVISOR, _PERIODS = range(5)  # the numbers of a layer that gradients go through

GROUP = 1 << 18  # weights, 1 MB: far below the 25 MB in which DistributedDataParallel sends gradients


class Layer(Protocol):
    """What a call must know of a layer beside its weight."""

    bits_now: int
    _buffers: dict[str, Any]
    _modules: dict[str, Any]

    @property
    def grid(self) -> Grid:
        """The grid at the present bits."""

    def settle_alike(self, layers: Sequence[Any], grid: Grid, parts: Parts | None) -> tuple[Tensor, ...]:
        """What follows from beta in layers that differ in numbers alone, (R,) each: a layer's number in its rows.

        beta, b, the beta that sets the wave, the steps k of b, the periods n of that beta, the stretch c.
        """


class Sines(NamedTuple):
    """R0 of some layers. Both vectors hold the same values.

    Attributes:
        by_weights: (n,), whose gradient goes to the weights and what their coordinate follows from.
        by_beta: (n,), whose gradient goes to the betas that set the waves.
        at: (n,), those betas, constant.
    """

    by_weights: Tensor
    by_beta: Tensor
    at: Tensor


def groups_of(sizes: Sequence[int]) -> list[slice]:
    """Runs of neighbours that have no more than ``GROUP`` weights together; a larger layer is a run of its own.

    A node waits for the last gradient of its layers: gradients wait for no more than so many weights.

    Example:
        >>> groups_of([1000, 2000, 300_000, 5])
        [slice(0, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    starts, total = [0], 0
    for i, size in enumerate(sizes):
        if i > starts[-1] and total + size > GROUP:
            starts.append(i)
            total = 0
        total += size
    return [slice(first, last) for first, last in itertools.pairwise([*starts, len(sizes)])]


class _OfManyLayers(Given):
    """What is found in the weights is found by the engine, once it is asked for."""

    def __init__(self, engine: Engine, weights: Sequence[Tensor], parts: Parts | None, tanh: bool, *rest: Any) -> None:
        super().__init__(*rest)
        self._engine, self._weights, self._parts, self._tanh = engine, weights, parts, tanh
        self.found: Tensor | None = None
        self.source: Tensor | None = None

    @property
    def largest(self) -> Tensor:
        if self.found is None:
            with torch.no_grad():
                self.found = self._engine.largest(self._weights, self._parts)
        return self.found

    @property
    def reach(self) -> Tensor:
        if self.source is None:
            reach = self._engine.tanh(self.largest) if self._tanh else self.largest
            self.source = reach.detach().requires_grad_(torch.is_grad_enabled())
        return self.source


class Formulas:
    """The levels of L layers of one kind at this moment: R rows of numbers, one a layer, or one an output channel.

    Attributes:
        table: the numbers, for an engine.
        at: (L,), the betas that set the waves, constant.
        counts: (L,), numbers of weights.
        inputs: for each vector that something is learned through, the layers' own tensors: betas, learned parameters.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        weights: Sequence[Tensor],
        engine: Engine,
        *,
        rounds: bool,
        wave: bool,
        raw: bool = False,
    ) -> None:
        first, device = layers[0], weights[0].device
        quantizers = [layer._modules["quantizer"] for layer in layers]
        grid, tanh = first.grid, quantizers[0].squash == "tanh" and not raw
        dtype = torch.float64 if weights[0].dtype is torch.float64 else torch.float32
        sizes = tuple(weight.numel() for weight in weights)
        self.counts = counts = self._counts_by_row = constants(sizes, dtype, device)
        self._outputs, parts = [], None
        if quantizers[0].channels is not None and not raw:
            self._outputs = [quantizer.channels for quantizer in quantizers]
            each = tuple(where.count(weight) for where, weight in zip(self._outputs, weights, strict=True))
            parts, weights = Parts(each), self.laid_out(weights)
            counts = parts.spread(constants(tuple(n // c for n, c in zip(sizes, each, strict=True)), dtype, device))
            self._counts_by_row = parts.spread(self.counts)
        # tensors that are made here are none of a reader's checkpoint; and exp2, which keeps what it returns, would
        # keep itself alive if that were kept as it is
        with torch.autograd.graph.saved_tensors_hooks(_apart, _apart):
            beta, bits, at, steps, periods, stretch = first.settle_alike(layers, grid, parts)
            given = _OfManyLayers(engine, weights, parts, tanh, grid, bits, at.detach(), stretch, counts)
            given.steps = steps
            twin, learned = _twin(quantizers, parts)
            levels = Levels(pitch=1.0, low=0.0, high=0.0) if raw else twin.levels(given)
        largest = given.largest if tanh or (wave and grid.shift and not raw) else counts  # any but 0 will do
        rows = rows_of(levels, grid.shift, periods if periods.dtype is dtype else periods.to(dtype), largest)
        self.table = Table(rows, tanh, levels.closed, rounds, wave, parts)
        self.at = at.detach() if parts is None else parts.first(at.detach())
        v = levels.divisor if levels.wave_divisor is None else levels.wave_divisor
        self._values = [levels.pitch, levels.gain, levels.divisor, v, periods]
        self._sources = [beta, *learned.values(), given.source]
        self._slopes: dict[int, list[Tensor | None]] = {}
        self.inputs = [[layer._buffers["beta"] for layer in layers]]
        for name in learned:
            self.inputs.append([layer._modules["quantizer"]._parameters[name] for layer in layers])

    def laid_out(self, tensors: Sequence[Any], at: slice | list[int] = slice(None)) -> list[Any]:
        """Weights of some layers, or what lies beside them (None where nothing does), as an engine takes them."""
        return in_parts(tensors, _chosen(self._outputs, at)) if self._outputs else list(tensors)

    def laid_back(self, made: list[Tensor], weights: Sequence[Tensor], at: slice | list[int]) -> list[Tensor]:
        """What an engine has made of some layers' weights, in their shapes."""
        return out_of_parts(made, _chosen(self._outputs, at), weights) if made and self._outputs else made

    def periods(self, at: slice | list[int]) -> Tensor:
        """(n,), n of the betas that set some layers' waves."""
        found = self.table.rows[:, Column.PERIODS]
        return (found if self.table.parts is None else self.table.parts.first(found))[at]

    def by_row(self, numbers: Tensor, at: slice | list[int]) -> Tensor:
        """(rows,) from one number for each of some layers."""
        return numbers if self.table.parts is None else self.table.parts.some(at).spread(numbers)

    def by_layer(self, source: int, share: Tensor, at: slice | list[int]) -> Sequence[Tensor]:
        """What reaches each of some layers' own tensors, from the (rows,) share of one of ``inputs``."""
        if self.table.parts is None:
            return share.unbind()
        parts = self.table.parts.some(at)
        if source == 0:
            return parts.totals(share).unbind()
        return torch.split(share, list(parts.counts))

    def back(
        self,
        at: slice | list[int],
        sums: Tensor,
        *,
        by_values: bool,
        slopes: Tensor | None,
        by_beta: Tensor | None,
    ) -> tuple[list[Tensor | None], Tensor | None]:
        """The chain rule: what reaches each of ``inputs`` and the reach, (rows,) each, of some layers.

        Args:
            at: which layers.
            sums: (rows, ``SUMS``), the engine's.
            by_values: whether a gradient of quantised values has come in.
            slopes: (rows,), as they were given to the engine; None where none of ``Sines.by_weights`` has.
            by_beta: (rows,), the gradient of ``Sines.by_beta``; None for none.
        """
        found: list[Any] = [None] * len(self._sources)
        if not any(source is not None and source.requires_grad for source in self._sources):
            return found[:-1], None
        if self.table.parts is not None:
            at = self.table.parts.rows(at)
        rows, counts, sums = _numbers(self.table.rows[at]), _numbers(self._counts_by_row[at]), _numbers(sums)
        shares: list[tuple[int, Callable[[], Any]]] = []
        if by_values:
            shares += [
                (_PITCH, lambda: rows[:, Column.GAIN] * sums[:, 0]),
                (_GAIN, lambda: rows[:, Column.PITCH] * sums[:, 1]),
                (_DIVISOR, lambda: -rows[:, Column.GAIN] / rows[:, Column.DIVISOR] * sums[:, 2]),
            ]
        if slopes is not None:
            shares.append((_V_DIVISOR, lambda: -_numbers(slopes) / rows[:, Column.V_DIVISOR] * sums[:, 4]))
        if by_beta is not None:
            # R0 is the mean of sin^2(pi (v n + shift)): this is dR0/dn, the rest of dR/dbeta is plain torch
            shares.append((_PERIODS, lambda: _numbers(by_beta) * math.pi * sums[:, 3] / counts))
        for number, share in shares:
            for source, slope in enumerate(self._slopes_of(number)):
                if slope is not None:
                    part = _numbers(slope[at]) * share()
                    found[source] = part if found[source] is None else found[source] + part
        back = [None if part is None else torch.as_tensor(part, dtype=self.table.rows.dtype) for part in found]
        return back[:-1], back[-1]

    def _slopes_of(self, number: int) -> list[Tensor | None]:
        """The derivatives (L,) of one of the values in each source: formulas are elementwise, so that vectors hold it.

        They are kept: the graph may be walked more than once.
        """
        if number not in self._slopes:
            slopes: list[Tensor | None] = [None] * len(self._sources)
            value, sources = self._values[number], [s for s in self._sources if s is not None and s.requires_grad]
            if sources and isinstance(value, Tensor) and value.requires_grad:
                one = torch.ones_like(value)
                found = iter(torch.autograd.grad(value, sources, one, retain_graph=True, allow_unused=True))
                slopes = [next(found) if s is not None and s.requires_grad else None for s in self._sources]
            self._slopes[number] = slopes
        return self._slopes[number]


def _numbers(tensor: Tensor) -> Any:
    """NumPy's view on the CPU, where its arithmetic on few numbers takes a fifth of the time; elsewhere the tensor."""
    return tensor.numpy() if tensor.is_cpu else tensor


def _chosen(outputs: list[Any], at: slice | list[int]) -> list[Any]:
    return outputs[at] if isinstance(at, slice) else [outputs[i] for i in at]


def _apart(tensor: Tensor) -> Tensor:
    return tensor.detach()


def stacked(tensors: Sequence[Tensor], parts: Parts | None = None) -> Tensor:
    """(L,) float32 at least, a source of gradients where any of them is; (R,) where there is one a row.

    Args:
        tensors: one a layer, 0-dim, or (rows of the layer,) in some.
        parts: whose rows they become.
    """
    with torch.no_grad():
        source = torch.stack(list(tensors)) if parts is None else _by_row(tensors, parts)
    source = source if source.dtype in (torch.float32, torch.float64) else source.float()
    return source.requires_grad_(torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))


def _by_row(tensors: Sequence[Tensor], parts: Parts) -> Tensor:
    if tensors[0].ndim == 0:
        return parts.spread(torch.stack(list(tensors)))
    return torch.cat(list(tensors))


def _twin(quantizers: Sequence[nn.Module], parts: Parts | None) -> tuple[Quantizer, dict[str, Tensor]]:
    """A quantiser whose parameters and buffers are those of all, stacked; and the parameters by name."""
    first = quantizers[0]
    if not first._parameters and not first._buffers:
        return cast(Quantizer, first), {}
    parameters = {name: [cast(Tensor, q._parameters[name]) for q in quantizers] for name in first._parameters}
    learned = {name: stacked(own, parts) for name, own in parameters.items()}
    buffers = {name: [cast(Tensor, q._buffers[name]) for q in quantizers] for name in first._buffers}
    held = {name: torch.stack(kept) if parts is None else _by_row(kept, parts) for name, kept in buffers.items()}
    twin = object.__new__(type(first))
    # attributes of the object itself are found before what nn.Module looks up in its own tables
    twin.__dict__.update(first.__dict__, **learned, **held)
    return cast(Quantizer, twin), learned


@dataclass(slots=True)
class Record:
    """A group as one call has rounded it, and what the way back needs.

    It holds nothing of what was handed out, so that no circle through autograd's nodes keeps that alive.

    Attributes:
        engine: who rounded.
        weights: the float weights; not saved in autograd's way, so that the task's and the wave's loss may go back one
            after the other.
        versions: theirs when they were rounded.
        formulas: of the whole call.
        part: the group's place in it.
        rounded: the quantised values, without a node; emptied by a backward pass unless ``keeps``.
        sine: (n,), R0 of each layer.
        used: whether a backward pass has gone through each layer.
        keeps: whether they will be read again after a backward pass, as in gradient accumulation.
    """

    engine: Engine
    weights: list[Tensor]
    versions: list[int]
    formulas: Formulas
    part: slice
    rounded: list[Tensor]
    sine: Tensor
    used: list[bool]
    keeps: bool


def records_of(formulas: Formulas, weights: Sequence[Tensor], engine: Engine, *, keeps: bool) -> list[Record]:
    """One call over all weights; neighbours stand together, and all of them where there is a wave alone.

    Such a wave's gradients are there as soon as the loss goes back: nobody has to wait for them.
    """
    with torch.no_grad():
        rounded, sine = engine.round(formulas.laid_out(weights), formulas.table)
        rounded = formulas.laid_back(rounded, weights, slice(None))
    records = []
    sizes = [weight.numel() for weight in weights]
    for part in groups_of(sizes) if formulas.table.rounds else [slice(0, len(sizes))]:
        mine = list(weights[part])
        versions = [weight._version for weight in mine]
        used = [False] * len(mine)
        records.append(Record(engine, mine, versions, formulas, part, rounded[part], sine[part], used, keeps))
    return records


def hand_out(record: Record) -> tuple[list[Tensor], Sines | None]:
    """The group's quantised values and its waves behind a new node."""
    formulas = record.formulas
    learned = [tensor for tensors in formulas.inputs for tensor in tensors[record.part]]
    *made, by_weights, by_beta = _Rounded.apply(record, *record.weights, *learned)
    return made, Sines(by_weights, by_beta, formulas.at[record.part]) if formulas.table.wave else None


def waves(layers: Sequence[Layer], weights: Sequence[Tensor], engine: Engine, *, raw: bool) -> list[Sines]:
    """The waves of layers of one kind that nobody rounds, in their order; ``raw``: on the weights as they are."""
    formulas = Formulas(layers, weights, engine, rounds=False, wave=True, raw=raw)
    return [cast(Sines, hand_out(record)[1]) for record in records_of(formulas, weights, engine, keeps=False)]


class _Rounded(torch.autograd.Function):
    """Keeps no tensor of its own: the weights are an input and stay; u is computed again on the way back."""

    @staticmethod
    def forward(ctx: Any, record: Record, *_inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.record = record
        return *[values.detach() for values in record.rounded], record.sine.detach(), record.sine.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *above: Tensor | None) -> tuple[Tensor | None, ...]:
        record: Record = ctx.record
        count, needs = len(record.weights), ctx.needs_input_grad[1:]
        *tasks, by_weights, by_beta = above
        tasks = tasks or [None] * count
        nothing: list[Tensor | None] = [None] * len(needs)
        wanted = _wanted(tasks, by_weights, by_beta)
        if not wanted:
            return None, *nothing
        outs, back = _back(record, wanted, [tasks[i] for i in wanted], by_weights, by_beta)
        if not record.keeps:
            record.rounded.clear()  # layer by layer as the model goes: nobody reads them again
        for place, out in zip(wanted, outs, strict=True):
            nothing[place] = out if needs[place] else None
        for source, share in enumerate(back):
            if share is None:
                continue
            own, first = record.formulas.inputs[source][record.part], count * (source + 1)
            at = _places(record, wanted)
            for place, value in zip(wanted, record.formulas.by_layer(source, share, at), strict=True):
                if needs[first + place]:
                    nothing[first + place] = narrowed(value, own[place])
        return None, *nothing


def _wanted(tasks: Sequence[Tensor | None], *waves: Tensor | None) -> list[int]:
    """The layers that a gradient has reached; a GPU is not waited for to see that a wave's is zero."""
    moved = [False] * len(tasks)
    for wave in waves:
        if wave is not None:
            seen = wave.tolist() if wave.is_cpu else [1.0] * len(wave)
            moved = [before or value != 0.0 for before, value in zip(moved, seen, strict=True)]
    return [i for i, task in enumerate(tasks) if task is not None or moved[i]]


def _places(record: Record, wanted: list[int]) -> slice | list[int]:
    """Where the wanted layers of a group stand among those of the call."""
    return record.part if len(wanted) == len(record.weights) else [record.part.start + i for i in wanted]


def _back(
    record: Record,
    wanted: list[int],
    tasks: Sequence[Tensor | None],
    by_weights: Tensor | None,
    by_beta: Tensor | None,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Gradients of the wanted layers' weights, and of all that is learned beside them."""
    formulas, weights = record.formulas, []
    for i in wanted:
        weight = record.weights[i]
        if weight._version != record.versions[i]:
            raise RuntimeError(
                "the weights of a quantised layer were changed in place between the forward and the backward pass "
                f"(version {record.versions[i]} to {weight._version}): their gradient cannot be computed any more"
            )
        record.used[i] = True
        weights.append(weight)
    whole, at = len(wanted) == len(record.weights), _places(record, wanted)
    table = formulas.table.some(at)
    moved = by_beta if by_beta is None or whole else by_beta[wanted]
    slopes = by_weights if by_weights is None or whole else by_weights[wanted]
    if slopes is not None:
        slopes = formulas.by_row(slopes * math.pi * formulas.periods(at) / formulas.counts[at], at)
    if moved is not None:
        moved = formulas.by_row(moved, at)
    still = table.rows.new_zeros(len(table.rows)) if slopes is None else slopes
    laid, above = formulas.laid_out(weights, at), formulas.laid_out(tasks, at)
    outs, sums = record.engine.round_backward(laid, table, above, still)
    by_values = any(task is not None for task in tasks)
    back, reach = formulas.back(at, sums, by_values=by_values, slopes=slopes, by_beta=moved)
    if reach is not None:
        record.engine.push_largest(laid, table, reach, outs)
    return formulas.laid_back(outs, weights, at), back
