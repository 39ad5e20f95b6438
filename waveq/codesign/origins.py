"""What the files of a run folder were made from: RUN/origins.json has a digest of each, and of what it was made of.

A table, its description, the frontier and the report are written by different commands. Whoever reads two of them
together asks here first whether they belong together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from waveq._files import write_json
from waveq._reading import read_object, require_regular

__all__ = ["ORIGINS", "changed_since", "file_digest", "record", "recorded"]

ORIGINS = "origins.json"


def file_digest(path: Path) -> str | None:
    """16 hexadecimal digits of a file's SHA-256; None where there is no file.

    Raises:
        ValueError: it cannot be read.

    Example:
        >>> file_digest(Path("/nowhere/policies.csv")) is None
        True
    """
    try:
        require_regular(path)
    except FileNotFoundError:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def record(folder: Path, name: str, made_from: Sequence[str], **told: Any) -> None:
    """Remember that FOLDER/name, as it is now, was made from other files of the folder as they are now.

    Args:
        folder: of a run.
        name: the file.
        made_from: file names.
        told: plain values that are kept beside: how it was measured, say.

    Raises:
        ValueError: a damaged origins.json.
    """
    known = _read(folder)
    sources = {source: file_digest(folder / source) for source in made_from}
    known[name] = {"digest": file_digest(folder / name), "made_from": sources, **told}
    write_json(folder / ORIGINS, known)


def recorded(folder: Path, name: str) -> dict[str, Any]:
    """What `record` kept of a file; empty where nothing is known.

    Raises:
        ValueError: a damaged origins.json.
    """
    entry = _read(folder).get(name, {})
    if not isinstance(entry, dict):
        raise ValueError(f"{folder / ORIGINS}: damaged: {name!r} is no object; remove it, and its steps run again")
    return entry


def changed_since(folder: Path, name: str) -> str | None:
    """Which file is not any more what it was when FOLDER/name was made; None where all are.

    The file itself counts too, and is the answer where nothing was recorded of it.

    Raises:
        ValueError: a damaged origins.json.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     folder = Path(place)
        ...     for file in ("policies.csv", "frontier.csv"):
        ...         _ = folder.joinpath(file).write_text("accuracy\\n90\\n")
        ...     record(folder, "frontier.csv", ["policies.csv"])
        ...     before = changed_since(folder, "frontier.csv")
        ...     _ = folder.joinpath("policies.csv").write_text("accuracy\\n80\\n")
        ...     before, changed_since(folder, "frontier.csv")
        (None, 'policies.csv')
    """
    entry = recorded(folder, name)
    sources = entry.get("made_from", {})
    known = {name: entry.get("digest"), **(sources if isinstance(sources, dict) else {})}
    for source, digest in known.items():
        if digest is None or file_digest(folder / source) != digest:
            return str(source)
    return None


def _read(folder: Path) -> dict[str, Any]:
    try:
        return dict(read_object(folder / ORIGINS))
    except FileNotFoundError:
        return {}
