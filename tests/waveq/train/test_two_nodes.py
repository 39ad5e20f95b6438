"""Two agents with two processes each, in two network namespaces where the system permits: one policy, equal ranks."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from tests.waveq.train.test_processes import config
from waveq.train.run import train
from waveq.train.run_folder import load_weights

_ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Node:
    """Where an agent runs."""

    address: str
    within: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


@contextmanager
def two_nodes() -> Iterator[list[Node]]:
    """Two namespaces that a pair of virtual interfaces joins; twice this machine where that is not permitted."""
    names = [f"waveq{os.getpid()}{letter}" for letter in "ab"]
    words = [["netns", "add", name] for name in names]
    words.append(["link", "add", "wqa", "netns", names[0], "type", "veth", "peer", "name", "wqb", "netns", names[1]])
    nodes = []
    for number, name in enumerate(names):
        address, interface = f"10.77.0.{number + 1}", f"wq{name[-1]}"
        words.append(["-n", name, "addr", "add", f"{address}/24", "dev", interface])
        words += [["-n", name, "link", "set", device, "up"] for device in (interface, "lo")]
        nodes.append(Node(address, ["ip", "netns", "exec", name], {"GLOO_SOCKET_IFNAME": interface}))
    with ExitStack() as undone:
        for name in names:
            undone.callback(_ip, ["netns", "del", name])
        yield nodes if all(_ip(each) for each in words) else [Node("127.0.0.1")] * 2


def _ip(words: list[str]) -> bool:
    """Whether it was permitted."""
    if shutil.which("ip") is None:
        return False
    return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces")
def test_two_nodes_of_two_processes_learn_the_policy_of_one_process(tmp_path: Path) -> None:
    fields = {"epochs": 3, "pretrain_epochs": 1, "activation_bits": "learn", "activation_signed": False}
    one = train(config(tmp_path / "one", 1, **fields), say=lambda _line: None)
    recipe = tmp_path / "recipe.json"
    recipe.write_text(config(tmp_path / "four", 1, **fields).to_json())
    agent = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    verb = ["-m", "waveq", "train", "--recipe", str(recipe), "--import", "tests.waveq.train.states_of_ranks", "--json"]
    port = free_port()
    with two_nodes() as nodes:
        started = []
        for number, node in enumerate(nodes):
            meeting = ["--rdzv-endpoint", f"{nodes[0].address}:{port}", "--rdzv-id", "two-nodes"]
            host = ["--rdzv-conf", f"is_host={int(number == 0)}", "--local-addr", node.address]
            environment = {"PYTHONPATH": str(_ROOT), "STATES": str(tmp_path), **node.environment}
            words = [*node.within, sys.executable, *agent, *meeting, *host, *verb]
            started.append(
                subprocess.Popen(words, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, cwd=_ROOT)
            )
        outputs = [each.communicate(timeout=300)[0] for each in started]
    assert [each.returncode for each in started] == [0, 0]
    said = [output for output in outputs if output]
    assert len(said) == 1  # one process of four speaks
    assert json.loads(said[0])["bits"] == one.bits
    assert json.loads(said[0])["input_bits"] == one.input_bits
    for stage in ("float", "search", "wave"):
        states = [load_weights(tmp_path / f"{stage}-{rank}.pt") for rank in range(4)]
        for state in states[1:]:  # weights, betas, scales, signs, ranges
            torch.testing.assert_close(state, states[0], rtol=0, atol=0)
    # sums are rounded in another order, nothing else differs; until a value between two levels falls otherwise
    for stage, file, off in (("float", "weights.pt", 1e-12), ("search", "state.pt", 1e-2)):
        alone = load_weights(tmp_path / "one" / stage / file)
        torch.testing.assert_close(load_weights(tmp_path / f"{stage}-0.pt"), alone, rtol=off, atol=off / 10)
