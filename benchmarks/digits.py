"""The digits that the package ships, made from scikit-learn's copy of them.

    python -m benchmarks digits [--out waveq/zoo/datasets/digits.npz]

Needs scikit-learn, which nothing else here needs. The same versions of NumPy and zlib write the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from waveq._files import whole
from waveq.zoo.datasets.sources import DIGITS


def main(argv: Sequence[str]) -> int:
    """Write the file, and print its size and digest."""
    from sklearn.datasets import load_digits

    parser = argparse.ArgumentParser(prog="python -m benchmarks digits", description=__doc__)
    parser.add_argument("--out", type=Path, default=DIGITS)
    out = parser.parse_args(argv).out
    bunch = load_digits()
    with whole(out) as draft, draft.open("wb") as file:
        np.savez_compressed(file, images=bunch.images.astype(np.uint8), labels=bunch.target.astype(np.uint8))
    content = out.read_bytes()
    print(f"{out}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")
    return 0
