"""The text of a header: packed codes, scales, other tensors, and one function that runs the network on a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
import torch
from torch import Tensor

from waveq.exporting.c_constants import Constants, literal
from waveq.exporting.c_graph import Network, Step
from waveq.exporting.carriers import whole_codes
from waveq.exporting.input_grids import InputGrid
from waveq.exporting.integers import Integers

__all__ = ["header_text", "program_text"]

_MOST = 2**31 - 1  # of an int32_t
_CONVOLUTION = (  # the fields of the structs of kernels.h, in their order
    *("channels", "height", "width", "outputs", "out_height", "out_width", "kernel_height", "kernel_width"),
    *("stride_y", "stride_x", "top", "left", "dilation_y", "dilation_x", "groups"),
)
_POOLING = (
    *("channels", "height", "width", "out_height", "out_width", "kernel_height", "kernel_width"),
    *("stride_y", "stride_x", "top", "left", "average", "count_padding", "divisor"),
)


def header_text(
    network: Network, coded: Mapping[str, tuple[str, Integers]], tensors: Mapping[str, Tensor], name: str
) -> str:
    """The header.

    Args:
        network: its steps.
        coded: layer and integers of each quantised weight, by the weight's name among the tensors.
        tensors: parameters and buffers by name, float32.
        name: what names in C begin with.

    Raises:
        ValueError: a sum of codes that an int32_t may not hold.
    """
    written = _Header(network, coded, tensors, name)
    calls = "\n".join(f"    {call}" for call in written.calls())
    buffers = "\n".join(f"    {line}" for line in written.buffers())
    constants = "\n".join(written.constants.lines)
    bits = ", ".join(f"{layer}: {each.bits}" for layer, each in coded.values()).replace("*/", "* /")
    given, result = network.shapes[network.input], network.shapes[network.output]
    kernels = resources.files("waveq.exporting").joinpath("kernels.h").read_text(encoding="utf-8")
    upper = name.upper()
    return f"""/* A network with integer weights, written by waveq.export: {name}_run computes one sample.
   Bits of the weights by layer: {bits}.
   C99 or C++11; link with -lm. Buffers are static: one call at a time. */
#ifndef {upper}_H
#define {upper}_H

{kernels}
#define {upper}_INPUTS {math.prod(given)} /* {_by(given)} */
#define {upper}_OUTPUTS {math.prod(result)} /* {_by(result)} */

{constants}

static inline void {name}_run(const float *input, float *output)
{{
{buffers}
{calls}
}}

#endif
"""


def program_text(name: str, header: str, program: str) -> str:
    """A program that reads samples from its standard input and writes outputs to its standard output."""
    upper = name.upper()
    return f"""#include "{header}"

#include <stdio.h>

/* Raw float32 of this machine, sample after sample, as numpy's tofile and fromfile have them:
   cc -O2 -o {name} {program} -lm && ./{name} < inputs.f32 > outputs.f32 */
int main(void)
{{
    static float input[{upper}_INPUTS], output[{upper}_OUTPUTS];
    size_t count;
    while ((count = fread(input, sizeof *input, {upper}_INPUTS, stdin)) == {upper}_INPUTS) {{
        {name}_run(input, output);
        if (fwrite(output, sizeof *output, {upper}_OUTPUTS, stdout) != {upper}_OUTPUTS)
            return 1;
    }}
    return count != 0 || ferror(stdin); /* a sample that was cut off */
}}
"""


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


@dataclass
class _Buffer:
    """Values of one type that are needed one after the other share it."""

    kind: str
    size: int


class _Header:
    """Collects constants and buffers while the calls are written."""

    def __init__(
        self, network: Network, coded: Mapping[str, tuple[str, Integers]], tensors: Mapping[str, Tensor], name: str
    ) -> None:
        self.network, self.coded, self.tensors = network, coded, tensors
        self.constants = Constants(name)
        self._buffers: list[_Buffer] = []
        self._rows = {"float": 0, "int16_t": 0}
        weights = {step.inputs[0]: step.tensors["weight"] for step in network.steps if step.kind == "convolve"}
        # a layer with quantised weights takes the codes of its inputs, another one their levels
        self._codes_of_inputs: dict[int, InputGrid] = {
            step.output: step.grid
            for step in network.steps
            if step.grid is not None and weights.get(step.output) in coded
        }

    def calls(self) -> list[str]:
        """The body of the function, one line a step. A value's buffer is free again after the last step that reads it;
        a step that works number by number may write where it reads."""
        steps = self.network.steps
        last = {value: i for i, step in enumerate(steps) for value in step.inputs}
        places, held = {self.network.input: "input", self.network.output: "output"}, dict[int, int]()
        free: list[int] = []
        lines = []
        for i, step in enumerate(steps):
            done = [value for value in dict.fromkeys(step.inputs) if last[value] == i and value in held]
            over = step.kind in ("clip", "add", "scale_shift")
            reads = [places[value] for value in step.inputs]
            if over:
                free += [held.pop(value) for value in done]
            if step.output not in places:
                held[step.output] = self._buffer_for(step.output, free)
                places[step.output] = f"b{held[step.output]}"
            if not over:
                free += [held.pop(value) for value in done]
            lines.append(self._call(step, reads, places[step.output]))
        return lines

    def buffers(self) -> list[str]:
        """Their declarations."""
        values = [f"static {each.kind} b{i}[{each.size}];" for i, each in enumerate(self._buffers)]
        return values + [f"static {kind} row_{kind}[{size}];" for kind, size in self._rows.items() if size]

    def _buffer_for(self, value: int, free: list[int]) -> int:
        """The largest free buffer of the value's type, made as large as needed, or a new one."""
        kind = "int16_t" if value in self._codes_of_inputs else "float"
        size = math.prod(self.network.shapes[value])
        fitting = [i for i in free if self._buffers[i].kind == kind]
        if not fitting:
            self._buffers.append(_Buffer(kind, size))
            return len(self._buffers) - 1
        chosen = max(fitting, key=lambda i: self._buffers[i].size)
        free.remove(chosen)
        self._buffers[chosen].size = max(self._buffers[chosen].size, size)
        return chosen

    def _call(self, step: Step, reads: Sequence[str], to: str) -> str:
        shape = self.network.shapes[step.output]
        count, numbers = math.prod(shape), step.numbers
        if step.kind == "convolve":
            return self._convolve(step, reads[0], to)
        if step.kind == "quantise":
            assert step.grid is not None
            form = "codes" if step.output in self._codes_of_inputs else "levels"
            scale, low, high = literal(step.grid.scale), step.grid.low, step.grid.high
            return f"waveq_input_{form}({count}, {scale}, {low}, {high}, {reads[0]}, {to});"
        if step.kind == "scale_shift":
            scale, shift = self._scale_shift(step)
            return f"waveq_scale_shift({shape[0]}, {count // shape[0]}, {scale}, {shift}, {reads[0]}, {to});"
        if step.kind == "clip":
            ends = ", ".join(literal(numbers.get(each, end)) for each, end in (("low", -math.inf), ("high", math.inf)))
            return f"waveq_clip({count}, {ends}, {reads[0]}, {to});"
        if step.kind == "add":
            return f"waveq_add({count}, {reads[0]}, {reads[1]}, {to});"
        record = self._record("waveq_pooling", _POOLING, numbers)
        return f"waveq_{step.kind}({record}, {reads[0]}, {to});"

    def _convolve(self, step: Step, x: str, to: str) -> str:
        key = step.tensors["weight"]
        grid = self._codes_of_inputs.get(step.inputs[0])
        kind, form = ("float", "") if grid is None else ("int16_t", "_codes")
        self._rows[kind] = max(self._rows[kind], math.prod(self.tensors[key].shape[1:]))
        weights = self.constants.record("waveq_weights", self._weights(step, grid))
        shape = self._record("waveq_convolution", _CONVOLUTION, step.numbers)
        scale = literal(1.0 if grid is None else grid.scale)
        return f"waveq_convolve{form}({shape}, {weights}, {scale}, {x}, row_{kind}, {to});"

    def _weights(self, step: Step, grid: InputGrid | None) -> str:
        """The fields of a waveq_weights."""
        key, bias = step.tensors["weight"], "NULL"
        if "bias" in step.tensors:
            bias = self.constants.floats(step.tensors["bias"], self.tensors[step.tensors["bias"]])
        if key not in self.coded:
            return f"NULL, {self.constants.floats(key, self.tensors[key])}, NULL, {bias}, 0, 0, 0"
        layer, each = self.coded[key]
        odd = each.offset != 0.0
        if grid is not None:
            _check_sums(layer, each, grid)
        codes = self.constants.codes(f"{key}_codes", each)
        scale = self.constants.floats(f"{key}_scale", each.scale.float() / (2 if odd else 1))
        return f"{codes}, NULL, {scale}, {bias}, {each.bits}, {int(odd)}, {int(each.outputs is not None)}"

    def _scale_shift(self, step: Step) -> tuple[str, str]:
        """Batch norm as x * scale + shift, computed in float64."""
        given = {role: self.tensors[key].detach().double() for role, key in step.tensors.items()}
        scale = (given["variance"] + step.numbers["eps"]).rsqrt() * given.get("weight", torch.ones(()))
        shift = given.get("bias", torch.zeros(())) - given["mean"] * scale
        key = step.tensors["mean"]
        return self.constants.floats(f"{key}_scale", scale), self.constants.floats(f"{key}_shift", shift)

    def _record(self, kind: str, fields: Sequence[str], numbers: Mapping[str, float]) -> str:
        return self.constants.record(kind, ", ".join(str(int(numbers.get(each, 0))) for each in fields))


def _check_sums(layer: str, each: Integers, grid: InputGrid) -> None:
    """No sum of products may leave an int32_t.

    Raises:
        ValueError: one may.
    """
    sizes = np.abs(whole_codes(each)[0].astype(np.int64)).reshape(len(each.codes), -1)
    most = int(sizes.sum(axis=1).max()) * max(-grid.low, grid.high)
    if most > _MOST:
        raise ValueError(
            f"layer {layer!r}: a sum of its codes may reach {most:,}, more than an int32_t holds ({_MOST:,}); give its "
            " weights or inputs fewer bits"
        )
