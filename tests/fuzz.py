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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from pareto import DesignSpace, Store
from stripes_sim import load_machine, read_workload, write_workload
from stripes_sim.layers import LayerShape
from waveq import attach, export
from waveq._archive import load_archive, save_archive
from waveq.cli.frontier import efficient_of
from waveq.codesign.page import page_data
from waveq.codesign.pictures import learning_data
from waveq.codesign.pipeline import codesign
from waveq.codesign.placement import TABLE
from waveq.codesign.report import report_text
from waveq.codesign.space import read_table, run_protocol
from waveq.exporting.npz import read_npz
from waveq.policy import Policy
from waveq.train.checkpoint_files import LOADER_STATE, read_newest
from waveq.train.config import TrainConfig, load_recipe
from waveq.train.logs import read_rows
from waveq.train.result import TrainResult
from waveq.train.run import train
from waveq.train.run_folder import RunFolder, StageFolder, load_weights
from waveq.train.trained_run import TrainedRun
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

    def doubtful(self, path: Path, content: bytes) -> bool:
        """Whether nothing may be read from such content but what was written, or nothing at all."""
        return self.told_apart is None or self.told_apart(content)

    def files(self, path: Path) -> list[Path]:
        """What is changed, one at a time."""
        return [path]


class RunKind(Kind):
    """A whole run folder: ``file`` is the folder."""

    def doubtful(self, path: Path, content: bytes) -> bool:
        """By the kind of the file that was changed."""
        kinds = {".json": _json_doubtful, ".csv": _csv_doubtful, ".txt": lambda _content: False}
        return path.suffix not in kinds or kinds[path.suffix](content)

    def files(self, path: Path) -> list[Path]:
        """All that later steps read."""
        return sorted(each for each in path.rglob("*") if each.suffix in (".json", ".csv", ".txt", ".pt", ".ckpt"))


def kinds() -> list[Kind]:
    """All that are fuzzed but the run folder, which takes some training."""
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
        Kind("integers", "net.npz", _make_integers, lambda p: {n: i.weight() for n, i in read_npz(p).items()}, None),
        Kind("store", "campaign.sqlite", _make_store, _read_store, None),
    ]


def run_kind() -> Kind:
    """A run that was trained, enumerated and reported on."""
    return RunKind("run folder", "run", _make_run, _read_run, None)


def _make_integers(path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3))
    wq = attach(model, bits=3, total_steps=1)
    wq.finalize()
    export(model, wq.policy(), path, to="npz")


def _open_store(path: Path) -> Store:
    return Store(path, layers=["conv", "fc"], fingerprint={"seed": 0}, metrics=["accuracy", "loss"])


def _make_store(path: Path) -> None:
    rows = DesignSpace({"conv": (2, 3, 4, 5, 8), "fc": (2, 3, 4, 5, 8)}).policies()
    with _open_store(path) as store:
        store.add(rows, rows * [1.5, 0.25])


def _read_store(path: Path) -> object:
    for left in path.parent.glob(f"{path.name}-*"):  # the log of another content
        left.unlink()
    with _open_store(path) as store:
        known = store.known(store.policies()).tolist()
        return known, len(store), store.frame().to_csv()


def _make_run(path: Path) -> None:
    config = load_recipe("digits", run_dir=path, pretrain_epochs=1, epochs=2, batch_size=256, threads=1, progress=False)
    codesign(config, choices=(2, 4))
    save_archive(path / "wave" / "last.ckpt", {"global_step": 7, LOADER_STATE: {"epoch": 1, "batch": 2}})


def _read_run(path: Path) -> object:
    """As training, the verbs after it and a resumed stage do."""
    config = path / "config.json"
    result = train(load_recipe(config, run_dir=path), say=lambda _line: None)
    run = TrainedRun(path)
    stages = [StageFolder(path / name) for name in ("float", "search", "wave")]
    tensors = [load_weights(stage.weights) for stage in stages]
    tensors += [load_weights(stage.state) for stage in stages[1:]]
    told = [stage.result() for stage in stages], read_newest(stages[2]), result.to_dict(), run.policy.to_json()
    rows = [read_rows(stage.metrics) for stage in stages]
    written = report_text(run, set()), page_data(run), read_table(path / TABLE).to_csv(), str(run_protocol(run))
    learned = learning_data(stages[1].metrics).to_csv()
    return {
        "tensors": dict(enumerate([*tensors, load_weights(path / "weights.pt")])),
        "rest": [told, rows, written, learned],
    }


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


def attempt(kind: Kind, place: Path, path: Path, content: bytes, good: object) -> str:
    """Write one file and read the kind; the column of COLUMNS that it counts in."""
    path.write_bytes(content)
    try:
        with _limited():
            found = kind.read(place)
    except _HangError:
        return "hang"
    except (ValueError, FileNotFoundError) as error:
        return "refused by name" if str(path) in str(error) else "unnamed"
    except Exception:
        return "traceback"
    if _equal(found, good):
        return "read as written"
    return "wrong" if kind.doubtful(path, content) else "read as changed"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    return bool(one == other)


def fuzz(
    chosen: Sequence[Kind], *, seed: int, attempts: int | None = None, seconds: float = math.inf
) -> dict[str, Counter[str]]:
    """Counts by kind, after so many attempts on each kind, or so many seconds in all."""
    draw = random.Random(seed)
    counts: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        prepared = []
        for kind in chosen:
            place = Path(folder, kind.name.replace(" ", "-"), kind.file)
            place.parent.mkdir()
            kind.make(place)
            good = kind.read(place)
            prepared.append((kind, place, {path: path.read_bytes() for path in kind.files(place)}, good))
            counts[kind.name] = Counter()
        done, end = 0, time.monotonic() + seconds
        while (attempts is None or done < attempts) and time.monotonic() < end:
            for kind, place, contents, good in prepared:
                path = draw.choice(list(contents))
                changed = damaged(contents[path], draw)
                column = attempt(kind, place, path, changed, good)
                counts[kind.name].update(("attempts", column))
                if column in COLUMNS[4:]:
                    kept = Path(tempfile.gettempdir(), f"waveq-fuzz-{column}-{seed}-{done}-{path.name}")
                    kept.write_bytes(changed)
                for path, content in contents.items() if len(contents) > 1 else ():
                    if path.read_bytes() != content:  # what was changed, and what a reader wrote in its turn
                        path.write_bytes(content)
            done += 1
    return counts


def main() -> int:
    """Fuzz, print the counts, 1 where anything was wrong; what was wrong is kept in the folder for temporary files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts = fuzz([*kinds(), run_kind()], seed=options.seed, seconds=options.seconds)
    total = sum(counts.values(), Counter[str]())
    lines = ["| file | " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * len(COLUMNS) + "|"]
    for name, found in [*counts.items(), ("all", total)]:
        lines.append(f"| {name} | " + " | ".join(f"{found[column]:,}" for column in COLUMNS) + " |")
    sys.stdout.write("\n".join(lines) + "\n")
    return int(any(total[column] for column in COLUMNS[4:]))


if __name__ == "__main__":
    sys.exit(main())
