"""Help whose options stand in groups, for verbs that have many."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

__all__ = ["GroupedCommand"]


class GroupedCommand(TyperCommand):
    """A verb whose plain help has a section for every `rich_help_panel` of its options, in their order.

    Typer has such groups in its coloured help only.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, group by group."""
        groups: dict[str, list[Any]] = {}
        for parameter in self.get_params(ctx):
            if (told := parameter.get_help_record(ctx)) is not None:
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                groups.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(told)
        for title, lines in groups.items():
            with formatter.section(title):
                formatter.write_dl(lines)
