"""The float weights that a search for bits began with, kept for ``waveq.rewind``."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from waveq.method.checkpoint import ROOT_COUNTS, ROOT_SEAL, ROOT_STATE
from waveq.method.view import View

__all__ = ["Start", "plain_state"]


class Start:
    """A copy in main memory of the model's parameters and buffers, from when its bits began to be learned.

    Weights that are loaded before the first step are the start then. A checkpoint from later says nothing of it, and
    neither does a model without memory (meta): there is none, which ``weights`` says by being None.

    Args:
        wq: the handle, not kept alive from here.
    """

    def __init__(self, wq: View) -> None:
        self._wq: weakref.ref[View] | None = weakref.ref(wq)
        self._hook: RemovableHandle | None = wq._model.register_load_state_dict_post_hook(self._loaded)  # type: ignore[no-untyped-call]
        self.weights: dict[str, Any] | None = None
        self._take(wq)

    def __deepcopy__(self, _memo: dict[int, Any]) -> Start:
        """What hangs on a copy of the model: that is rewound with a start that is given."""
        copied = Start.__new__(Start)
        copied.__setstate__()
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        """Like a copy; that an attached model cannot be pickled is for torch to say."""
        return object.__new__, (Start,), ()

    def __setstate__(self, _state: object = None) -> None:
        self._wq, self._hook, self.weights = None, None, None

    def remove(self) -> None:
        """Forget the weights, and follow no more loading."""
        if self._hook is not None:
            self._hook.remove()
        self.weights = None

    def _loaded(self, _model: nn.Module, _keys: object) -> None:
        wq = None if self._wq is None else self._wq()
        if wq is not None and wq.steps == 0:
            self._take(wq)
        else:
            self.weights = None

    def _take(self, wq: View) -> None:
        state = plain_state(wq)
        if any(isinstance(value, Tensor) and value.is_meta for value in state.values()):
            self.weights = None
            return
        self.weights = {
            name: value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
            for name, value in state.items()
        }


def plain_state(wq: View) -> dict[str, Any]:
    """What the model's ``state_dict`` would hold if the method were removed."""
    tensors: dict[int, list[str]] = {}
    for layer in wq._layers.values():
        for module, tensor in zip(layer.modules, layer.tensors, strict=True):
            tensors.setdefault(id(module), []).append(tensor)
    renamed, dropped = dict[str, str](), [*ROOT_STATE, ROOT_SEAL, ROOT_COUNTS]
    for name, module in wq._model.named_modules(remove_duplicate=False):
        for tensor in tensors.get(id(module), ()):
            inner = f"{name}.parametrizations.{tensor}."
            renamed[f"{inner}original"] = f"{name}.{tensor}"
            dropped.append(f"{inner}0.")
    state = wq._model.state_dict()
    return {renamed.get(key, key): value for key, value in state.items() if not key.startswith(tuple(dropped))}
