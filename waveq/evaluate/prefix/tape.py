"""A network as a tape of tensor operations, cut where a quantised layer's weight first has a say.

The tape is what the model really does in evaluation mode (ATen operations, functions and residual connections
included), so nothing is assumed about its modules. Cutting it by layer makes it possible to run again only what
depends on the layers that changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from waveq.evaluate.prefix.ending import Ending

__all__ = ["Segment", "Tape", "UntraceableError", "record_tape"]


class UntraceableError(Exception):
    """The model cannot be replayed from a tape; the message says why."""


@dataclass(frozen=True)
class Segment:
    """The operations that depend on layer ``position`` and earlier ones, but on none that comes later."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    run: Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True)
class Tape:
    """One model for one shape of x.

    Attributes:
        order: positions -> index of the layer among the names, in the order in which the network meets them; layers
            that the scores do not depend on are left out.
        start: what depends on no layer.
        prepare: for each position, what is made of its weight alone (a transpose, mostly).
        segments: one for each position.
        data: name of x.
        result: name of the scores.
        ending: the last segment, where it is a single matrix product.
        start_bytes: bytes per sample of all values that depend on no layer, x among them.
        segment_bytes: for each position, bytes per sample of all values of its segment.
    """

    order: tuple[int, ...]
    start: Segment
    prepare: tuple[Segment, ...]
    segments: tuple[Segment, ...]
    data: str
    result: str
    ending: Ending | None
    start_bytes: int
    segment_bytes: tuple[int, ...]

    @property
    def sample_bytes(self) -> int:
        """Bytes per sample of all values of the tape: an upper bound of what is alive at once."""
        return self.start_bytes + sum(self.segment_bytes)


def record_tape(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    in_place: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]],
    x: Tensor,
) -> Tape:
    """Run the model once on x and write down what it does.

    Args:
        model: in evaluation mode.
        weights: layer name -> a weight, in the order that ``Tape.order`` counts in.
        in_place: from layer names to the names of parameters: wherever the weight is read.
        x: a batch; the tape holds for its shape only.

    Raises:
        UntraceableError: control flow or numbers that depend on the data, random operations.
    """

    def scores(values: list[Tensor], batch: Tensor) -> Tensor:
        swapped = dict(in_place(dict(zip(weights, values, strict=True))))
        result: Tensor = functional_call(model, swapped, (batch,), tie_weights=False)
        return result

    try:
        with torch.no_grad():
            traced = make_fx(functionalize(scores, remove="mutations"))(list(weights.values()), x)
            if any(map(_writes, traced.graph.nodes)):  # inside recurrent cells torch adds in place below what it sees
                traced = make_fx(functionalize(traced, remove="mutations"))(list(weights.values()), x)
    except Exception as error:  # whatever a user's forward() does under tracing
        raise UntraceableError(
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else error}"
        ) from error
    if writes := next(filter(_writes, traced.graph.nodes), None):
        raise UntraceableError(f"{writes.target} writes in place, into values that policies share")
    traced.graph.eliminate_dead_code()
    return _Cutter(traced, len(weights)).cut(len(x))


class _Cutter:
    """Sorts the nodes of a traced graph by the layers that they depend on."""

    def __init__(self, traced: fx.GraphModule, layers: int) -> None:
        self.traced = traced
        self.layers = layers
        self.nodes = list(traced.graph.nodes)
        self.data = self.nodes[layers]  # the placeholders come first: one weight a layer, then x
        self.depends: dict[fx.Node, frozenset[int]] = {}
        self.reads_data: dict[fx.Node, bool] = {}

    def cut(self, samples: int) -> Tape:
        order = self._follow()
        position = {layer: place for place, layer in enumerate(order)}
        parts: dict[int, list[fx.Node]] = {place: [] for place in range(-1, len(order))}
        made: dict[int, list[fx.Node]] = {place: [] for place in range(len(order))}
        for node in self.nodes:
            if node.op in ("placeholder", "get_attr", "output"):
                continue
            places = [position[layer] for layer in self.depends[node]]
            if len(places) == 1 and not self.reads_data[node]:
                made[places[0]].append(node)
            else:
                parts[max(places, default=-1)].append(node)
        results = _leaves(self.nodes[-1].args)
        if len(results) != 1:
            raise UntraceableError(f"the model returns {len(results)} tensors")
        return Tape(
            order=tuple(order),
            start=self._segment(parts[-1]),
            prepare=tuple(self._prepare(layer, made[place]) for place, layer in enumerate(order)),
            segments=tuple(self._segment(parts[place]) for place in range(len(order))),
            data=self.data.name,
            result=results[0].name,
            ending=self._ending(parts[len(order) - 1], made[len(order) - 1], results[0]) if order else None,
            start_bytes=math.ceil(sum(map(_bytes, [self.data, *parts[-1]])) / samples),
            segment_bytes=tuple(math.ceil(sum(map(_bytes, parts[place])) / samples) for place in range(len(order))),
        )

    def _follow(self) -> list[int]:
        """Fill in what each node depends on; return the layers in the order of their first use."""
        placeholders = [node for node in self.nodes if node.op == "placeholder"]
        order: list[int] = []
        for node in self.nodes:
            sources = node.all_input_nodes
            self.depends[node] = frozenset().union(*(self.depends[source] for source in sources))
            self.reads_data[node] = any(self.reads_data[source] for source in sources)
            if node.op == "placeholder":
                index = placeholders.index(node)
                self.depends[node] = frozenset({index} if index < self.layers else ())
                self.reads_data[node] = index == self.layers
            elif _is_random(node):
                raise UntraceableError(f"{node.target} draws random numbers in evaluation mode")
            elif self.reads_data[node]:
                order += sorted(self.depends[node] - set(order))
        return order

    def _ending(self, nodes: list[fx.Node], made: list[fx.Node], result: fx.Node) -> Ending | None:
        """Only value @ t(weight), with or without a constant bias, and nothing after it."""
        if nodes != [result] or result.kwargs or len(made) != 1 or made[0].target is not torch.ops.aten.t.default:
            return None
        if result.target is torch.ops.aten.mm.default:
            bias, value, weight = None, *result.args
        elif result.target is torch.ops.aten.addmm.default:
            bias, value, weight = result.args
        else:
            return None
        if weight is not made[0] or not isinstance(value, fx.Node) or not self.reads_data[value]:
            return None
        if bias is not None and not (isinstance(bias, fx.Node) and bias.op == "get_attr"):
            return None
        constant = None if bias is None else getattr(self.traced, str(bias.target)).detach()
        return Ending(value.name, made[0].name, constant)

    def _segment(self, nodes: list[fx.Node]) -> Segment:
        return _compile(self.traced, nodes, [node for node in nodes if _is_used_outside(node, set(nodes))])

    def _prepare(self, layer: int, nodes: list[fx.Node]) -> Segment:
        weight = next(node for node in self.nodes if self.depends[node] == {layer})
        return _compile(self.traced, [*self._constants(nodes), *nodes], [weight, *nodes], inputs=[weight])

    def _constants(self, nodes: list[fx.Node]) -> list[fx.Node]:
        """What the nodes need and depends on nothing, such as the zeros that a recurrent layer begins with."""
        needed, seen = set(nodes), set[fx.Node]()
        while needed:
            needed = {source for node in needed for source in node.all_input_nodes} - seen
            needed = {node for node in needed if node.op == "call_function" and not self.depends[node]}
            seen |= needed
        return [node for node in self.nodes if node in seen and not self.reads_data[node]]


def _compile(
    traced: fx.GraphModule, nodes: list[fx.Node], outputs: list[fx.Node], *, inputs: list[fx.Node] | None = None
) -> Segment:
    """A callable of these nodes alone; values that come from elsewhere become its arguments."""
    graph = fx.Graph()
    inside = set(nodes)
    if inputs is None:
        outer = dict.fromkeys(s for n in nodes for s in n.all_input_nodes if s not in inside and s.op != "get_attr")
        inputs = list(outer)
    copied = {node: graph.placeholder(node.name) for node in inputs}
    for constant in dict.fromkeys(s for n in nodes for s in n.all_input_nodes if s.op == "get_attr"):
        copied[constant] = graph.node_copy(constant)
    for node in nodes:
        copied[node] = graph.node_copy(node, lambda source: copied[source])
    graph.output(tuple(copied[node] for node in outputs))
    return Segment(
        inputs=tuple(node.name for node in inputs),
        outputs=tuple(node.name for node in outputs),
        run=fx.GraphModule(traced, graph),
    )


def _writes(node: fx.Node) -> bool:
    """Whether an operation changes one of its inputs."""
    return isinstance(node.target, torch._ops.OpOverload) and bool(node.target._schema.is_mutable)


def _is_random(node: fx.Node) -> bool:
    """Whether an operation draws random numbers; attention without dropout only could."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    for place, argument in enumerate(target._schema.arguments):
        if argument.name == "dropout_p":
            given = node.args[place] if place < len(node.args) else node.kwargs.get("dropout_p", argument.default_value)
            return bool(given != 0.0)
    return True


def _is_used_outside(node: fx.Node, inside: set[fx.Node]) -> bool:
    return any(user not in inside for user in node.users) and isinstance(node.meta.get("val"), Tensor)


def _leaves(args: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.node.map_arg(args, found.append)
    return found


def _bytes(node: fx.Node) -> int:
    value = node.meta.get("val")
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
