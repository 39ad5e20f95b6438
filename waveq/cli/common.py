"""What the verbs share: options, output for people and for machines, and how an interruption says what to do next."""

from __future__ import annotations

import functools
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

__all__ = [
    "MEASURING",
    "NETWORKS",
    "RUNNING",
    "Address",
    "AsJson",
    "Bits",
    "DataDir",
    "Engine",
    "FinishedRun",
    "Hardware",
    "Imports",
    "Interrupted",
    "Part",
    "Quiet",
    "RetryFailed",
    "Run",
    "TuningEpochs",
    "TuningRate",
    "Workers",
    "aligned",
    "cell",
    "emit",
    "printable",
    "results_alone",
    "resumable",
    "say",
    "say_progress",
    "warnings_as_lines",
]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
NETWORKS = "digitsnet, lenet, simplenet5, svhn8, vgg11, vgg11-bn, resnet20, alexnet, resnet18 or mobilenet-v2"
"""Written out, so that help need not import them; a test holds them to the zoo."""
MEASURING, RUNNING = "How accuracy is measured", "How the work is done"

Address = Annotated[str | None, typer.Option(help="Of a running Ray cluster.", rich_help_panel=RUNNING)]
Bits = Annotated[str, typer.Option(help="Bits that every layer may take, as 2,3,4 or 2-8.")]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Where data sets are looked for (default: $WAVEQ_DATA, else data).")
]
Engine = Annotated[
    str, typer.Option(help="serial, processes (this machine) or ray (a cluster).", rich_help_panel=RUNNING)
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")]
FinishedRun = Annotated[Path, typer.Argument(help="Folder of a finished run (waveq train, waveq demo).")]
Hardware = Annotated[str, typer.Option(help="An accelerator by name, or a TOML file; see: waveq hardware")]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="A module of yours that registers quantizers, networks or data sets; repeatable.",
    ),
]
Part = Annotated[
    str | None,
    typer.Option(help="Images that policies are compared on: validation, test or train.", rich_help_panel=MEASURING),
]
Run = Annotated[Path | None, typer.Option("--run", help="Run folder that everything is written to.")]
RetryFailed = Annotated[
    bool,
    typer.Option(
        "--retry-failed",
        help="Try policies again that failed; else they stay out, with their reason.",
        rich_help_panel=RUNNING,
    ),
]
TuningEpochs = Annotated[
    int | None,
    typer.Option(help="Fine-tune every policy for so many epochs; 0 only rounds.", rich_help_panel=MEASURING),
]
TuningRate = Annotated[float | None, typer.Option(help="Learning rate of the fine-tuning.", rich_help_panel=MEASURING)]
Workers = Annotated[
    int | None, typer.Option(help="Processes, or Ray actors (default: one a core).", rich_help_panel=RUNNING)
]


_STEERING = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
"""Control characters but tab and newline, and those that turn the direction of writing."""


class Interrupted(Exception):  # noqa: N818  (it is none)
    """Ctrl-C in the middle of something that can be resumed; its text says how.

    No KeyboardInterrupt: that one the parser of the command line keeps for itself.
    """


@contextmanager
def resumable(hint: str) -> Iterator[None]:
    """Add to a Ctrl-C what to call to go on, unless it says so itself.

    Example:
        >>> with resumable("go on with: waveq demo"):
        ...     pass
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted(str(stop) or hint) from None


def printable(text: str) -> str:
    r"""Names from files may hold anything: what would steer a terminal is shown instead.

    Example:
        >>> printable("conv\x1b[2J1")
        'conv\\x1b[2J1'
    """
    return text.translate(_STEERING)


def say(text: str) -> None:
    """One line for people, on standard error, so that standard output stays for results."""
    print(printable(text), file=sys.stderr, flush=True)


def say_progress(text: str) -> None:
    """`say`, but for a run's warnings, which the result repeats at its end."""
    if not text.startswith("warning: "):
        say(text)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Within, a warning is one line for people, not Python's two with a place in the source.

    Example:
        >>> with warnings_as_lines():
        ...     pass
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)  # this project's own, whatever Python was told of others
        warnings.showwarning = lambda message, *_place: say(f"warning: {message}")
        yield


def emit(text: str, data: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a result: the text, or the same as one JSON object."""
    told = json.dumps(data, indent=2, default=_plain) if as_json else printable(text)
    stream = _results[-1] if _results else sys.stdout
    if stream is None:  # closed by whoever called
        return
    try:
        print(told, file=stream, flush=True)
    except BrokenPipeError:  # `waveq score ... | head` has read enough; the interpreter flushes once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


_results: list[TextIO | None] = []


def results_alone(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The verb, with standard output for what it emits alone: what a user's module or a library prints goes to standard
    error.

    Example:
        >>> def verb():
        ...     print("reading images")
        ...     emit("4 bits", {}, as_json=False)
        >>> results_alone(verb)()
        4 bits
    """

    @functools.wraps(verb)
    def alone(*args: Any, **options: Any) -> Any:
        _results.append(sys.stdout)
        try:
            with redirect_stdout(sys.stderr):
                return verb(*args, **options)
        finally:
            _results.pop()

    return alone


def _plain(value: Any) -> Any:
    """NumPy scalars and arrays, paths and mappings as JSON values."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Columns padded to their widest cell, the first ``left`` flush left.

    Example:
        >>> print(aligned(("layer", "bits"), [("conv1", "4"), ("fc", "16")]))
        layer  bits
        conv1     4
        fc       16
    """
    from stripes_sim.text import aligned as align

    return align(head, rows, left=left)


def cell(value: object, *, digits: int = 6) -> str:
    """A value of a table: so many significant digits where it is a real number.

    Example:
        >>> cell(3.14159265, digits=4), cell(7)
        ('3.142', '7')
    """
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)
