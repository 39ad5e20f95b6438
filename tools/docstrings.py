"""What mkdocstrings reads differently than help() shows it: this package's docstrings, for the pages of docs/api.

A griffe extension, which mkdocs.yml names. Nothing of the packages is imported but the texts of attach's options.
"""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

from waveq.method.options import written_options

__all__ = ["Docstrings"]


class Docstrings(Extension):
    """Examples under the heading that griffe knows or in a fence, and options written out."""

    def on_object(self, *, obj: Object, **_more: Any) -> None:
        """Rewrite one docstring before it is parsed."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            text = re.sub(r"^(>>> (?:.+\n?)+)", r"```pycon\n\1\n```\n", text, flags=re.MULTILINE)
            obj.docstring.value = written_options(text, indent=4)
