"""Where the processes of one run meet: inside this machine, out of reach of any network.

Left to themselves, rank 0 would listen on all interfaces, and gloo on the one that the host's name stands for; who
reaches such a port can write into the training. The launcher listens instead, on 127.0.0.1.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["local_meeting"]

_ADDRESS = "127.0.0.1"
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


@contextmanager
def local_meeting() -> Iterator[dict[str, str]]:
    """Within, processes with the environment variables that it yields find each other.

    An interface that the user has chosen for gloo or NCCL stays.

    Raises:
        OSError: no free port.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    with socket.socket() as door:
        door.bind((_ADDRESS, 0))
        door.listen()
        port = door.getsockname()[1]
        store = TCPStore(_ADDRESS, port, is_master=True, wait_for_workers=False, master_listen_fd=door.detach())
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), None)
    chosen = {name: os.environ.get(name, loopback) for name in _INTERFACES}
    yield {
        "MASTER_ADDR": _ADDRESS,
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # torch's word for a launcher that has the store
        **{name: interface for name, interface in chosen.items() if interface is not None},
    }
    del store
