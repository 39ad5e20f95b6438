"""Tables of a report stay tables whatever the layers are called."""

from __future__ import annotations

from waveq.codesign.report import markdown_table


def test_names_are_neither_columns_nor_rows_nor_html() -> None:
    table = markdown_table(("layer", "bits"), [("a|b\n<img src=x>`", 3)])
    assert table.splitlines()[2:] == ["| a\\|b &lt;img src=x&gt;\\` | 3 |"]
