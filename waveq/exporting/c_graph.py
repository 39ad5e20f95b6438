"""A feed-forward network as a list of steps, one for each call of a C function."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from waveq.exporting.input_grids import InputGrid, input_grid
from waveq.method.fixed_input import FIXED_INPUT, FixedInput

__all__ = ["Kind", "Network", "Step", "network_steps"]

Kind = Literal["convolve", "quantise", "scale_shift", "clip", "add", "pool", "pool_adaptively"]
Pair = tuple[int, int]
_SHOWN = (
    "convolutions and linear layers with batch norm, ReLU and clips, max, mean and adaptive pooling, flatten and sums"
)


@dataclass(frozen=True)
class Step:
    """One call: values are numbered, and each is written once.

    Attributes:
        kind: what is computed.
        inputs: numbers of the values that are read.
        output: number of the value that is written.
        tensors: names of the network's tensors that it takes, by role ("weight", "bias", "mean", ...).
        numbers: what else it takes, by the names of the fields in ``kernels.h``.
        grid: of quantised inputs.
        layer: the layer whose inputs they are.
    """

    kind: Kind
    inputs: tuple[int, ...]
    output: int
    tensors: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, int | float] = field(default_factory=dict)
    grid: InputGrid | None = None
    layer: str = ""


@dataclass(frozen=True)
class Network:
    """Steps in their order.

    Attributes:
        steps: at least one.
        shapes: of every value, without the axis of the samples.
        input: number of the value that is given.
        output: number of the value that is the result.
    """

    steps: tuple[Step, ...]
    shapes: Mapping[int, tuple[int, ...]]
    input: int
    output: int


def network_steps(model: nn.Module, example: Tensor) -> Network:
    """Follow a network by ``torch.export``, in evaluation mode.

    Args:
        model: finalised; unchanged.
        example: (N, ...) inputs, N >= 2.

    Raises:
        ValueError: an operation that C does not have here, by its name and place; a forward that cannot be followed.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
        >>> [step.kind for step in network_steps(net, torch.randn(2, 3, 4, 4)).steps]
        ['convolve', 'clip', 'convolve']
    """
    copied = copy.deepcopy(model).cpu().eval()
    grids: dict[str, InputGrid] = {}
    for name, module in list(copied.named_modules()):
        fixed = module._modules.get(FIXED_INPUT)
        if isinstance(fixed, FixedInput):
            grids[name] = input_grid(name, fixed)
            module._modules[FIXED_INPUT] = _Marked(name)
    try:
        with torch.no_grad():
            program = torch.export.export(copied, (example[:2],))
    except Exception as error:  # whatever the user's forward makes of stand-ins for tensors
        first = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"target 'c': torch.export cannot follow {type(model).__name__} ({type(error).__name__}: {first})"
        ) from error
    return _Followed(program, grids).network()


@torch.library.custom_op("waveq::quantised_input", mutates_args=())
def _mark(x: Tensor, layer: str) -> Tensor:  # noqa: ARG001  # read off the graph
    return x.clone()


@_mark.register_fake
def _(x: Tensor, layer: str) -> Tensor:  # noqa: ARG001
    return torch.empty_like(x)


class _Marked(nn.Module):
    """Stands for an input quantiser while the graph is made."""

    def __init__(self, layer: str) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """A node that becomes a step."""
        marked: Tensor = _mark(x, self.layer)
        return marked


class _Followed:
    """Turns the nodes of an exported program into steps."""

    def __init__(self, program: Any, grids: Mapping[str, InputGrid]) -> None:
        self.program, self.grids = program, grids
        signature = program.graph_signature
        self.tensors: dict[str, str] = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self.user_inputs = tuple(signature.user_inputs)
        self.values: dict[fx.Node, int] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.steps: list[Step] = []

    def network(self) -> Network:
        """All steps."""
        if len(self.user_inputs) != 1:
            raise ValueError(f"target 'c' takes networks with one input, not {len(self.user_inputs)}")
        given, result = 0, ()
        for node in self.program.graph.nodes:
            if node.op == "placeholder" and node.name in self.user_inputs:
                self.values[node] = given = self._new(node)
            elif node.op == "call_function" and not _operation(node).startswith("_assert"):
                self._follow(node)
            elif node.op == "output":
                result = node.args[0]
        if len(result) != 1 or self.values.get(result[0], given) == given:
            raise ValueError("target 'c' takes networks whose output is one tensor that was computed from the input")
        if not self.steps:
            raise ValueError("target 'c': the network computes nothing")
        return Network(tuple(self.steps), self.shapes, given, self.values[result[0]])

    def _follow(self, node: fx.Node) -> None:
        name = _operation(node)
        handler = _HANDLERS.get(name.removesuffix("_"))
        if handler is None:
            raise self._refusal(node, f"no {name!r}")
        handler(self, node)
        if name.endswith("_"):  # in place: whoever reads what was there reads what is there now
            changed = self.values[node.all_input_nodes[0]]
            self.values.update({each: self.values[node] for each, value in self.values.items() if value == changed})

    def _refusal(self, node: fx.Node, reason: str) -> ValueError:
        stack = list(node.meta.get("nn_module_stack", {}).values())
        place = stack[-1][0] if stack else ""
        return ValueError(f"target 'c' has {reason} (in {place or 'forward'}); it takes {_SHOWN}")

    def _new(self, node: fx.Node) -> int:
        """A number for what a node computes."""
        value = node.meta["val"]
        if not isinstance(value, Tensor) or value.dtype is not torch.float32:
            raise self._refusal(node, f"float32 only, not {getattr(value, 'dtype', type(value).__name__)}")
        if value.ndim < 2 or value.shape[0] != 2:  # as many samples as there are in the example
            raise self._refusal(node, f"one sample at a time, and no {_operation(node)!r} across them")
        self.shapes[len(self.shapes)] = tuple(int(size) for size in value.shape[1:])
        return len(self.shapes) - 1

    def add(self, kind: Kind, node: fx.Node, inputs: tuple[fx.Node, ...], **more: Any) -> None:
        """A step that computes a node."""
        for each in inputs:
            if each not in self.values:
                raise self._refusal(node, f"no {_operation(node)!r} of tensors that do not depend on the input")
        read = tuple(self.values[each] for each in inputs)
        self.values[node] = self._new(node)
        self.steps.append(Step(kind, read, self.values[node], **more))

    def same(self, node: fx.Node, x: fx.Node) -> None:
        """A node that leaves the numbers where they lie, perhaps with another shape."""
        if x not in self.values:
            raise self._refusal(node, f"no {_operation(node)!r} of tensors that do not depend on the input")
        self._new(node)  # looks at it
        self.values[node] = self.values[x]

    def named(self, node: fx.Node, **roles: fx.Node | None) -> dict[str, str]:
        """The names of the network's tensors that a node takes."""
        found = {}
        for role, each in roles.items():
            if each is None:
                continue
            if each.name not in self.tensors:
                raise self._refusal(node, f"no {_operation(node)!r} with a {role} that is computed")
            found[role] = self.tensors[each.name]
        return found

    # ------------------------------------------------------------------ operations

    def convolution(self, node: fx.Node) -> None:
        """A convolution over two axes."""
        x, weight, bias, stride, padding, dilation, groups = _given(node)
        kernel = tuple(weight.meta["val"].shape[2:])
        (stride_y, stride_x), (dilation_y, dilation_x) = _pair(stride), _pair(dilation)
        if isinstance(padding, str):
            reach = (dilation_y * (kernel[0] - 1), dilation_x * (kernel[1] - 1))
            padding = (reach[0] // 2, reach[1] // 2) if padding == "same" else (0, 0)
        top, left = _pair(padding)
        numbers = {
            **_areas(x, node),
            **{"outputs": int(weight.meta["val"].shape[0]), "groups": groups},
            **{"kernel_height": kernel[0], "kernel_width": kernel[1], "stride_y": stride_y, "stride_x": stride_x},
            **{"top": top, "left": left, "dilation_y": dilation_y, "dilation_x": dilation_x},
        }
        self.add("convolve", node, (x,), tensors=self.named(node, weight=weight, bias=bias), numbers=numbers)

    def linear(self, node: fx.Node) -> None:
        """A convolution over one row and one column."""
        x, weight, bias = _given(node)
        if x.meta["val"].ndim != 2:
            raise self._refusal(node, "no 'linear' on more axes than one")
        outputs, inputs = weight.meta["val"].shape
        ones = (
            *("height", "width", "out_height", "out_width", "kernel_height", "kernel_width"),
            *("stride_y", "stride_x", "dilation_y", "dilation_x", "groups"),
        )
        numbers = {"channels": inputs, "outputs": outputs, "top": 0, "left": 0, **dict.fromkeys(ones, 1)}
        self.add("convolve", node, (x,), tensors=self.named(node, weight=weight, bias=bias), numbers=numbers)

    def batch_norm(self, node: fx.Node) -> None:
        """With running statistics."""
        x, weight, bias, mean, variance, training, _, eps = _given(node)[:8]
        if training or mean is None:
            raise self._refusal(node, "no 'batch_norm' without running statistics")
        tensors = self.named(node, weight=weight, bias=bias, mean=mean, variance=variance)
        self.add("scale_shift", node, (x,), tensors=tensors, numbers={"eps": eps})

    def clip(self, node: fx.Node) -> None:
        """ReLU, ReLU6, hardtanh, clamp."""
        x, *ends = _given(node)
        fixed = {"relu": (0.0, None), "relu6": (0.0, 6.0)}
        low, high = fixed.get(_operation(node).removesuffix("_"), ends)
        numbers = {key: float(value) for key, value in (("low", low), ("high", high)) if value is not None}
        self.add("clip", node, (x,), numbers=numbers)

    def sum(self, node: fx.Node) -> None:
        """Of two tensors of one shape."""
        first, second = node.args[:2]
        if not isinstance(second, fx.Node) or not isinstance(first, fx.Node):
            raise self._refusal(node, "no 'add' of a number")
        if node.kwargs.get("alpha", 1) != 1 or first.meta["val"].shape != second.meta["val"].shape:
            raise self._refusal(node, "no 'add' of tensors of two shapes, or with a factor")
        self.add("add", node, (first, second))

    def max_pool(self, node: fx.Node) -> None:
        """The largest of each window."""
        x, kernel, stride, padding, dilation, _ = _given(node)
        if _pair(dilation) != (1, 1):
            raise self._refusal(node, "no dilated 'max_pool2d'")
        self._pool(node, x, kernel, stride, padding, {"average": 0, "count_padding": 0, "divisor": 0})

    def average_pool(self, node: fx.Node) -> None:
        """The mean of each window."""
        x, kernel, stride, padding, _, count, divisor = _given(node)
        self._pool(
            node, x, kernel, stride, padding, {"average": 1, "count_padding": int(count), "divisor": divisor or 0}
        )

    def _pool(self, node: fx.Node, x: fx.Node, kernel: Any, stride: Any, padding: Any, more: Mapping[str, int]) -> None:
        (height, width), (top, left) = _pair(kernel), _pair(padding)
        stride_y, stride_x = _pair(stride) if stride else (height, width)
        numbers = {
            **_areas(x, node),
            **{"kernel_height": height, "kernel_width": width, "stride_y": stride_y, "stride_x": stride_x},
            **{"top": top, "left": left},
        }
        self.add("pool", node, (x,), numbers={**numbers, **more})

    def adaptive_pool(self, node: fx.Node) -> None:
        """Windows as even as can be."""
        average = int(_operation(node) == "adaptive_avg_pool2d")
        x = _given(node)[0]
        out = node if average else next(each for each in node.users if each.args[1] == 0)
        numbers = {**_areas(x, out), "average": average}
        self.add("pool_adaptively", out, (x,), numbers=numbers)

    def mean(self, node: fx.Node) -> None:
        """Over rows and columns."""
        x, axes = _given(node)[:2]
        if x.meta["val"].ndim != 4 or sorted(axis % 4 for axis in axes) != [2, 3]:
            raise self._refusal(node, "no 'mean' but over rows and columns")
        numbers = {**_areas(x, x), "out_height": 1, "out_width": 1, "average": 1}
        self.add("pool_adaptively", node, (x,), numbers=numbers)

    def unchanged(self, node: fx.Node) -> None:
        """Flatten, reshape, dropout in evaluation."""
        x, *rest = _given(node)
        if _operation(node).startswith("dropout") and rest[-1]:
            raise self._refusal(node, "no 'dropout' in training")
        self.same(node, x)

    def item(self, node: fx.Node) -> None:
        """The first of several results."""
        if node not in self.values and node.users:
            raise self._refusal(node, "no second result of an operation")

    def quantise(self, node: fx.Node) -> None:
        """A layer's input."""
        x, layer = _given(node)
        self.add("quantise", node, (x,), grid=self.grids[layer], layer=layer)


_HANDLERS: Mapping[str, Callable[[_Followed, fx.Node], None]] = {
    "conv2d": _Followed.convolution,
    "linear": _Followed.linear,
    "batch_norm": _Followed.batch_norm,
    **dict.fromkeys(("relu", "relu6", "hardtanh", "clamp"), _Followed.clip),
    "add": _Followed.sum,
    "max_pool2d": _Followed.max_pool,
    "avg_pool2d": _Followed.average_pool,
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), _Followed.adaptive_pool),
    "mean": _Followed.mean,
    **dict.fromkeys(("flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten"), _Followed.unchanged),
    **dict.fromkeys(("dropout", "contiguous", "clone", "alias", "detach"), _Followed.unchanged),
    "getitem": _Followed.item,
    "quantised_input": _Followed.quantise,
}


def _operation(node: fx.Node) -> str:
    """conv2d, of aten.conv2d.default."""
    target: Any = node.target
    schema = getattr(target, "_schema", None)
    return getattr(target, "__name__", str(target)) if schema is None else str(schema.name).rpartition("::")[2]


def _given(node: fx.Node) -> list[Any]:
    """All arguments of a node in the order of its schema, with the defaults of those that are not there."""
    schema: Any = getattr(node.target, "_schema", None)
    missing = [] if schema is None else schema.arguments[len(node.args) :]
    return [*node.args, *(node.kwargs.get(each.name, each.default_value) for each in missing)]


def _pair(value: Any) -> Pair:
    """Of rows and columns, from one number or two."""
    numbers = [value] if isinstance(value, int) else list(value)
    return (int(numbers[0]), int(numbers[-1]))


def _areas(x: fx.Node, out: fx.Node) -> dict[str, int]:
    """Channels, rows and columns before pooling and after it."""
    (channels, height, width), (_, out_height, out_width) = x.meta["val"].shape[-3:], out.meta["val"].shape[-3:]
    return {
        **{"channels": int(channels), "height": int(height), "width": int(width)},
        **{"out_height": int(out_height), "out_width": int(out_width)},
    }
