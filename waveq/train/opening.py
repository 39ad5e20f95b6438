"""What a run in one process or several begins with: its folder, which rank 0 takes and locks, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from torch import nn

from waveq.train.config import TrainConfig
from waveq.train.lock import alone_in
from waveq.train.ranks import Ranks, by_the_first, restarted
from waveq.train.run_folder import RunFolder

__all__ = ["batch_norm_told", "opened"]


def opened(config: TrainConfig, ranks: Ranks, held: ExitStack, say: Callable[[str], None]) -> RunFolder:
    """The run folder, locked by rank 0 as long as ``held`` is.

    Raises:
        ValueError: on all ranks, where the folder cannot be taken; on one that sees another folder than rank 0, or
            was started with other fields.
    """
    if restarted():
        config = config.model_copy(update={"resume": True})

    def take() -> None:
        held.enter_context(alone_in(config.folder))
        before = RunFolder(config.folder).processes()
        folder = RunFolder.open(config)
        if before not in (None, ranks.size) and folder.result() is None:
            say(_regrouped(config, before or 1, ranks.size))

    by_the_first(ranks, take)
    folder = RunFolder(config.folder)
    if not ranks.leads:
        if not folder.config_file.exists():
            raise ValueError(f"run_dir: {folder.path} is not what process 0 sees; all nodes must share the run folder")
        if differing := folder.differences(config):
            raise ValueError(f"process {ranks.rank} was started with other fields than process 0: {differing[0]}")
    return folder


def _regrouped(config: TrainConfig, before: int, now: int) -> str:
    """What changes where a run goes on with another number of processes."""
    batch = config.batch_size
    return (
        f"goes on with {now} processes instead of {before}: the batches of {batch} images, their order and crops and "
        f"the schedule stay; a process sees {batch // now} images of a batch instead of {batch // before}, which batch "
        "norm's statistics and dropout depend on, and sums are rounded in another order"
    )


def batch_norm_told(network: nn.Module, config: TrainConfig, ranks: Ranks, *, on_cpu: bool) -> str | None:
    """Whose statistics batch norm takes, where there are several processes and the network has it.

    Raises:
        ValueError: `sync_batch_norm` on the CPU.
    """
    if config.sync_batch_norm and on_cpu:
        raise ValueError(
            "sync_batch_norm: torch has it on GPUs alone; without it each process takes its own statistics"
        )
    if ranks.size == 1 or not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules()):
        return None
    images = config.batch_size // ranks.size
    if config.sync_batch_norm:
        return f"batch norm: statistics of all {config.batch_size} images of a batch (sync_batch_norm)"
    return (
        f"batch norm: each of {ranks.size} processes takes the statistics of its own {images} images of a batch; "
        "sync_batch_norm takes those of all"
    )
