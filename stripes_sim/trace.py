"""From a torch model to a workload, on the meta device: shapes flow through the model, no number is computed.

`stripes_sim._recorder` watches the operators. A layer is named as `waveq.attach` names its weight: after the module
where the tensor is called ``weight``, else with the tensor's name behind it; a weight of several modules has one name.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stripes_sim.layers import LayerShape

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["trace"]


def trace(
    model: nn.Module,
    input_shape: Sequence[int] | Sequence[Sequence[int]] = (3, 32, 32),
    *,
    dtype: torch.dtype | str | None = None,
) -> list[LayerShape]:
    """The workload of one inference of ``model``, in execution order.

    The model is copied without its weights to the meta device, put into evaluation mode there, and called once; the
    user's model, its mode and the random number generator are not touched. Parametrizations are left out of the copy
    and hooks are not called, so a model with `waveq.attach` traces like the plain one. Layers that inference does not
    reach are not part of the workload. A layer that runs several times has ``copies``.

    Args:
        model: any module.
        input_shape: one sample's shape without batch dimension, or a sequence of shapes for several inputs.
        dtype: of the inputs; ``torch.int64`` or ``"int64"`` for token ids (default: float32).

    Returns:
        `LayerShape` objects: convolutions, linear layers, attention's matrix products (``kind="matmul"``), lookups.

    Raises:
        ValueError: the model cannot run on that shape, or a weight meets an operator that is no known layer.

    >>> from torch import nn
    >>> layers = trace(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 30 * 30, 10)), (3, 32, 32))
    >>> [(layer.name, layer.kind, layer.macs) for layer in layers]
    [('0', 'conv', 194400), ('2', 'linear', 72000)]
    """
    import torch
    from torch import nn

    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, but it is {type(model).__name__}")
    shapes = _shapes(input_shape)
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(kind, torch.dtype):
        raise ValueError(f"dtype must be a torch.dtype or its name, such as 'int64', but it is {dtype!r}")
    from stripes_sim._recorder import Recorder, UnknownLayerError, running_modules

    with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("meta"):
        shadow = _meta_copy(model)
        inputs = [torch.empty((1, *shape), dtype=kind) for shape in shapes]
        with running_modules(shadow) as where:
            recorder = Recorder(shadow, inputs, where)
            try:
                with recorder:
                    shadow(*inputs)
            except UnknownLayerError as error:
                raise ValueError(str(error)) from None
            except Exception as error:
                raise ValueError(
                    f"the model cannot run on input_shape={input_shape!r} (dtype {str(kind).removeprefix('torch.')}, "
                    f"batch dimension added): {type(error).__name__} in {where[-1] or 'the model itself'}: "
                    f"{str(error).splitlines()[0] if str(error) else 'no message'}"
                ) from error
    layers = recorder.layers()
    if not layers:
        raise ValueError(f"no layer with weights runs in {type(model).__name__}: there is nothing to trace")
    return layers


def _shapes(input_shape: Any) -> list[tuple[int, ...]]:
    items = tuple(input_shape) if isinstance(input_shape, Sequence) and not isinstance(input_shape, str) else None
    nested = items is not None and items and all(isinstance(item, Sequence) for item in items)
    shapes = [tuple(item) for item in items or ()] if nested else [items]
    for shape in shapes:
        if not shape or any(isinstance(n, bool) or not hasattr(n, "__index__") or n < 1 for n in shape):
            raise ValueError(
                "input_shape must be one sample's sizes without batch dimension, such as (3, 32, 32), or a sequence "
                f"of such shapes, but it is {input_shape!r}"
            )
    return [tuple(int(n) for n in shape or ()) for shape in shapes]


def _meta_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose tensors have shapes and no storage; nothing large is copied on the way."""
    import torch
    from torch import nn
    from torch.nn.utils import parametrize

    memo: dict[int, Any] = {}
    for module in model.modules():
        owned = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
        for tensor in owned:
            if isinstance(tensor, torch.Tensor) and id(tensor) not in memo:
                empty = torch.empty_like(tensor, device="meta", requires_grad=False)
                parameter = isinstance(tensor, nn.Parameter)
                memo[id(tensor)] = nn.Parameter(empty, requires_grad=False) if parameter else empty
    try:
        shadow = copy.deepcopy(model, memo)
    except Exception as error:
        raise ValueError(f"{type(model).__name__} cannot be copied: {type(error).__name__}: {error}") from error
    for module in shadow.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            hooks.clear()
    for module in list(shadow.modules()):
        if parametrize.is_parametrized(module):
            for name, steps in list(module.parametrizations.items()):  # type: ignore[union-attr, operator]
                if hasattr(steps, "original"):
                    _unparametrize(module, name, steps.original)
    return shadow.eval()


def _unparametrize(module: nn.Module, name: str, original: Any) -> None:
    """Put the original tensor back and compute nothing (torch's own removal evaluates the parametrization)."""
    # the property lives on the class that register_parametrization made for this one instance
    del module.parametrizations[name]  # type: ignore[union-attr, operator]
    plain = type(module).__mro__[1]
    if len(module.parametrizations) == 0:  # type: ignore[arg-type]
        module.__class__ = plain
        del module.parametrizations
    elif name in vars(type(module)):
        module.__class__ = type(
            type(module).__name__, (plain,), {k: v for k, v in vars(type(module)).items() if k != name}
        )
    module.register_parameter(name, original)
