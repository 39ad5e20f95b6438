"""A stage's checkpoints as files: the last two, each whole and with a digest, and which one to go on from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from waveq._archive import load_archive, save_archive
from waveq.train.run_folder import StageFolder

__all__ = ["LOADER_STATE", "CheckpointFiles", "read_newest"]

LOADER_STATE = "waveq_loader"
"""Where a checkpoint keeps the place in the data."""


class CheckpointFiles(TorchCheckpointIO):
    """Lightning's checkpoints through the project's own writer and reader.

    Lightning's would stage them in the folder for temporary files, which may be small, and read them unchecked.
    """

    def __init__(self, folder: StageFolder) -> None:
        self._folder = folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write one; what was the newest becomes the one before it, in the same moment or just before."""
        previous = self._folder.previous_checkpoint
        draft = previous.with_suffix(".draft.ckpt")
        save_archive(draft, checkpoint)
        if self._folder.checkpoint.exists():
            os.replace(self._folder.checkpoint, previous)
        os.replace(draft, path)

    def load_checkpoint(
        self, path: str | Path, map_location: Callable[..., Any] | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read one, whose bytes must be right."""
        content: dict[str, Any] = load_archive(path)
        return content


def read_newest(folder: StageFolder) -> tuple[Path, dict[str, Any]] | None:
    """The newest checkpoint and what it holds, None where there is none.

    Raises:
        ValueError: it is damaged; the message names it, and the good one before it where there is one.
    """
    for path in folder.checkpoints():
        try:
            return path, _read(path)
        except ValueError as error:
            raise ValueError(f"{error}; {_instead(folder, path)}") from None
    return None


def _read(path: Path) -> dict[str, Any]:
    content = load_archive(path)
    try:
        int(content["global_step"])
        place = content[LOADER_STATE]
        int(place["epoch"]), int(place["batch"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: not a checkpoint ({type(error).__name__})") from None
    found: dict[str, Any] = content
    return found


def _instead(folder: StageFolder, damaged: Path) -> str:
    for path in folder.checkpoints():
        if path == damaged:
            continue
        try:
            step = _read(path)["global_step"]
        except ValueError:
            continue
        return f"remove it, and the same command goes on from {path.name}, of step {step}, which is good"
    return "no other checkpoint of this stage is good: remove it to start the stage again"
