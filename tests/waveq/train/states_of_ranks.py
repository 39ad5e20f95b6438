"""A module for ``waveq train --import``: every rank writes what its network has come to at the end of each stage."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import nn

from waveq.train.run_folder import save_weights
from waveq.train.stage import Stage

_run = Stage.run


def _run_and_write(stage: Stage, network: nn.Module, *rest: Any) -> dict[str, float]:
    found = _run(stage, network, *rest)
    save_weights(Path(os.environ["STATES"], f"{stage.name}-{stage.ranks.rank}.pt"), network.state_dict())
    return found


if "STATES" in os.environ:  # whoever imports all modules means nothing by it
    Stage.run = _run_and_write  # type: ignore[method-assign]
