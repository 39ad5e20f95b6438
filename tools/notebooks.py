"""Run the scripts of notebooks/ as notebooks and write each as a page with what it showed.

    python -m tools.notebooks        notebooks/NAME.py  ->  docs/notebooks/NAME.md, NAME.ipynb, NAME-1.png, ...

A cell that fails ends it with an error, and no page is written for that notebook. Each notebook has a kernel of its own
and an empty folder to work in; all run side by side.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient

__all__ = ["execute", "page"]

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS, PAGES = ROOT / "notebooks", ROOT / "docs" / "notebooks"
SECONDS_A_CELL = 300  # a machine with other work must not fail; usual are 10 for a whole notebook


async def execute(script: Path) -> Any:
    """The notebook of a script in jupytext's percent format, with its outputs."""
    notebook = jupytext.read(script)
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        quiet = ["--IPKernelApp.log_level=ERROR"]  # it warns of its own ports, which only this machine sees
        client = NotebookClient(notebook, timeout=SECONDS_A_CELL, resources=where, extra_arguments=quiet)
        await client.async_execute()
    return notebook


def page(notebook: Any, name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                file = f"{name}-{len(pictures) + 1}.png"
                pictures[file] = base64.b64decode(data["image/png"])
                parts.append(f"![What the cell above drew]({file})")
            else:
                text = output.get("text") or data["text/plain"]
                parts.append(f"```text\n{text.rstrip()}\n```")
    parts.append(f"*This page is `notebooks/{name}.py`, executed; it is also [a notebook]({name}.ipynb).*")
    return "\n\n".join(parts) + "\n", pictures


async def _write(script: Path) -> None:
    notebook = await execute(script)
    text, pictures = page(notebook, script.stem)
    for old in PAGES.glob(f"{script.stem}-*.png"):
        old.unlink()
    for file, content in pictures.items():
        (PAGES / file).write_bytes(content)
    nbformat.write(notebook, PAGES / f"{script.stem}.ipynb")
    (PAGES / f"{script.stem}.md").write_text(text, encoding="utf-8")


async def _write_all() -> None:
    await asyncio.gather(*(_write(script) for script in sorted(SCRIPTS.glob("*.py"))))


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(f"{__doc__}\nno arguments are taken, got {sys.argv[1:]}")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the notebooks share the cores
    PAGES.mkdir(parents=True, exist_ok=True)
    asyncio.run(_write_all())
