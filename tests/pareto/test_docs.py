from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path


def test_the_first_example_prints_what_the_page_shows():
    page = (Path(__file__).resolve().parents[2] / "docs" / "pareto.md").read_text(encoding="utf-8")
    code, shown = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.S).groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/pareto.md", "exec"), {})
    assert printed.getvalue() == shown
