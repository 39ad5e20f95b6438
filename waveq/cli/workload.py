"""What `waveq score` and `waveq explore` price: a policy and the shapes of the network that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from waveq.cli.parsing import check_numbers

if TYPE_CHECKING:
    from stripes_sim import LayerShape

__all__ = ["PricedPolicy", "Sizes", "priced_policy"]


class Sizes(NamedTuple):
    """Sizes of a network of the zoo; None means as published."""

    input_size: int | None = None
    in_channels: int | None = None
    num_classes: int | None = None

    def check(self) -> None:
        """Refuse sizes below 1, by option."""
        check_numbers({field.replace("_", "-"): value for field, value in self._asdict().items()})


@dataclass(frozen=True, kw_only=True)
class PricedPolicy:
    """Everything that an accelerator needs to know of a policy."""

    layers: list[LayerShape]
    weight_bits: int | Mapping[str, int]
    activation_bits: int | Mapping[str, int]
    home: Path | None
    """The run folder that the policy came from, if any."""
    name: str

    def folder(self, verb: str) -> Path:
        """Where results go unless told otherwise: the policy's own run folder, else runs/VERB-NAME."""
        return self.home or Path("runs") / f"{verb}-{self.name}"


def priced_policy(text: str, model: str | None, workload: Path | None, sizes: Sizes) -> PricedPolicy:
    """Read a policy: a run folder, a policy file, or a number of bits; the latter two need a network.

    Raises:
        ValueError: none of these, or a network that is missing, unknown or given twice.
    """
    sizes.check()
    source = Path(text)
    if source.is_dir():
        if model is not None or workload is not None:
            raise ValueError("a run folder knows its network: leave --model and --workload out")
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
    layers = _layers(model, workload, sizes)
    network = model or (workload.stem if workload else "")
    weights, streamed = _bits(text, layers)
    return PricedPolicy(
        layers=layers, weight_bits=weights, activation_bits=streamed, home=None, name=f"{network}-{source.stem}"
    )


def _layers(model: str | None, workload: Path | None, sizes: Sizes) -> list[LayerShape]:
    if (model is None) == (workload is None):
        raise ValueError("say which network the policy is for: --model NAME, or --workload FILE")
    if workload is not None:
        from stripes_sim import read_workload

        return read_workload(workload)
    import torch

    from stripes_sim import trace
    from waveq.zoo import build, network

    entry = network(str(model))
    channels = entry.in_channels if sizes.in_channels is None else sizes.in_channels
    side = entry.input_size if sizes.input_size is None else sizes.input_size
    with torch.device("meta"):
        net = build(entry.name, num_classes=sizes.num_classes, in_channels=channels, input_size=side)
    return trace(net, (channels, side, side))


def _bits(text: str, layers: list[LayerShape]) -> tuple[int | Mapping[str, int], int | Mapping[str, int]]:
    """Weight and activation bits of a policy file or a number."""
    from waveq.train.trained_run import FLOAT_BITS

    if text.isdecimal():
        return int(text), FLOAT_BITS
    from waveq.policy import Policy

    policy = Policy.load(text)
    skipped = dict.fromkeys(policy.skipped, FLOAT_BITS)
    streamed = {layer.name: policy.activation_bits.get(layer.name, FLOAT_BITS) for layer in layers}
    return {**skipped, **policy}, streamed
