"""What the figures share: options, colours that print and that colour-blind readers tell apart, files."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from benchmarks._report import write_json

# Okabe and Ito's palette
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")


def options(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The parser that every figure starts from."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=doc)
    parser.add_argument("--out", type=Path, default=Path("runs/figures"), help="folder for the picture and its data")
    return parser


def save(name: str, figure: Figure, data: pd.DataFrame, out: Path, **facts: object) -> None:
    """Write NAME.png, the numbers behind it as NAME.csv, and NAME.json with versions and facts."""
    save_picture(name, figure, out)
    data.to_csv(out / f"{name}.csv", index=False)
    print(f"written: {out / name}.csv")
    write_json(out / f"{name}.json", {"facts": facts})


def save_picture(name: str, figure: Figure, out: Path) -> None:
    """Write NAME.png, creating the folder."""
    out.mkdir(parents=True, exist_ok=True)
    figure.savefig(out / f"{name}.png", dpi=150)
    print(f"written: {out / name}.png")
