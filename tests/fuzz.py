"""Damaged files of every kind against their readers, with counts: ``python -m tests.fuzz --seconds 600 --seed 0``.

Each attempt changes a good file and reads it. A reader refuses with a sentence that names the file, or gives what the
file says. Of tensors, what it gives must be what was written. Of texts, which carry no digest, what it gives may
differ, but no reading may rest on a key given twice or a number that is none.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import random
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from stripes_sim import load_machine, read_workload, write_workload
from stripes_sim.layers import LayerShape
from waveq._archive import load_archive, save_archive
from waveq.cli.frontier import efficient_of
from waveq.codesign.space import read_table
from waveq.policy import Policy
from waveq.train.checkpoint_files import LOADER_STATE, read_newest
from waveq.train.config import TrainConfig, load_recipe
from waveq.train.result import TrainResult
from waveq.train.run_folder import RunFolder, StageFolder
from waveq.zoo.datasets.conllu import MultiwordToken, Sentence, Word, parse_conllu, read_conllu, write_conllu

COLUMNS = ("attempts", "refused by name", "read as written", "read as changed", "wrong", "unnamed", "traceback", "hang")
_TOKENS = (
    b"true",
    b'"3"',
    b"NaN",
    b"-1",
    b"1e999",
    b"null",
    b"[",
    b"{",
    b"9" * 5000,
    b"\0",
    b"\xff",
    b"\n",
    b",",
    b"=",
)
_SECONDS = 10


@dataclass(frozen=True)
class Kind:
    """One kind of file: how a good one is made, and how it is read."""

    name: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    told_apart: Callable[[bytes], bool] | None
    """Of a text: whether it says two things, or no number; None of files with a digest."""


def kinds() -> list[Kind]:
    """All that are fuzzed."""
    layers = [
        LayerShape(
            name="conv1",
            kind="conv",
            in_channels=3,
            out_channels=8,
            kernel_size=(3, 3),
            input_size=(8, 8),
            padding=(1, 1),
        ),
        LayerShape(name="fc", kind="linear", in_channels=288, out_channels=10),
    ]
    weights = {"conv1.weight": torch.arange(216.0), "step": torch.tensor(7)}
    checkpoint = {"state_dict": weights, "global_step": 7, LOADER_STATE: {"epoch": 1, "batch": 2}}
    names = ("mean_bits", "float_validation_accuracy", "validation_accuracy", "float_test_accuracy", "test_accuracy")
    result = {"bits": {"fc": 3}, "forecast": "", "warnings": [], **dict.fromkeys(names, 0.5)}
    policy = Policy({"conv1": 3, "fc": 4}, betas={"conv1": 2.5}, quantizer="dorefa")
    config = TrainConfig(bits={"conv1": 4}, target=None, layer_costs={"conv1": {2: 1.0}}, skip=("fc",), threads=1)
    hardware = 'base = "loom"\nclock_hz = 980e6\ntiles = 8\nstorage = "packed"\n[sources]\ntiles = "a paper"\n'
    recipe = 'model = "digitsnet"\nepochs = 3\nlr = 0.05\nbits = "learn"\nskip = ["fc"]\n[target]\nmean_bits = 3.5\n'
    table = "conv1,fc,accuracy,energy_pj\n2,2,90.5,1e3\n4,3,92.25,2e3\n"
    words = (Word(form="de", head=3), Word(form="le", head=3), Word(form="thé", upos="NOUN", head=0, deprel="root"))
    du = MultiwordToken(first=1, last=2, form="du")
    treebank = [Sentence(words=words, multiword_tokens=(du,), comments=(" text = du thé",)), Sentence(words=words[2:])]
    return [
        Kind("policy JSON", "policy.json", policy.save, Policy.load, _json_doubtful),
        Kind("workload CSV", "net.csv", lambda p: write_workload(p, layers), read_workload, _csv_doubtful),
        Kind("workload JSON", "net.json", lambda p: write_workload(p, layers), read_workload, _json_doubtful),
        Kind("hardware TOML", "chip.toml", lambda p: p.write_text(hardware), load_machine, _toml_doubtful),
        Kind("recipe TOML", "my.toml", lambda p: p.write_text(recipe), load_recipe, _toml_doubtful),
        Kind("config JSON", "config.json", lambda p: p.write_text(config.to_json()), load_recipe, _json_doubtful),
        Kind("result JSON", "result.json", lambda p: p.write_text(json.dumps(result)), _read_result, _json_doubtful),
        Kind("table CSV", "table.csv", lambda p: p.write_text(table), _read_table, _csv_doubtful),
        Kind("treebank CoNLL-U", "fr.conllu", lambda p: write_conllu(p, treebank), read_conllu, _conllu_doubtful),
        Kind("weights", "weights.pt", lambda p: save_archive(p, weights), load_archive, None),
        Kind("checkpoint", "last.ckpt", lambda p: save_archive(p, checkpoint), _read_checkpoint, None),
    ]


def _read_result(path: Path) -> object:
    return TrainResult.of(path.parent, RunFolder(path.parent).result() or {})


def _read_table(path: Path) -> object:
    frame = read_table(path)
    return efficient_of(path, frame, {"accuracy": "max", "energy_pj": "min"}).to_csv(index=False) + frame.to_csv()


def _read_checkpoint(path: Path) -> object:
    newest = read_newest(StageFolder(path.parent))
    return None if newest is None else newest[1]


def _json_doubtful(content: bytes) -> bool:
    twice = False

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal twice
        twice = twice or len(dict(found)) < len(found)
        return dict(found)

    return _no_numbers(json.loads(content.decode("utf-8-sig"), object_pairs_hook=pairs)) or twice


def _toml_doubtful(content: bytes) -> bool:
    return _no_numbers(tomllib.loads(content.decode("utf-8-sig")))  # a key given twice it refuses by itself


def _csv_doubtful(content: bytes) -> bool:
    header = next(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    return len(set(header)) < len(header)


def _conllu_doubtful(content: bytes) -> bool:
    """Whether a line is lost or changed on the way through the reader."""
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig").read()
    kept = [line for sentence in parse_conllu(text) for line in sentence.lines()]
    return kept != [line for line in text.split("\n") if line]


def _no_numbers(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(_no_numbers(part) for part in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and not math.isfinite(value)


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content with one change: a bit, a part that is lost, doubled or overwritten, a token put in."""
    place = draw.randrange(len(content))
    length = draw.randrange(1, 40)
    before, part, after = content[:place], content[place : place + length], content[place + length :]
    what = draw.randrange(6)
    if what == 0:
        return before + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
    if what == 1:
        return before
    if what == 2:
        return before + after
    if what == 3:
        return before + part + part + after
    if what == 4:
        return before + draw.choice(_TOKENS) + after
    return before + draw.choice(_TOKENS) + part + after


class _HangError(BaseException):
    """No Exception, which a reader might catch."""


@contextmanager
def _limited() -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(kind: Kind, path: Path, content: bytes, good: object) -> str:
    """Write and read one file; the column of COLUMNS that it counts in."""
    path.write_bytes(content)
    try:
        with _limited():
            found = kind.read(path)
    except _HangError:
        return "hang"
    except (ValueError, FileNotFoundError) as error:
        return "refused by name" if str(path) in str(error) else "unnamed"
    except Exception:
        return "traceback"
    if _equal(found, good):
        return "read as written"
    return "wrong" if kind.told_apart is None or kind.told_apart(content) else "read as changed"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other)


def fuzz(*, seed: int, attempts: int | None = None, seconds: float = math.inf) -> dict[str, Counter[str]]:
    """Counts by kind, after so many attempts on each kind, or so many seconds in all."""
    draw = random.Random(seed)
    counts: dict[str, Counter[str]] = {}
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        prepared = []
        for kind in kinds():
            path = Path(folder, kind.name.replace(" ", "-"), kind.file)
            path.parent.mkdir()
            kind.make(path)
            prepared.append((kind, path, path.read_bytes(), kind.read(path)))
            counts[kind.name] = Counter()
        done = 0
        while (attempts is None or done < attempts) and time.monotonic() < end:
            for kind, path, content, good in prepared:
                changed = damaged(content, draw)
                column = attempt(kind, path, changed, good)
                counts[kind.name].update(("attempts", column))
                if column in COLUMNS[4:]:
                    kept = Path(tempfile.gettempdir(), f"waveq-fuzz-{column}-{seed}-{done}-{kind.file}")
                    kept.write_bytes(changed)
            done += 1
    return counts


def main() -> int:
    """Fuzz, print the counts, 1 where anything was wrong; what was wrong is kept in the folder for temporary files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts = fuzz(seed=options.seed, seconds=options.seconds)
    total = sum(counts.values(), Counter[str]())
    lines = ["| file | " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * len(COLUMNS) + "|"]
    for name, found in [*counts.items(), ("all", total)]:
        lines.append(f"| {name} | " + " | ".join(f"{found[column]:,}" for column in COLUMNS) + " |")
    sys.stdout.write("\n".join(lines) + "\n")
    return int(any(total[column] for column in COLUMNS[4:]))


if __name__ == "__main__":
    sys.exit(main())
