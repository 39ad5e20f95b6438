"""LSTM, GRU and RNN hand a list of their weights to one function: here it is filled with the quantised ones."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["keep_plain_weights", "read_parametrised"]


def read_parametrised(module: nn.RNNBase) -> None:
    """Let a recurrent layer compute with its weights as they are read, once a call.

    torch looks at each call whether its weights are other tensors than the last time, reads them twice then, and keeps
    what it read, which a copy of the module could not take along. The layer's class is its own (parametrised) one and
    goes with the parametrisation.

    Args:
        module: with at least one parametrised weight.
    """
    owner: Any = type(module)
    if "_update_flat_weights" in vars(owner):
        return
    plain = owner.__mro__[1]

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        kept = self._flat_weights
        self.__dict__["_flat_weights"] = [getattr(self, name, None) for name in self._flat_weights_names]
        try:
            return plain.forward(self, *args, **kwargs)
        finally:
            self.__dict__["_flat_weights"] = kept

    owner.forward = forward
    owner._init_flat_weights = _keep_originals  # after ``module.to``
    owner._update_flat_weights = _nothing  # they have just been read
    owner.flatten_parameters = _nothing  # for cuDNN, which takes one block of memory; these are new tensors each time


def _keep_originals(self: Any) -> None:
    """Between calls the list holds what is trained: leaves, which can be copied."""
    chains = self.parametrizations
    self.__dict__["_flat_weights"] = [
        chains[name].original if name in chains else self._parameters.get(name) for name in self._flat_weights_names
    ]


def _nothing(_self: Any) -> None:
    """Leave everything as it is."""


def keep_plain_weights(module: nn.RNNBase) -> None:
    """The list of a layer that is plain again."""
    module._init_flat_weights()
