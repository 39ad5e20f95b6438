"""Metrics as CSV that a resumed run continues, and Lightning's chatter kept to what matters."""

from __future__ import annotations

import csv
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch.loggers.logger import Logger

from waveq._files import whole
from waveq._reading import read_text
from waveq.train.classifier import Classifier as _Classifier  # torchvision before lightning, see there

__all__ = ["MetricsCsv", "quiet_lightning", "read_rows"]

assert _Classifier is not None

_CHATTY = ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric")

_STEP = re.compile(r"[0-9]{1,15}")

# What Lightning warns of although it is meant, or has been taken care of; anything else is shown.
_MEANT = (
    r".*is smaller than the logging interval",  # rows are written by Recorder, not by self.log
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated",  # inside torch and lightning
)


class MetricsCsv(Logger):
    """One row per call, appended to a file; what has no column is left out.

    Lightning's CSVLogger begins anew when a run is resumed; this one drops the rows that lie behind the checkpoint
    and goes on.

    Args:
        path: the file.
        columns: names of all columns but "step".
        from_step: keep the rows up to this step of a file that exists; 0 begins anew.
    """

    def __init__(self, path: Path, columns: tuple[str, ...], *, from_step: int) -> None:
        super().__init__()
        self._path = path
        self._columns = ("step", *columns)
        kept = [row for row in read_rows(path) if int(row["step"]) <= from_step] if from_step and path.exists() else []
        with whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(kept)

    def _writer(self, file: TextIO) -> csv.DictWriter[str]:
        return csv.DictWriter(file, self._columns, restval="", extrasaction="ignore")

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append a row; whole numbers are written as such."""
        row: dict[str, Any] = {"step": step}
        for name, value in metrics.items():
            whole = math.isfinite(value) and value == int(value)
            row[name] = int(value) if whole else f"{value:.6g}"
        with self._path.open("a", newline="", encoding="utf-8") as file:  # not held open: a crash loses nothing
            self._writer(file).writerow(row)

    def log_hyperparams(self, *_args: Any, **_kwargs: Any) -> None:
        """The run folder holds the config already."""

    @property
    def name(self) -> str:
        """Lightning asks for it; the folder says it."""
        return ""

    @property
    def version(self) -> str:
        """Lightning asks for it; the folder says it."""
        return ""


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a file of metrics; one that a crash cut before its step is left out.

    Raises:
        ValueError: damaged; the message names the file.
    """
    text = read_text(path)
    try:
        header = next(csv.reader(io.StringIO(text, newline="")), [])
        if len(set(header)) < len(header):
            raise ValueError(f"{path}: damaged: a column is given twice")
        return [row for row in csv.DictReader(io.StringIO(text, newline="")) if _STEP.fullmatch(row.get("step") or "")]
    except csv.Error as error:
        raise ValueError(f"{path}: damaged ({error})") from None


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Within, Lightning's greetings and the warnings listed above are not shown."""
    loggers = [logging.getLogger(name) for name in _CHATTY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _MEANT:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
