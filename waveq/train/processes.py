"""Several processes on this machine for one run: torch's elastic agent starts, watches, restarts and ends them.

The same agent as torchrun's, with a fresh interpreter for every process: parametrised modules cannot be pickled, and
a fork would inherit the parent's threads. What comes out is read from the run folder. Several machines are torchrun's
(or SLURM's, or Kubernetes') own affair: their processes find each other in `ranks`.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, launch_agent

from waveq.train.config import TrainConfig
from waveq.train.stopping import StoppedAtOnce, StopRequested

__all__ = ["INTERRUPTED", "launch"]

INTERRUPTED = 130  # the shell's code for Ctrl-C
_STOPPED = (INTERRUPTED, -signal.SIGINT, -signal.SIGTERM)  # the last two where a process was told before it listened
_PATIENCE_SECONDS = 300  # for a step and a checkpoint, once asked to stop
_ROOT = Path(__file__).resolve().parents[2]


def launch(config: TrainConfig) -> None:
    """Run `train(config)` in `config.devices` processes; whatever happens to this process, they end with it.

    Args:
        config: its run folder exists and holds it.

    Raises:
        RuntimeError: a process failed or was killed, and was so again after `config.max_restarts` restarts from the
            last checkpoint; the others were stopped. Its own message stands above.
        StopRequested: asked to stop; a checkpoint is written.
        StoppedAtOnce: asked twice.
    """
    with tempfile.TemporaryDirectory() as folder, _environment(), _signals_passed_on():
        agent = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=config.devices,
            run_id=f"waveq-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint=str(Path(folder, "meeting")),
            rdzv_configs={"store_type": "file"},  # listens nowhere
            local_addr="127.0.0.1",
            max_restarts=config.max_restarts,
            monitor_interval=0.05,
            signals_to_handle=",".join(number.name for number in _signals()),
            shutdown_timeout=_PATIENCE_SECONDS,
        )
        try:
            launch_agent(agent, sys.executable, _words(config))
        except SignalException as stop:
            if isinstance(stop.__context__, SignalException):
                raise StoppedAtOnce from None
            raise StopRequested from None
        except ChildFailedError as failed:
            if all(failure.exitcode in _STOPPED for failure in failed.failures.values()):
                raise StopRequested from None
            raise RuntimeError(_told(failed.failures, config)) from None


def _words(config: TrainConfig) -> list[str]:
    return ["-m", "waveq.train.worker", str(config.folder / "config.json"), str(os.getpid())]


def _signals() -> list[signal.Signals]:
    """Those that stop a run; nohup has SIGHUP ignored."""
    return [
        number
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    ]


@contextmanager
def _signals_passed_on() -> Iterator[None]:
    """Within, a signal reaches the agent, which passes it on; handlers that the agent leaves behind are undone."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise SignalException(f"signal {number}", signal.Signals(number))

    if threading.current_thread() is not threading.main_thread():
        yield  # whoever runs the main one takes care of signals
        return
    before = {number: signal.signal(number, stop) for number in _signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _environment() -> Iterator[None]:
    """Within, what the agent hands on: this source tree, and that the agent hosts no store of its own."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    changed = {"PYTHONPATH": os.pathsep.join(paths), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    before = {name: os.environ.get(name) for name in (*changed, "TORCHELASTIC_SIGNALS_TO_HANDLE")}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _told(failures: Mapping[int, ProcessFailure], config: TrainConfig) -> str:
    """The failure that the others follow from: a killed one's neighbours lose their connection in the same moment."""

    def order(rank: int) -> tuple[bool, int]:
        code = failures[rank].exitcode
        return code in _STOPPED or code >= 0, failures[rank].timestamp

    first = min(failures, key=order)
    again = f", after {config.max_restarts} restarts" if config.max_restarts else ""
    how = _how_it_ended(failures[first].exitcode)
    return f"process {first} of {config.devices} {how}{again}; the others were stopped"


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    reason = " (the system does so where memory runs out)" if code == -signal.SIGKILL else ""
    return f"was killed by {signal.Signals(-code).name}{reason}"
