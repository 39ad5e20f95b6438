"""Networks and data of one's own: what a config's ``PACKAGE.MODULE:FUNCTION`` gives, and whether it is still the same.

RUN/given.json    the names, and a digest of what each gave when the run began; only where one of them is one's own
"""

from __future__ import annotations

import copy
import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from waveq._files import write_json
from waveq._own_code import naming_errors
from waveq._reading import read_object
from waveq.train.config import TrainConfig, parse_config
from waveq.train.strict import require_types
from waveq.train.user_modules import IN_MEMORY, give, is_own, named_or_own, user_call, user_object
from waveq.zoo.datasets.own import data_digest, own_dataset
from waveq.zoo.datasets.seeds import drawn_from

if TYPE_CHECKING:
    from waveq.zoo.datasets.data import Dataset

__all__ = [
    "GIVEN",
    "own_config",
    "own_data",
    "own_model",
    "own_network",
    "remember",
    "require_fit",
    "require_importable",
    "require_named",
]

GIVEN = "given.json"


def own_network(name: str) -> nn.Module:
    """The model of PACKAGE.MODULE:FACTORY, ready to be trained; of a model with inputs, the model.

    Raises:
        ValueError: see `own_model`; or it is wrapped for several devices.
    """
    model, _ = own_model(name)
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(f"model: {name} gives a {type(model).__name__}; give the network in it, model.module")
    return model if model.training else model.train()  # layers that alone are in eval mode are left so


def own_model(name: str) -> tuple[nn.Module, Any]:
    """What PACKAGE.MODULE:FACTORY gives, or is: a model, with the inputs that it is called with or None.

    Raises:
        ValueError: no such module or function, one that needs arguments or raises an error, or something else than a
            model.
    """
    made = user_call(name)
    if made is user_object(name):
        made = copy.deepcopy(made)  # what is trained is never the module's own
    model, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: {name} must give a torch module, not {type(model).__name__}")
    return model, inputs


def own_data(name: str, seed: int) -> Dataset:
    """The data of PACKAGE.MODULE:LOADERS; what it draws at random follows from the seed.

    Raises:
        ValueError: no such module or function, one that needs arguments, or no loaders (see `own_dataset`).
    """
    with drawn_from(seed):
        return own_dataset(name, user_call(name))


def require_named(config: TrainConfig) -> None:
    """Methods, network and data that a config names are there; nothing is called yet.

    Raises:
        ValueError: one is not; the message gives the nearest name.
    """
    from waveq.method.presets import get_preset
    from waveq.quantizers import activation_quantizer_class, quantizer_class
    from waveq.zoo import network
    from waveq.zoo.datasets.data import source

    for name, known in ((config.model, network), (config.dataset, source)):
        user_object(name) if is_own(name) else named_or_own(name, known)
    get_preset(config.preset)
    quantizer_class(config.quantizer)
    if config.activation_quantizer is not None:
        activation_quantizer_class(config.activation_quantizer)


def require_importable(config: TrainConfig) -> None:
    """Processes that are started for a config can find its network and data.

    Raises:
        ValueError: one of them is an object of this process.
    """
    for name in (config.model, config.dataset):
        if name.startswith(IN_MEMORY):
            raise ValueError(
                f"devices: {name} lives in this process alone; {config.devices} processes need a function that they "
                "can import, as PACKAGE.MODULE:FUNCTION"
            )


@torch.no_grad()
def require_fit(network: nn.Module, dataset: Dataset, config: TrainConfig) -> None:
    """One's own network takes the data and gives logits for every class, or the data one's own network's.

    Raises:
        ValueError: it does not; the message names both.
    """
    _require_trainable(network, config)
    x, _ = dataset.validation.batch(torch.arange(min(2, len(dataset.validation))))
    told = f"{config.model}, called with x of shape {tuple(x.shape)} from {config.dataset},"
    modes = [(module, module.training) for module in network.modules()]
    try:
        with naming_errors(told):
            found = network.eval()(x.to(next((p.dtype for p in network.parameters()), x.dtype)))
    except ValueError as error:
        last = x.ndim == 4 and x.shape[-1] in (1, 3) and x.shape[1] not in (1, 3)
        raise ValueError(f"{error}{_CHANNELS_LAST if last else ''}") from error.__cause__
    finally:
        for module, training in modes:
            module.training = training
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(x):
        got = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"{told} gives {got}; logits of shape (n, classes) are expected"
            + ("" if isinstance(found, Tensor) else ": wrap it in a module whose forward returns them alone")
        )
    if not found.isfinite().all():
        raise ValueError(f"{told} gives logits that are NaN or infinite")
    if found.shape[1] < len(dataset.classes):
        raise ValueError(f"{told} gives {found.shape[1]} logits, but the data have {len(dataset.classes)} classes")


_CHANNELS_LAST = "; x seems to have its channels last, x.permute(0, 3, 1, 2) puts them first"


def _require_trainable(network: nn.Module, config: TrainConfig) -> None:
    """In float32, which the run turns into its precision, and with something to train where anything is trained."""
    for tensor in network.parameters():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ValueError(f"{config.model} has parameters of {kind}; float32 is expected: give model.float()")
    if (config.epochs or config.pretrain_epochs) and not any(p.requires_grad for p in network.parameters()):
        raise ValueError(f"{config.model} has no parameter that requires a gradient, so nothing can be trained")


def remember(folder: Path, config: TrainConfig, dataset: Dataset, network: nn.Module, *, leads: bool = True) -> None:
    """Note in a run folder what was given, or compare it with what is noted there.

    Args:
        folder: of the run.
        config: names network and data; nothing is done where both are the zoo's.
        dataset: the data.
        network: with the weights that it was made with.
        leads: whether this process writes the file.

    Raises:
        ValueError: network or data are not what the run began with.
    """
    now = {}
    if is_own(config.model):
        now["model"] = {"name": config.model, "digest": _network_digest(network, values=_starts_as_made(config))}
    if is_own(config.dataset):
        now["dataset"] = {"name": config.dataset, "digest": data_digest(dataset)}
    if not now:
        return
    path = folder / GIVEN
    if not path.exists():
        if leads:
            write_json(path, now)
        return
    then = read_object(path)
    require_types(then, {kind: {"name": str, "digest": str} for kind in now}, where=str(path))
    for kind, told in now.items():
        if then[kind]["digest"] != told["digest"]:
            raise ValueError(
                f"{kind}: {told['name']} does not give what it gave when {folder} was begun (digest "
                f"{then[kind]['digest']}, now {told['digest']}); it must give the same at every call. Bring back what "
                "it was, or take another run folder"
            )


def own_config(model: Any, data: Any, *, where: str = "own_config", **fields: Any) -> TrainConfig:
    """The config of a run on a network and data of one's own.

    Args:
        model: a name of the zoo, "PACKAGE.MODULE:FACTORY", such a function or class, or a model, whose weights are kept
            as they are now.
        data: a name of the zoo, "PACKAGE.MODULE:LOADERS", such a function, or the loaders (see `own_dataset`).
        where: what to name in an error about a field.
        fields: of `TrainConfig`.

    Returns:
        The config. What is no importable function is known to this process alone, and so is then the run: another
        process goes on with it when it is given the same again.

    Raises:
        ValueError: a wrong field.
        TypeError: no model.

    Example:
        >>> pair = torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])
        >>> config = own_config("digitsnet", (pair, pair, pair), epochs=2)
        >>> config.dataset, str(config.folder)
        ('in-memory:data-331febdc', 'runs/digitsnet-in-memory.data-331febdc-learn-seed0')
    """
    return parse_config({"model": _model_name(model), "dataset": _data_name(data, fields), **fields}, where=where)


def _model_name(model: Any) -> str:
    if isinstance(model, str):
        return model
    if isinstance(model, nn.Module):
        kept = copy.deepcopy(model)
        label = f"{type(model).__name__}-{_network_digest(kept, values=True)[:8]}"
        return give(label, lambda: copy.deepcopy(kept))
    if callable(model):
        return _function_name(model)
    raise TypeError(f"model must be a torch module, a function that makes one or a name, not {type(model).__name__}")


def _data_name(data: Any, fields: Mapping[str, Any]) -> str:
    if isinstance(data, str):
        return data
    if callable(data):
        return _function_name(data)
    with drawn_from(fields.get("split_seed", 0)):
        digest = data_digest(own_dataset("data", data))
    return give(f"data-{digest[:8]}", lambda: data)


def _function_name(function: Callable[[], Any]) -> str:
    """As it can be imported; of what cannot, a cell of a notebook say, one for this process."""
    module, name = function.__module__, getattr(function, "__qualname__", "")
    if module != "__main__" and getattr(sys.modules.get(module), name, None) is function:
        return f"{module}:{name}"
    return give(name.rpartition(".")[2].strip("<>") or type(function).__name__, function)


def _starts_as_made(config: TrainConfig) -> bool:
    """Whether the float network is the one that the factory makes, weights included."""
    return config.init is None and not config.pretrain_epochs


def _network_digest(network: nn.Module, *, values: bool) -> str:
    found = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if values:
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
