"""Hypothesis strategies that several test files share."""

from __future__ import annotations

from hypothesis import strategies as st

from stripes_sim import LayerShape, Stripes


@st.composite
def convolutions(draw: st.DrawFn) -> LayerShape:
    axes = draw(st.integers(1, 2))
    kind = draw(st.sampled_from(["plain", "grouped", "depthwise", "image"]))
    groups = draw(st.integers(2, 4)) if kind in ("grouped", "depthwise") else 1
    per_group = 1 if kind == "depthwise" else draw(st.integers(1, 9))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    return LayerShape(
        name="conv",
        kind="conv",
        in_channels=3 if kind == "image" else groups * per_group,
        out_channels=groups * draw(st.integers(1, 9)),
        kernel_size=kernel,
        input_size=tuple(draw(st.integers(k, k + 5)) for k in kernel),
        stride=tuple(draw(st.integers(1, 3)) for _ in range(axes)),
        padding=tuple(draw(st.integers(0, 2)) for _ in range(axes)),
        groups=groups,
    )


@st.composite
def sampled_axes(draw: st.DrawFn, kind: str) -> LayerShape:
    """A convolution or transposed one with strides and dilations of every sort."""
    axes = draw(st.integers(1, 2))
    groups = draw(st.integers(1, 2))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    dilation = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    stride = tuple(draw(st.integers(1, 4)) for _ in range(axes))
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    transposed = kind == "conv_transpose"
    return LayerShape(
        name=kind,
        kind=kind,
        in_channels=groups * draw(st.integers(2, 5)),
        out_channels=groups * draw(st.integers(1, 5)),
        kernel_size=kernel,
        input_size=tuple(draw(st.integers(1, 4) if transposed else st.integers(r, r + 6)) for r in reach),
        stride=stride,
        padding=tuple(draw(st.integers(0, (r - 1) // 2 if transposed else 2)) for r in reach),
        dilation=dilation,
        output_padding=tuple(draw(st.integers(0, s - 1)) for s in stride) if transposed else (0,),
        groups=groups,
    )


@st.composite
def machines(draw: st.DrawFn) -> Stripes:
    return Stripes(
        serial=draw(st.sampled_from(["weights", "activations", "both", "none"])),
        lanes=draw(st.integers(1, 6)),
        columns=draw(st.integers(4, 9)),
        rows=draw(st.integers(4, 9)),
        tiles=draw(st.integers(1, 3)),
        pe_width_bits=draw(st.sampled_from([4, 8, 16])),
        serial_bits=draw(st.integers(1, 2)),
    )


bit_counts = st.integers(1, 16)
