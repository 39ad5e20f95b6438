"""From a torch model to a workload: shapes flow through the model on the meta device, or real inputs on another one.

`stripes_sim._recorder` watches the operators. A layer is named as `waveq.attach` names its weight: after the module
where the tensor is called ``weight``, else with the tensor's name behind it; a weight of several modules has one name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from stripes_sim.layers import LayerShape

if TYPE_CHECKING:
    import torch
    from torch import nn

    from stripes_sim._arguments import Arguments

__all__ = ["plain_kernels", "trace"]

Shape = Sequence[int]


def trace(
    model: nn.Module,
    input_shape: Shape | Sequence[Shape] | Mapping[str, Shape] | None = None,
    *,
    dtype: torch.dtype | str | Sequence[torch.dtype | str | None] | Mapping[str, torch.dtype | str] | None = None,
    inputs: Any = None,
    device: torch.device | str = "meta",
) -> list[LayerShape]:
    """The workload of one inference of ``model``, in execution order.

    The modules are copied without their weights to the meta device, put into evaluation mode there, and called once; no
    number is computed. A model whose way depends on its numbers (detection, routing, ``.item()``) cannot go there: give
    real ``inputs`` and ``device="cpu"``, and it runs for once, with its own weights. The user's model, its mode and the
    random number generator are not touched. Parametrizations are left out of the copy and hooks are not called, so a
    model with `waveq.attach` traces like the plain one. Layers that inference does not reach are not part of the
    workload. A layer that runs several times has ``copies``.

    Args:
        model: any module, but for TorchScript.
        input_shape: one sample's shape without batch dimension, a sequence of shapes for several inputs, or a mapping
            of argument names to shapes; default (3, 32, 32).
        dtype: of the inputs, one for all or one for each. Default: the model's own, and int64 for what an embedding
            looks up.
        inputs: instead of shapes, what the model is called with, batch dimension and all: a tensor, a sequence of
            positional arguments, or a mapping of keyword arguments. The workload is that of all its samples.
        device: where it runs: "meta", or where the numbers are to be computed.

    Returns:
        `LayerShape` objects: convolutions, linear layers, attention's matrix products (``kind="matmul"``), lookups.

    Raises:
        TypeError, ValueError: no module, or one that cannot run on these inputs; a weight that meets an operator that
            is no known layer.

    >>> from torch import nn
    >>> layers = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 10)), (3, 32, 32))
    >>> [(layer.name, layer.kind, layer.macs) for layer in layers]
    [('0', 'conv', 194400), ('2', 'linear', 72000)]
    """
    import torch

    from stripes_sim._arguments import from_shapes, from_tensors
    from stripes_sim._recorder import TokensExpected
    from stripes_sim._shadow import shadow_of, unwrapped

    model, place = unwrapped(model), torch.device(device)
    if inputs is not None and (input_shape is not None or dtype is not None):
        raise ValueError("inputs have shapes and dtypes of their own: leave input_shape and dtype out")
    shape = (3, 32, 32) if input_shape is None else input_shape
    default = next((each.dtype for each in model.parameters() if each.is_floating_point()), torch.float32)
    integers: set[int] = set()
    with torch.random.fork_rng(devices=[]), torch.no_grad(), plain_kernels(model):
        while True:
            if inputs is None:
                given = from_shapes(shape, dtype, default, sorted(integers), place)
                what = f"input_shape={shape!r} (batch dimension added: {given.text})"
            else:
                given = from_tensors(inputs, place)
                what = f"inputs of {given.text}"
            try:
                layers = _recorded(shadow_of(model, place), given, place, what)
                break
            except TokensExpected as found:
                # shapes do not say which inputs are token ids: the embedding that they reach does
                if inputs is not None or found.inputs <= integers:
                    raise ValueError(f"the model cannot run on {what}: {found}") from None
                integers |= found.inputs
    if not layers:
        raise ValueError(f"no layer with weights runs in {type(model).__name__}: there is nothing to trace")
    return layers


def _recorded(shadow: nn.Module, given: Arguments, device: torch.device, what: str) -> list[LayerShape]:
    from stripes_sim._recorder import Recorder, TokensExpected, UnknownLayerError, running_modules

    with device, _autocast_knows_meta(), running_modules(shadow) as where:
        recorder = Recorder(shadow, given.tensors, where)
        try:
            with recorder:
                shadow(*given.args, **given.kwargs)
        except TokensExpected:
            raise
        except UnknownLayerError as error:
            raise ValueError(str(error)) from None
        except Exception as error:
            first = str(error).splitlines()[0] if str(error) else "no message"
            if "flexattention" in str(error).lower().replace("_", ""):
                raise ValueError(
                    f"{where[-1] or 'the model'} calls flex_attention, which cannot be traced: let it call "
                    "scaled_dot_product_attention"
                ) from error
            # torch says of operators whose results depend on numbers that the meta device has none
            numbers = device.type == "meta" and ("meta" in str(error).lower() or "data" in str(error).lower())
            hint = "; where the way depends on numbers, give inputs= and device='cpu'" if numbers else ""
            raise ValueError(
                f"the model cannot run on {what}: {type(error).__name__} in {where[-1] or 'the model itself'}: "
                f"{first}{hint}"
            ) from error
    return recorder.layers()


@contextmanager
def _autocast_knows_meta() -> Iterator[None]:
    """torch.autocast refuses the meta device even where it is switched off, as rotary embeddings of transformers do."""
    import torch

    original = torch.autocast

    def autocast(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device_type == "meta" else original(device_type, *args, **kwargs)

    torch.autocast = autocast  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        torch.autocast = original  # type: ignore[misc]


@contextmanager
def plain_kernels(model: nn.Module) -> Iterator[None]:
    """Without kernels that do a whole transformer layer, recurrent layer or attention in one operator."""
    import torch
    from torch import nn
    from torch.nn.attention import SDPBackend, sdpa_kernel

    # convolutions are faster with these libraries, and one operator either way
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    libraries = (torch.backends.mkldnn, torch.backends.cudnn) if recurrent else ()
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    before = [library.set_flags(_enabled=False)[0] for library in libraries]
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for library, enabled in zip(libraries, before, strict=True):
            library.set_flags(_enabled=enabled)
