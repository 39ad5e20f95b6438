"""Which process of a run this is, of how many, on how many nodes, and how they become one group.

Whoever starts processes says so in their environment: torchrun's agent (ours is one too, see `processes`), SLURM, and
Kubeflow on Kubernetes. Lightning reads it, and so do we, by its classes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.kubeflow import KubeflowEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from waveq.train.config import TrainConfig
from waveq.train.lifeline import end_with_parent

__all__ = ["ALONE", "Ranks", "by_the_first", "find_ranks", "joined", "restarted"]

Found = TypeVar("Found")

_LOOPBACK = ("127.0.0.1", "localhost")
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
_KUBEFLOW = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranks:
    """The processes of a run, as this one sees them."""

    rank: int = 0
    size: int = 1
    nodes: int = 1
    environment: ClusterEnvironment | None = None
    """What started them; None where nobody did."""

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @property
    def devices(self) -> int:
        """Processes of one node."""
        return self.size // self.nodes


ALONE = Ranks()
"""One process that nobody started others beside."""


def find_ranks(config: TrainConfig) -> Ranks:
    """This process's place, from what the environment says; one process of one where it says nothing.

    Raises:
        ValueError: nodes with different numbers of processes, or `devices` and `num_nodes` that contradict what was
            started.
    """
    environment = _environment()
    if environment is None or environment.world_size() == 1:
        return Ranks(environment=environment)
    size, nodes = environment.world_size(), _nodes(environment)
    if size % nodes:
        raise ValueError(f"{size} processes on {nodes} nodes: each node must have the same number of them")
    asked = config.devices * config.num_nodes
    if asked not in (1, size):
        raise ValueError(
            f"devices {config.devices} x num_nodes {config.num_nodes} are not the {size} processes that were started, "
            f"{size // nodes} on each of {nodes} nodes; leave both out, or give --devices {size // nodes} "
            f"--num-nodes {nodes}"
        )
    if config.batch_size % size:
        raise ValueError(f"batch_size {config.batch_size} cannot be shared by {size} processes")
    return Ranks(environment.global_rank(), size, nodes, environment)


def _environment() -> ClusterEnvironment | None:
    if TorchElasticEnvironment.detect():  # first: torchrun is started by SLURM too
        return TorchElasticEnvironment()
    if SLURMEnvironment.detect():
        return SLURMEnvironment(auto_requeue=False)  # signals are ours; a requeued job goes on from the run folder
    return KubeflowEnvironment() if all(name in os.environ for name in _KUBEFLOW) else None


def _nodes(environment: ClusterEnvironment) -> int:
    if isinstance(environment, TorchElasticEnvironment):
        return int(os.environ["GROUP_WORLD_SIZE"])
    if isinstance(environment, SLURMEnvironment):
        return int(os.environ["SLURM_NNODES"])
    return environment.world_size()


def restarted() -> bool:
    """Whether the agent starts this process in place of one that failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


@contextmanager
def joined(ranks: Ranks, *, on_cpu: bool) -> Iterator[None]:
    """Within, the processes are one group of torch.distributed: gloo on the CPU, NCCL on GPUs.

    Where they meet on 127.0.0.1 no rank listens where a network could reach it: who reaches such a port can write
    into the training. An interface that was chosen for gloo or NCCL stays.
    """
    if isinstance(ranks.environment, TorchElasticEnvironment):
        end_with_parent()  # an agent that is killed cannot end them
    if ranks.size == 1 or dist.is_initialized():
        yield
        return
    environment = ranks.environment
    assert environment is not None
    if not on_cpu:
        torch.cuda.set_device(environment.local_rank())
    backend = "gloo" if on_cpu else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=_store(ranks, environment), rank=ranks.rank, world_size=ranks.size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def _store(ranks: Ranks, environment: ClusterEnvironment) -> Store:
    address, port = environment.main_address, environment.main_port
    local = address in _LOOPBACK
    if local:
        loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
        for name in _INTERFACES if loopback is not None else ():
            os.environ.setdefault(name, str(loopback))
    hosts = ranks.leads and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)
    if not (hosts and local):
        return TCPStore(address, port, ranks.size, is_master=hosts)
    with socket.socket() as door:  # torch's own would listen on all interfaces
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(("127.0.0.1", port))
        door.listen()
        return TCPStore("127.0.0.1", port, ranks.size, is_master=True, master_listen_fd=door.detach())


def by_the_first(ranks: Ranks, do: Callable[[], Found]) -> Found:
    """What rank 0 gets from a call that it alone makes.

    Raises:
        ValueError: on all ranks, where rank 0's call raises it; rank 0 has the call's own.
    """
    told: list[tuple[Found | None, str | None]] = [(None, None)]
    own: ValueError | None = None
    if ranks.leads:
        try:
            told = [(do(), None)]
        except ValueError as error:
            told, own = [(None, str(error))], error
    if ranks.size > 1:
        dist.broadcast_object_list(told, src=0)
    found, refused = told[0]
    if refused is not None:
        raise own or ValueError(refused)
    return found  # type: ignore[return-value]
