"""What `waveq score` and `waveq explore` price: a policy and the shapes of the network that it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from waveq._reading import read_json, read_object
from waveq.cli.common import NETWORKS
from waveq.cli.parsing import check_numbers, parse_shapes
from waveq.train.user_modules import named_or_own

if TYPE_CHECKING:
    from torch import Tensor

    from stripes_sim import Captured, LayerShape
    from waveq.zoo.datasets.data import Dataset

__all__ = [
    "ActivationBits",
    "CacheBits",
    "DefaultBits",
    "GroupSize",
    "InChannels",
    "InputShape",
    "InputSize",
    "Llm",
    "LlmContext",
    "LlmPhase",
    "ModelName",
    "Network",
    "NumClasses",
    "OwnShapes",
    "PricedPolicy",
    "WorkloadFile",
    "captured",
    "named_network",
    "priced_policy",
    "read_activation_bits",
]


_NETWORK = "The network, where the policy is no run folder"
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        help=f"Network that a policy file or number is for: {NETWORKS}; or PACKAGE.MODULE:FACTORY of yours.",
        rich_help_panel=_NETWORK,
    ),
]
WorkloadFile = Annotated[
    Path | None,
    typer.Option(
        "--workload", help="Layer shapes from a CSV, JSON or ONNX file instead of --model.", rich_help_panel=_NETWORK
    ),
]
InputSize = Annotated[
    int | None, typer.Option("--input-size", help="Side of its images in pixels.", rich_help_panel=_NETWORK)
]
InChannels = Annotated[
    int | None, typer.Option("--in-channels", help="Channels of its images.", rich_help_panel=_NETWORK)
]
NumClasses = Annotated[int | None, typer.Option("--num-classes", help="Its classes.", rich_help_panel=_NETWORK)]
InputShape = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        help="Of a model of yours, such as 3x224x224; repeatable, one for each input.",
        rich_help_panel=_NETWORK,
    ),
]
OwnShapes = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="PACKAGE.MODULE:LOADERS, data that a model of yours takes, instead of --input-shape (waveq train).",
        rich_help_panel=_NETWORK,
    ),
]
Llm = Annotated[
    str | None,
    typer.Option(
        "--llm",
        help="A language model instead of --model: llama-7b, mixtral-8x7b, ..., or its config.json.",
        rich_help_panel=_NETWORK,
    ),
]
LlmPhase = Annotated[
    str | None,
    typer.Option("--phase", help="Of --llm: decode (one token, the default) or prefill.", rich_help_panel=_NETWORK),
]
LlmContext = Annotated[
    int | None, typer.Option("--context", help="Tokens of --llm that are attended to (4096).", rich_help_panel=_NETWORK)
]
GroupSize = Annotated[
    int | None,
    typer.Option("--group-size", help="Weights of --llm that share a 16-bit scale.", rich_help_panel=_NETWORK),
]
CacheBits = Annotated[
    int | None, typer.Option("--cache-bits", help="Bits of the cache of --llm (default: its inputs').")
]
ActivationBits = Annotated[
    str | None,
    typer.Option(
        "--activation-bits",
        help="Bits of all activations, or a JSON file of bits by layer (default: the policy's, 16).",
    ),
]
DefaultBits = Annotated[int | None, typer.Option("--default-bits", help="Bits of layers that the policy leaves out.")]


_CONTEXT = 4096


class Network(NamedTuple):
    """What was said of the network that a policy is for; None means as published."""

    model: str | None = None
    workload: Path | None = None
    input_size: int | None = None
    in_channels: int | None = None
    num_classes: int | None = None
    input_shape: Sequence[str] | None = None
    llm: str | None = None
    phase: str | None = None
    context: int | None = None
    group_size: int | None = None
    batch: int | None = None
    data: str | None = None

    def layers(self) -> list[LayerShape]:
        """Its workload.

        Raises:
            ValueError: a network that is missing, unknown or given twice; sizes below 1 or of no use to it.
        """
        sizes = {key: getattr(self, key) for key in ("input_size", "in_channels", "num_classes")}
        check_numbers({key.replace("_", "-"): value for key, value in sizes.items()})
        if sum(value is not None for value in (self.model, self.workload, self.llm)) != 1:
            raise ValueError("say which network the policy is for: --model NAME, or --workload FILE, or --llm NAME")
        for option in ("phase", "context", "group_size"):
            if self.llm is None and getattr(self, option) is not None:
                raise ValueError(f"--{option.replace('_', '-')} is for --llm: leave it out")
        shapes = parse_shapes(self.input_shape)
        factory = self.model is not None and ":" in self.model
        own = {"input_shape": self.input_shape, "data": self.data}
        if self.model is not None and not factory:
            from waveq.zoo import network

            named_or_own(self.model, network)
        for option, value in {**sizes, **own}.items():
            if value is not None and (self.model is None or factory == (option not in own)):
                raise ValueError(f"--{option.replace('_', '-')} says nothing of {self.title}: leave it out")
        if self.workload is not None:
            from stripes_sim import read_workload

            return read_workload(self.workload)
        if self.llm is not None:
            return self._llm_layers()
        if self.data is not None:
            if shapes:
                raise ValueError("--data says what the model takes: leave --input-shape out")
            shapes = [self.dataset().shape]
        return _factory_layers(str(self.model), shapes) if factory else self._zoo_layers()

    def dataset(self) -> Dataset:
        """The data of `data`; what they draw at random, they draw as a run with no other seed does."""
        from waveq.train.given import own_data
        from waveq.train.user_modules import is_own

        name = str(self.data)
        if not is_own(name):
            raise ValueError(f"--data must be PACKAGE.MODULE:LOADERS, a function that gives loaders, not {name!r}")
        return own_data(name, 0)

    @property
    def name(self) -> str:
        """For a folder."""
        return Path(self.title).stem if self.workload or self.llm else self.title.rpartition(":")[2]

    @property
    def title(self) -> str:
        """As it was named."""
        return str(self.model or self.workload or self.llm or "")

    @property
    def new_tokens(self) -> int:
        """That one run of a language model makes or takes, of all sequences."""
        return (self.batch or 1) * ((self.context or _CONTEXT) if self.phase == "prefill" else 1)

    def _llm_layers(self) -> list[LayerShape]:
        from stripes_sim import llm_workload

        name = str(self.llm)
        config = read_object(name) if name.endswith(".json") else name
        return llm_workload(
            config,
            context=_CONTEXT if self.context is None else self.context,
            phase=self.phase or "decode",  # type: ignore[arg-type]  # it says which there are
            group_size=self.group_size,
            batch=self.batch or 1,
        )

    def _zoo_layers(self) -> list[LayerShape]:
        import torch

        from stripes_sim import trace
        from waveq.zoo import build, network

        entry = network(str(self.model))
        channels = entry.in_channels if self.in_channels is None else self.in_channels
        side = entry.input_size if self.input_size is None else self.input_size
        with torch.device("meta"):
            net = build(entry.name, num_classes=self.num_classes, in_channels=channels, input_size=side)
        return trace(net, (channels, side, side))


def named_network(given: Mapping[str, Any]) -> tuple[Network, int]:
    """The network among the arguments of a verb, and the images of one run of the accelerator.

    Args:
        given: arguments by name: the fields of `Network`, of which "batch" is sequences of a language model (they share
            weights and have a cache each) or else images.
    """
    network, batch = Network(**{name: given[name] for name in Network._fields}), int(given["batch"])
    return (network, 1) if network.llm is not None else (network._replace(batch=None), batch)


def _factory_layers(name: str, shapes: Sequence[tuple[int, ...]]) -> list[LayerShape]:
    """The workload of what PACKAGE.MODULE:FACTORY makes: a model, or a model with what it is called with."""
    from stripes_sim import trace
    from waveq.train.given import own_model

    model, inputs = own_model(name)
    if inputs is not None:
        if shapes:
            raise ValueError(f"{name} gives a model with its inputs: leave --input-shape and --data out")
        return trace(model, inputs=inputs)
    try:
        return trace(model, shapes or None)
    except ValueError as error:
        if shapes:
            raise
        raise ValueError(
            f"{error}; say what {name} takes, --input-shape 3x224x224 or --data PACKAGE.MODULE:LOADERS"
        ) from None


@dataclass(frozen=True, kw_only=True)
class PricedPolicy:
    """Everything that an accelerator needs to know of a policy."""

    layers: list[LayerShape]
    weight_bits: int | Mapping[str, int]
    activation_bits: int | Mapping[str, int]
    home: Path | None
    """The run folder that the policy came from, if any."""
    name: str
    network: Network | None = None
    """What was said of the network, where it is no run's."""

    def folder(self, verb: str) -> Path:
        """Where results go unless told otherwise: the policy's own run folder, else runs/VERB-NAME."""
        return self.home or Path("runs") / f"{verb}-{self.name}"


def priced_policy(text: str, network: Network) -> PricedPolicy:
    """Read a policy: a run folder, a policy file, or a number of bits; the latter two need a network.

    Raises:
        ValueError: none of these, or a network that is missing, unknown or given twice.
    """
    source = Path(text)
    if source.is_dir():
        if any(value is not None for value in network):
            raise ValueError("a run folder knows its network: leave --model, --workload and their sizes out")
        from waveq.train.trained_run import TrainedRun

        run = TrainedRun(source)
        return PricedPolicy(
            layers=run.layers,
            weight_bits=run.weight_bits(),
            activation_bits=run.activation_bits(),
            home=source,
            name=source.name,
        )
    if not (text.isdecimal() or source.exists()):
        from waveq.train.run_folder import nearest_run

        raise ValueError(
            f"policy {text}: neither a run folder, a policy file nor a number of bits{nearest_run(source)}"
        )
    layers = network.layers()
    weights, streamed = _bits(text, layers)
    return PricedPolicy(
        layers=layers,
        weight_bits=weights,
        activation_bits=streamed,
        home=None,
        name=f"{network.name}-{source.stem}",
        network=network,
    )


def captured(
    priced: PricedPolicy, source: str, samples: int, activation_bits: Any, default_bits: int | None
) -> Captured:
    """What the layers multiply on real inputs: images of the policy's run, or inputs of a model of the user's, from a
    file or its own factory ("inputs").

    Raises:
        ValueError: neither; no such images or file; a network without trained weights.
    """
    if priced.home is not None:
        from waveq.codesign.values import run_values
        from waveq.train.trained_run import TrainedRun

        return run_values(TrainedRun(priced.home), source, samples, activation_bits=activation_bits)
    network = priced.network
    if network is None or network.model is None or ":" not in network.model:
        raise ValueError(
            "--activations needs a network with trained weights: a run folder, or --model PACKAGE.MODULE:FACTORY (with "
            "--data PACKAGE.MODULE:LOADERS for --activations validation)"
        )
    import numpy as np
    import torch

    from stripes_sim import capture
    from waveq.train.given import own_model
    from waveq.train.trained_run import PARTS

    model, inputs = own_model(network.model)
    if network.data is not None and source in PARTS:
        inputs = _images(network.dataset(), source, samples)
    elif source != "inputs":
        try:
            inputs = torch.from_numpy(np.load(source, allow_pickle=False)[:samples])
        except (OSError, ValueError) as error:
            raise ValueError(f"--activations {source}: must be a .npy file of inputs, samples first: {error}") from None
    elif inputs is None:
        raise ValueError(f"--activations inputs: {network.model} gives a model without them; name a .npy file")
    weights = priced.weight_bits
    if isinstance(weights, Mapping) and default_bits is not None:
        weights = {**{layer.name: default_bits for layer in priced.layers if layer.has_weights}, **weights}
    return capture(model, inputs, activation_bits=activation_bits, weight_bits=weights)


def _images(dataset: Dataset, part: str, count: int) -> Tensor:
    """The first images of a part, as many as there are."""
    import torch

    split = dataset.loader(part).split
    return split.batch(torch.arange(min(count, len(split))))[0]


def read_activation_bits(text: str) -> int | dict[str, int]:
    """A number, or a JSON file of layer -> bits.

    Raises:
        ValueError: neither, or a number that is none of bits.
    """
    if text.lstrip("-").isdecimal():
        check_numbers({"activation-bits": int(text)}, most=16)
        return int(text)
    try:
        data = read_json(text)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--activation-bits must be a number or a JSON file of bits by layer, not {text}: {error}"
        ) from None
    if not isinstance(data, dict):
        raise ValueError(f"--activation-bits {text}: must be an object of layer: bits")
    return data


def _bits(text: str, layers: list[LayerShape]) -> tuple[int | Mapping[str, int], int | Mapping[str, int]]:
    """Weight and activation bits of a policy file or a number."""
    from waveq.train.trained_run import FLOAT_BITS

    if text.isdecimal():
        if not 1 <= int(text) <= FLOAT_BITS:
            raise ValueError(
                f"policy {text}: bits are from 1 to {FLOAT_BITS}; a file or run folder of that name is not there"
            )
        return int(text), FLOAT_BITS
    from waveq.policy import Policy

    policy = Policy.load(text)
    skipped = dict.fromkeys(policy.skipped, FLOAT_BITS)
    streamed = {layer.name: policy.activation_bits.get(layer.name, FLOAT_BITS) for layer in layers}
    return {**skipped, **policy}, streamed
