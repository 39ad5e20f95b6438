"""A finished training run, as the steps after training see it: network, data, policy, workload."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waveq._names import nearest
from waveq._reading import read_object
from waveq.policy import Policy
from waveq.train.config import TrainConfig, load_recipe
from waveq.train.run_folder import RunFolder, load_weights, nearest_run
from waveq.train.strict import require_types
from waveq.train.user_modules import is_own

if TYPE_CHECKING:
    from torch import nn

    from stripes_sim.layers import LayerShape
    from waveq.zoo.datasets.data import Batches, Dataset

__all__ = ["FLOAT_BITS", "PARTS", "TrainedRun"]

FLOAT_BITS = 16
"""What a weight or activation that is left in floating point is priced at: the accelerators' full width."""
PARTS = ("validation", "test", "train")


@dataclass(frozen=True)
class TrainedRun:
    """A run folder whose training has ended.

    Args:
        path: the folder.

    Raises:
        ValueError: no run folder, or one whose training has not ended; the message says what to call.
    """

    path: Path

    def __post_init__(self) -> None:
        if not (self.path / "config.json").is_file():
            raise ValueError(
                f"{self.path} is no run folder (it has no config.json); make one with waveq train or demo"
                f"{nearest_run(self.path)}"
            )
        if self.folder.result() is None:
            raise ValueError(
                f"{self.path} holds a run that is not finished; go on with: waveq train --recipe "
                f"{shlex.quote(str(self.path / 'config.json'))} --run {shlex.quote(str(self.path))}"
            )

    @property
    def folder(self) -> RunFolder:
        """The files that training wrote."""
        return RunFolder(self.path)

    @cached_property
    def config(self) -> TrainConfig:
        """What was trained, and how."""
        return load_recipe(self.path / "config.json", run_dir=self.path)

    @cached_property
    def result(self) -> dict[str, Any]:
        """The accuracies of training (shares of 1), bits and warnings."""
        found = self.folder.result()
        assert found is not None
        return found

    @cached_property
    def policy(self) -> Policy:
        """The learned or preset bits, of the layers that training gave bits to.

        Raises:
            ValueError: policy.json is damaged, or says something else than result.json.
        """
        policy, trained = Policy.load(self.folder.policy), self.result["bits"]
        both = f"{self.folder.policy} and {self.path / 'result.json'} do not belong together"
        for name in policy:
            if name not in trained:
                raise ValueError(f"{both}: the second has no bits for {name!r}{nearest(name, trained)}")
            if policy[name] != trained[name]:
                raise ValueError(f"{both}: {name!r} has {policy[name]} bits in one and {trained[name]} in the other")
        for name in trained:
            if name not in policy:
                raise ValueError(f"{both}: the first has no bits for {name!r}{nearest(name, policy)}")
        return policy

    @cached_property
    def dataset(self) -> Dataset:
        """The data, as the network takes them.

        Raises:
            ValueError: not there; or network or data of one's own are not those that the run began with.
        """
        from waveq.train.given import remember
        from waveq.train.materials import make_dataset, make_network

        dataset = make_dataset(self.config)
        if is_own(self.config.model) or is_own(self.config.dataset):
            remember(self.path, self.config, dataset, make_network(self.config, dataset), leads=False)
        return dataset

    def images(self, part: str) -> Batches:
        """All images of "validation", "test" or "train", in order."""
        return self.dataset.loader(part)

    def float_network(self) -> nn.Module:
        """The float network that every policy starts from, in evaluation mode."""
        from waveq.train.materials import make_network

        network = make_network(self.config, self.dataset)
        source = self.float_weights
        if source is not None:
            network.load_state_dict(load_weights(source))
        return network.eval()

    def final_network(self) -> nn.Module:
        """The network that training ended with, its weights on their grids and its inputs quantised, in evaluation
        mode."""
        from waveq.method.fixed_input import FIXED_INPUT
        from waveq.method.input_quantizers import restore_inputs
        from waveq.train.materials import make_network

        network, weights = make_network(self.config, self.dataset), load_weights(self.folder.weights)
        if any(f".{FIXED_INPUT}." in key for key in weights):
            restore_inputs(network, weights)
        network.load_state_dict(weights)
        return network.eval()

    @property
    def float_weights(self) -> Path | None:
        """The file of the float network's weights; None where training began with random ones."""
        config = self.config
        if config.init is not None:
            return config.init / "float" / "weights.pt" if config.init.is_dir() else config.init
        return self.path / "float" / "weights.pt" if config.pretrain_epochs else None

    @cached_property
    def layers(self) -> list[LayerShape]:
        """The workload of one image."""
        from stripes_sim import trace
        from waveq.train.materials import make_network

        return trace(make_network(self.config, self.dataset), self.dataset.shape)

    def weight_bits(self) -> dict[str, int]:
        """Bits of every layer with weights; those left in floating point count FLOAT_BITS."""
        return {layer.name: self.policy.get(layer.name, FLOAT_BITS) for layer in self.layers if layer.has_weights}

    def activation_bits(self) -> dict[str, int]:
        """Bits of every layer's inputs; those left in floating point count FLOAT_BITS."""
        return {layer.name: self.policy.activation_bits.get(layer.name, FLOAT_BITS) for layer in self.layers}

    def read_json(self, name: str, kinds: Mapping[str, Any]) -> dict[str, Any] | None:
        """What a later step wrote as RUN/name, or None.

        Args:
            name: of the file.
            kinds: the fields that are needed, and their types; see `waveq.train.strict.require_types`.

        Raises:
            ValueError: damaged; the message names file and field.
        """
        path = self.path / name
        if not path.exists():
            return None
        try:
            found = read_object(path)
            require_types(found, kinds, where=str(path))
            return found
        except ValueError as error:
            raise ValueError(f"{error}; remove it and the step that made it runs again") from None
