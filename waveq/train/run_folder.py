"""The run folder: config, one folder for every stage, policy, final weights, result.

    RUN/config.json        every field of the run; `load_recipe` reads it back
    RUN/float/             float training:   last.ckpt, previous.ckpt, metrics.csv, TensorBoard events, weights.pt,
                           result.json
    RUN/search/            learned bits, where they are searched for: the same
    RUN/wave/              WaveQ: the same;  weights.pt are the float weights under the quantizer
    RUN/finetune/          fine-tuning with fixed bits: the same
    RUN/policy.json        the bits
    RUN/weights.pt         state_dict of the final network, its weights on the grid
    RUN/result.json        accuracies, mean bits, warnings

A stage is finished when its result.json exists; every file appears at once, never half written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waveq._files import write_json, write_text
from waveq._names import closest
from waveq._reading import read_object
from waveq.train.config import PROCESS_FIELDS, RUNTIME_FIELDS, TrainConfig, load_recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

_LONGEST = 80  # of a value in a message: costs by layer and bits are many
STAGES = ("float", "search", "wave", "finetune")
"""The stages' folders, in order; a run has some of them."""

__all__ = ["STAGES", "RunFolder", "StageFolder", "load_weights", "nearest_run", "plain_weights", "save_weights"]


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write a state_dict of plain tensors, all at once, with a digest of the file."""
    from waveq._archive import save_archive

    save_archive(path, dict(weights))


def load_weights(path: Path | str) -> dict[str, Tensor]:
    """Read a state_dict; nothing in the file is executed.

    A training checkpoint that keeps it under "state_dict" will do, and so do keys that all begin with "module.", as
    DataParallel writes them: published weights mostly come so.

    Raises:
        ValueError: not there, damaged, or holding something else than tensors; the message names the file.
    """
    import torch

    from waveq._archive import load_archive

    content = load_archive(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise ValueError(f"{path}: holds no state_dict of tensors")
    wrapped = bool(content) and all(key.startswith("module.") for key in content)
    return {key.removeprefix("module.") if wrapped else key: value for key, value in content.items()}


def plain_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float weights of an attached network under their plain keys; those of any other network as they are.

    Example:
        >>> state = {"fc.parametrizations.weight.original": 1, "fc.parametrizations.weight.0.beta": 2, "waveq_step": 3}
        >>> plain_weights(state | {"fc.bias": 4})
        {'fc.weight': 1, 'fc.bias': 4}
    """
    plain = {}
    for key, value in state.items():
        module, parametrized, rest = key.rpartition("parametrizations.")
        tensor, _, inner = rest.partition(".")
        if parametrized and inner == "original":
            plain[module + tensor] = value
        elif not parametrized and not key.startswith("waveq_"):
            plain[key] = value
    return plain


@dataclass(frozen=True)
class StageFolder:
    """One stage of a run."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The newest checkpoint, which an interrupted stage goes on from."""
        return self.path / "last.ckpt"

    @property
    def previous_checkpoint(self) -> Path:
        """The one before it."""
        return self.path / "previous.ckpt"

    def checkpoints(self) -> list[Path]:
        """Those that are there, the newest first."""
        return [path for path in (self.checkpoint, self.previous_checkpoint) if path.exists()]

    @property
    def metrics(self) -> Path:
        """One row every few steps and one at the end of every epoch."""
        return self.path / "metrics.csv"

    @property
    def weights(self) -> Path:
        """Float weights at the end of the stage, plain keys."""
        return self.path / "weights.pt"

    def result(self) -> dict[str, Any] | None:
        """What came out, or None while the stage is unfinished."""
        return _read_json(self.path / "result.json")

    @property
    def state(self) -> Path:
        """The same with all of WaveQ's state, as the attached network has it; stages with WaveQ only."""
        return self.path / "state.pt"

    def finish(self, result: Mapping[str, Any], network: nn.Module) -> None:
        """Write the weights, then the result, which marks the stage as finished; then the checkpoints can go."""
        state = network.state_dict()
        plain = plain_weights(state)
        save_weights(self.weights, plain)
        if plain.keys() != state.keys():
            save_weights(self.state, state)
        write_json(self.path / "result.json", result)
        for path in self.path.glob("*.ckpt"):  # drafts of a process that was killed too
            path.unlink()


@dataclass(frozen=True)
class RunFolder:
    """A folder that holds everything about one run."""

    path: Path

    @classmethod
    def open(cls, config: TrainConfig) -> RunFolder:
        """Make the folder, or take the one that this config left behind.

        Raises:
            ValueError: the folder holds a run of another config (the differing fields are named), or holds a run and
                `resume` is off.
        """
        folder = cls(config.folder)
        if folder.begun:
            if not config.resume:
                raise ValueError(f"run_dir: {folder.path} already holds a run; resume it, or choose another folder")
            differing = folder.differences(config)
            if differing:
                raise ValueError(
                    f"run_dir: {folder.path} holds a run with {', '.join(differing)}; choose another folder"
                )
        folder.path.mkdir(parents=True, exist_ok=True)
        write_text(folder.config_file, config.to_json())
        if differing := folder.differences(config):  # what cannot be read back could never be gone on with
            raise ValueError(f"{folder.config_file}: reads back with {', '.join(differing)}")
        return folder

    @property
    def begun(self) -> bool:
        """Whether anything was trained; a config alone, left by a start that failed, binds nobody."""
        return self.config_file.exists() and any((self.path / name).exists() for name in (*STAGES, "result.json"))

    @property
    def config_file(self) -> Path:
        """Every field that was set."""
        return self.path / "config.json"

    @property
    def policy(self) -> Path:
        """The learned or preset bits."""
        return self.path / "policy.json"

    @property
    def weights(self) -> Path:
        """The final network, weights on their grids."""
        return self.path / "weights.pt"

    def processes(self) -> int | None:
        """In how many the run was trained last; None without a run."""
        if not self.config_file.exists():
            return None
        config = load_recipe(self.config_file)
        return config.devices * config.num_nodes

    def stage(self, name: str) -> StageFolder:
        """Folder of a stage (one of STAGES), made when missing."""
        path = self.path / name
        path.mkdir(parents=True, exist_ok=True)
        return StageFolder(path)

    def result(self) -> dict[str, Any] | None:
        """The final numbers, or None while the run is unfinished."""
        return _read_json(self.path / "result.json")

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the final numbers, which marks the run as finished."""
        write_json(self.path / "result.json", result)

    def differences(self, config: TrainConfig) -> list[str]:
        """Fields in which the folder's run differs, RUNTIME_FIELDS and PROCESS_FIELDS left out: "lr 0.1 (now 0.2)"."""
        old, new = load_recipe(self.config_file).model_dump(), config.model_dump()
        return [
            f"{name} {_short(old[name])} (now {_short(value)})"
            for name, value in new.items()
            if name not in RUNTIME_FIELDS | PROCESS_FIELDS and old[name] != value
        ]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    return read_object(path)


def nearest_run(path: Path) -> str:
    """ "; did you mean runs/demo?" where a run folder of nearly that name lies beside ``path``, else nothing.

    Example:
        >>> nearest_run(Path("/nowhere/runs/dem0"))
        ''
    """
    runs = [found.parent.name for found in path.parent.glob("*/config.json")]
    near = closest(path.name, runs)
    return "" if near is None else f"; did you mean {path.parent / near}?"
