"""One training of one network: what it is, and where it is done. How it is done: ``training``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.lab.settings import Setting

__all__ = ["Job", "Where"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run, from its seed's float network (or from scratch) to the accuracy on the test part.

    Attributes:
        setting: network, images, epochs.
        seed: of the float network, of the order of images and of everything else that is drawn.
        attach: arguments for ``waveq.attach``; empty trains in float. Beside its own, ``layer_costs`` may be the name
            of an objective of ``stripes_sim.cost_table``, and ``wave`` a mapping {"rise": share of the run at which the
            wave begins to rise, "strength": where it ends}: linear in between; ``reestimate_bn`` is the number of
            training batches over which batch norm's statistics are averaged once the weights are final.
        allocation: {"method": ..., "objective": ..., "limit": ...} finds the bits before training, see ``allocation``,
            and ``search`` for objectives in multiplications x bits.
        scratch: start from random weights and train for the float network's epochs as well.
        lr: instead of the setting's.
        epochs: instead of the setting's.
    """

    setting: Setting
    seed: int
    attach: Mapping[str, Any] = field(default_factory=dict)
    allocation: Mapping[str, Any] | None = None
    scratch: bool = False
    lr: float | None = None
    epochs: int | None = None

    def key(self) -> str:
        """A name for its results: the same for the same job, another one for any other."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:20]


@dataclass(frozen=True, kw_only=True)
class Where:
    """What a result should not depend on, up to rounding: device, precision, folders."""

    folder: Path
    device: str = "cpu"
    bf16: bool = False
    data_dir: Path | None = None
