"""The input quantiser that a finalised layer keeps: a module of the layer, and a class that calls it.

A hook would do for plain Python alone. A compiler that has seen the layer before does not look for new hooks, and a
scripted or traced network has none: it would go on without the quantiser and say nothing. They all look at a layer's
class and modules.
"""

# no ``from __future__ import annotations`` here: the compiler of scripts needs the types, not their names

import copy
import functools
import types
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from waveq.method.notes import noted, read_note
from waveq.quantizers import ActivationQuantizer, DoReFaActivation

__all__ = ["FIXED_INPUT", "FixedInput", "drop_input", "keep_input"]

FIXED_INPUT = "waveq_restore_inputs"  # in the keys of a ``state_dict``, so that an error about them says what to call
_WITH_OUTPUT_SIZE = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_ALONE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MOST = 512  # stairs that are followed; quantisers of 8 bits have 255
_FARTHEST = 2.0**100  # beyond lies nothing new, and nothing overflows before


class FixedInput(nn.Module):
    """A quantiser of inputs that learns no more, whatever mode the network is in.

    What it has learned is in its buffers, so that optimizers do not see it, float32 in networks of any dtype. Its
    method, bits and sign travel in the ``state_dict`` as well.

    Attributes:
        bits: bits of the inputs.
        signed: whether inputs have a sign.
        quantizer: the method with its ranges or levels as they were learned; None is DoReFa's, which has none.

    Example:
        >>> FixedInput(2, signed=False)(torch.tensor([-0.4, 0.3, 4.0]))
        tensor([0.0000, 0.3333, 1.0000])
    """

    __jit_ignored_attributes__ = ("quantizer",)  # scripts look levels up
    levels: Tensor
    thresholds: Tensor

    def __init__(self, bits: int, *, signed: bool, quantizer: ActivationQuantizer | None = None) -> None:
        super().__init__()
        self.bits, self.signed = bits, signed
        self.quantizer = DoReFaActivation(bits) if quantizer is None else copy.deepcopy(quantizer).eval()
        for module in self.quantizer.modules():
            for name, value in list(module._parameters.items()):
                del module._parameters[name]
                module.register_buffer(name, None if value is None else value.detach().clone())
        # torch's encoder layers call their inner layers only where one of their modules has a hook; otherwise, in
        # evaluation, they hand the weights to one function, past every input quantiser
        self.register_forward_pre_hook(_is_called)

    def forward(self, x: Tensor) -> Tensor:
        """x on its levels, in the dtype of x."""
        # decided when the script is made: the other branch is not compiled
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            wide = x.float()
            held = torch.clamp(wide, self.levels[0], self.levels[-1])
            level = self.levels[torch.bucketize(wide, self.thresholds, right=True)]
            return (level + (held - held.detach())).to(x.dtype)
        else:  # noqa: RET505  # the compiler of scripts wants it
            return self.quantized(x)

    def quantized(self, x: Tensor) -> Tensor:
        """``forward`` in Python; a tensor without values (a dry run for shapes) passes."""
        return x if x.is_meta else self.quantizer(x, signed=self.signed)

    def train(self, mode: bool = True) -> Self:
        """The quantiser stays as it is."""
        self.training = mode
        return self

    def extra_repr(self) -> str:
        """Method, bits and sign."""
        return f"{self.quantizer.method!r}, bits={self.bits}, signed={self.signed}"

    # ------------------------------------------------------------------ in a state_dict

    def get_extra_state(self) -> Tensor:
        """What a ``state_dict`` says beside the buffers."""
        return noted(self._facts())

    def set_extra_state(self, state: Any) -> None:
        """Take the sign from a ``state_dict`` of the same method and bits.

        Raises:
            RuntimeError: of another method, or other bits.
        """
        told, own = read_note(state) or {}, self._facts()
        if (told.get("method"), told.get("bits")) != (own["method"], own["bits"]):
            raise RuntimeError(
                f"the checkpoint's inputs are quantised by {told.get('method')!r} to {told.get('bits')} bits, the "
                f"model's by {own['method']!r} to {own['bits']}: waveq.restore_inputs(model, checkpoint) puts the "
                "checkpoint's onto the model"
            )
        self.signed = bool(told.get("signed"))

    def _facts(self) -> dict[str, Any]:
        return {"method": self.quantizer.method, "bits": self.bits, "signed": self.signed}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move with the model, but in the precision that was learned in."""
        kept = [(module, dict(module._buffers)) for module in self.quantizer.modules()]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for module, buffers in kept:
            for name, before in buffers.items():
                after = module._buffers[name]
                if before is not None and after is not None and after.dtype != before.dtype:
                    module._buffers[name] = before.to(after.device)
        return self

    # ------------------------------------------------------------------ in a script

    def __prepare_scriptable__(self) -> Self:
        """Called by ``torch.jit.script``: every level, and where it begins, exactly."""
        device = next(self.quantizer.buffers(), torch.zeros(())).device
        with torch.no_grad():
            levels, thresholds = _staircase(lambda x: self.quantizer(x, signed=self.signed), device)
            probe = torch.linspace(-1.0, 1.0, 99, device=device) * (2.0 * levels.abs().max() + 1.0)
            steps = levels[torch.bucketize(probe, thresholds, right=True)]
            if len(levels) > 2**self.bits or not torch.equal(steps, self.quantizer(probe, signed=self.signed)):
                raise RuntimeError(
                    f"the input quantiser {self.quantizer.method!r} is no staircase that a script could look up; "
                    "torch.jit.trace and torch.export take it as it is"
                )
        self.register_buffer("levels", levels, persistent=False)
        self.register_buffer("thresholds", thresholds, persistent=False)
        return self


def _is_called(self: nn.Module, input: tuple[Tensor]) -> None:  # noqa: A002  # scripts want this name and type
    """Change nothing."""


def _staircase(function: Callable[[Tensor], Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """The values of an increasing step function of float32 numbers, and the least number of each value but the first.

    Intervals whose ends differ are halved until their ends are neighbours among the float32 numbers.
    """
    ends = _rank(torch.tensor([-_FARTHEST, _FARTHEST], device=device))
    low, high = ends[:1], ends[1:]
    while bool((high - low > 1).any()) and len(low) <= _MOST:
        middle = torch.div(low + high, 2, rounding_mode="floor")
        low, high = torch.cat([low, middle]), torch.cat([middle, high])
        differ = (function(_number(low)) != function(_number(high))) & (low < high)
        low, high = low[differ], high[differ]
    thresholds = _number(high.sort().values)
    return torch.cat([function(_number(ends[:1])), function(thresholds)]), thresholds


def _rank(numbers: Tensor) -> Tensor:
    """Whole numbers, int64, in the order of float32 numbers, neighbours one apart."""
    bits = numbers.view(torch.int32).to(torch.int64)
    return torch.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _number(rank: Tensor) -> Tensor:
    """The float32 number of a rank."""
    size = rank.abs().to(torch.int32).view(torch.float32)
    return torch.where(rank < 0, -size, size)


# ---------------------------------------------------------------------- the layer's class


def keep_input(module: nn.Module, fixed: FixedInput) -> None:
    """Have a layer quantise its input from now on; what it had before is dropped."""
    drop_input(module)
    module.add_module(FIXED_INPUT, fixed.to(module.weight.device))  # type: ignore[arg-type]
    if "forward" in module.__dict__ or parametrize.is_parametrized(module):
        # somebody else has taken forward, or the class, and would take it back
        module.register_forward_pre_hook(_quantize_first, with_kwargs=True)
    else:
        module.__class__ = _class_with_input(type(module))  # type: ignore[arg-type]  # mypy: no Hashable


def drop_input(module: nn.Module) -> FixedInput | None:
    """Take a kept input quantiser off a layer, and return it; None if there is none."""
    fixed = module._modules.get(FIXED_INPUT)
    if not isinstance(fixed, FixedInput):
        return None
    delattr(module, FIXED_INPUT)
    if getattr(type(module), "quantizes_its_input", False):
        module.__class__ = type(module).__bases__[0]
    for key, hook in list(module._forward_pre_hooks.items()):
        if hook is _quantize_first:
            del module._forward_pre_hooks[key]
            module._forward_pre_hooks_with_kwargs.pop(key, None)
    return fixed


def _quantize_first(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    fixed: Any = module._modules[FIXED_INPUT]
    return ((fixed(args[0]), *args[1:]), kwargs) if args else ((), {**kwargs, "input": fixed(kwargs["input"])})


@functools.cache
def _class_with_input(original: type[nn.Module]) -> type[nn.Module]:
    """The same class, which quantises its input first; ``isinstance`` and a printed model show no difference."""
    forwards: tuple[tuple[tuple[type[nn.Module], ...], Any], ...] = (
        (_ALONE, _forward),
        (_WITH_OUTPUT_SIZE, _forward_with_output_size),
    )
    forward = next((f for kinds, f in forwards if any(original.forward is k.forward for k in kinds)), _forward_of_any)
    return type(
        original.__name__,
        (original,),
        {
            "__module__": original.__module__,
            "__doc__": original.__doc__,
            "__reduce__": _reduce,
            "quantizes_its_input": True,
            "forward": forward,
            "plain_forward": _renamed(original.forward, "plain_forward"),
        },
    )


def _renamed(function: Any, name: str) -> Any:
    """The function under another name: a script would compile two of one name into one."""
    if not isinstance(function, types.FunctionType):
        return function
    made = types.FunctionType(
        function.__code__, function.__globals__, name, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__, made.__annotations__ = function.__kwdefaults__, function.__annotations__
    made.__module__ = function.__module__
    return made


# The first two are read by the compiler of scripts, which knows no type for self and no attribute whose name is in a
# variable.


def _forward(  # type: ignore[no-untyped-def]
    self,
    input: Tensor,  # noqa: A002
) -> Tensor:
    return self.plain_forward(self.waveq_restore_inputs(input))  # type: ignore[no-any-return]


def _forward_with_output_size(  # type: ignore[no-untyped-def]
    self,
    input: Tensor,  # noqa: A002
    output_size: list[int] | None = None,
) -> Tensor:
    return self.plain_forward(self.waveq_restore_inputs(input), output_size)  # type: ignore[no-any-return]


def _forward_of_any(self: Any, *args: Any, **kwargs: Any) -> Any:
    args, kwargs = _quantize_first(self, args, kwargs)
    return self.plain_forward(*args, **kwargs)


def _reduce(self: nn.Module) -> tuple[Any, ...]:
    return _new, (type(self).__bases__[0],), self.__getstate__()  # type: ignore[no-untyped-call]


def _new(original: type[nn.Module]) -> nn.Module:
    kind: type[nn.Module] = _class_with_input(original)  # type: ignore[arg-type]  # mypy: no Hashable
    return kind.__new__(kind)
