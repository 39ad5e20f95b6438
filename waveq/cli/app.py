"""The ``waveq`` command: one verb per job.

Nothing heavy is imported here or at the top of the verbs' files: ``waveq --help`` must not wait for torch.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Any

import typer

from waveq._lazy import missing_sentence
from waveq._names import nearest
from waveq.cli import (
    codesign,
    data,
    demo,
    explore,
    export,
    frontier,
    hardware,
    report,
    rtl,
    score,
    search,
    sensitivity,
    sweep,
    train,
)
from waveq.cli import enumerate as enumeration
from waveq.cli.common import Interrupted, results_alone, say

__all__ = ["app", "main"]

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
_BAD_INPUT_ERRORS = (
    ValueError,
    TypeError,
    FileNotFoundError,
    FileExistsError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
)
_STOPPED = "stopped. What was there is as it was; the same command begins again, or goes on."
# typer carries its own copy of click in some versions: the classes are reached through typer's public names
_CLICK_ERROR: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

_SHAPES, _MEASURING = ("--workload", "--llm", "--input-shape"), ("train", "enumerate", "search", "sensitivity")

app = typer.Typer(
    name="waveq",
    help="Learn the bits of every layer, price them on an accelerator, place them on the Pareto frontier.",
    epilog="Start with: waveq demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is quicker, and pipes well
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        sys.stdout.write(f"waveq {version('waveq')}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Learn the bits of every layer, price them on an accelerator, place them on the Pareto frontier."""


for verb in (
    demo,
    train,
    sweep,
    score,
    hardware,
    explore,
    enumeration,
    frontier,
    search,
    codesign,
    sensitivity,
    report,
    export,
    rtl,
    data,
):
    verb.register(app)
for command in app.registered_commands:
    assert command.callback is not None
    command.callback = results_alone(command.callback)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; never a traceback unless WAVEQ_DEBUG is set.

    0: done. 2: the input is wrong, one sentence on standard error says how. 130: Ctrl-C, with what to call to go on.
    1: anything else.

    Args:
        argv: words after ``waveq``; by default those of this process.

    Example:
        >>> main(["data", "--json"])  # doctest: +ELLIPSIS
        {...}
        0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale without µ and β ends nothing
    try:
        outcome = app(args=words, standalone_mode=False, prog_name="waveq")
    except typer.Exit as end:
        return int(end.exit_code)
    except _CLICK_ERROR as error:
        return _usage_error(error, words)
    except Interrupted as stop:
        say(f"stopped. {stop}")
        return INTERRUPTED
    except (typer.Abort, KeyboardInterrupt):
        say(_STOPPED)
        return INTERRUPTED
    except Exception as error:
        return _failure(error)
    if outcome == INTERRUPTED:  # how newer typer reports a Ctrl-C
        say(_STOPPED)
    return int(outcome) if isinstance(outcome, int) else 0


def _usage_error(error: Any, words: Sequence[str]) -> int:
    message = _number_message(error, words) or error.format_message()
    if message.startswith("Usage:"):  # `waveq` alone asks for the help
        say(message)
        return BAD_INPUT
    option = getattr(error, "option_name", None)
    verb = getattr(getattr(error, "ctx", None), "info_name", None)
    if option in _SHAPES and verb in _MEASURING:
        say(
            f"waveq {verb} {option}: accuracy needs a network that computes, and data; layer shapes have neither. Name "
            "them with --model PACKAGE.MODULE:FACTORY --data PACKAGE.MODULE:LOADERS; waveq score prices shapes."
        )
        return BAD_INPUT
    if message.startswith("No such command") and "mean" not in message:
        message = f"{message.rstrip('.')}{nearest(words[0].lower(), error.cmd.commands)}"
    message = message.rstrip(".?") + ("?" if message.endswith(("?", "?.")) else ".")
    where = error.ctx.command_path if getattr(error, "ctx", None) else "waveq"
    say(f"{message} See: {where} --help")
    return BAD_INPUT


def _number_message(error: Any, words: Sequence[str]) -> str | None:
    """With the value, for a word where a number belongs; None for any other error."""
    kind = next((kind for kind in ("integer", "number", "float") if kind in getattr(error, "message", "")), None)
    names: Sequence[str] = getattr(getattr(error, "param", None), "opts", ())
    if kind is None or not any(name.startswith("--") for name in names):
        return None
    given = [word.partition("=")[2] for word in words if word.partition("=")[0] in names and "=" in word]
    given += [after for name, after in pairwise(words) if name in names]
    wrong = next((text for text in given if not _parses(text, int if kind == "integer" else float)), None)
    what = "a whole number" if kind == "integer" else "a number"
    return None if wrong is None else f"{names[0]} must be {what}, not {wrong!r}"


def _parses(text: str, kind: Callable[[str], object]) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


def _failure(error: Exception) -> int:
    if os.environ.get("WAVEQ_DEBUG"):
        raise error
    if isinstance(error, _BAD_INPUT_ERRORS):
        say(_message(error))
        return BAD_INPUT
    if sentence := missing_sentence(error):
        say(sentence)
        return FAILED
    if isinstance(error, OSError) and error.filename is not None:  # a full disk, a medium that is read-only
        say(_message(error))
        return FAILED
    say(f"{_message(error)} ({type(error).__name__}; WAVEQ_DEBUG=1 shows where)")
    return FAILED


def _message(error: Exception) -> str:
    if isinstance(error, FileExistsError) and error.filename is not None:
        return f"{error.filename}: a file, where a folder is wanted"
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, FileNotFoundError) and error.filename is None:
        return "the current folder is not there any more: change to another one"
    return str(error) or "no message"


if not sys.warnoptions:
    # Libraries below warn about themselves; what this project warns about is printed by the verbs.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
