"""Table 2's SimpleNet-5 column on CIFAR10, from the authors' float network, each base with the wave and without.

``--init`` is a float SimpleNet-5 for CIFAR10; the paper's authors released one (he-actlab/releq, Apache-2.0), which is
meant here. All five layers are quantised, inputs are not. DoReFa is as released (levels in [-1, 1], nothing scales them
back) and is shown by the epochs and the rates that it is given: its row in the paper is one point of that plane. All
others have ``--epochs-others``, DoReFa's wave as well. "rounded once" and "freezing" are the float road: no quantiser
in training, which ends by rounding, or with all weights on their levels.

Every seed starts from the same weights; seeds differ by the order of the images. The test part is read once a
training, after it. Training images may have been the authors' own: held-out ones are not, for them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.lab.job import Job
from benchmarks.lab.options import number
from benchmarks.lab.pool import add_options, run_within, where_of
from benchmarks.lab.settings import Setting
from benchmarks.lab.tables import save_table, with_error

__all__ = ["BASES", "jobs_of", "main", "summary"]

_RISING: dict[str, Any] = {"wave": {"rise": 0.0, "strength": 0.3}}
_LATE: dict[str, Any] = {"wave": {"rise": 0.6, "strength": 0.3}}
# arguments for attach, with the rates, and what switches the wave on; strengths as in table2
BASES: dict[str, tuple[dict[str, Any], tuple[float, ...], dict[str, Any]]] = {
    "DoReFa": ({"quantizer": "dorefa", "scale": "none"}, (1e-3, 1e-2), _RISING),
    "LSQ": ({"quantizer": "lsq"}, (1e-2,), _LATE),
    "WRPN": ({"quantizer": "wrpn", "scale": "none"}, (1e-3,), _RISING),
    "WRPN, scaled": ({"quantizer": "wrpn", "scale": "max"}, (1e-2,), _LATE),
    "rounded once": ({"forward": "float", "scale": "max", "freezing": "off"}, (1e-2,), {}),
    "freezing": ({"forward": "float", "scale": "max"}, (1e-2,), {"lambda_w": 0.1}),
}
FLOAT = "float"


def jobs_of(row: Setting, args: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Job]]:
    """Every training with what names it, the shortest of each base first."""
    others = [args.epochs_others]
    for seed in args.seeds:
        yield (
            {"base": FLOAT, "bits": 32, "epochs": others[0], "rate": 1e-2, "seed": seed},
            Job(setting=row, seed=seed, epochs=others[0], lr=1e-2),
        )
    for base in args.bases:
        arguments, rates, wave = BASES[base]
        for epochs in args.epochs if base == "DoReFa" else others:
            for rate in rates:
                for bits in args.bits:
                    ways = [(False, {"lambda_w": 0.0}), (True, wave)]
                    for waved, more in ways if epochs in others else ways[:1]:
                        for seed in args.seeds:
                            label = {"base": base, "bits": bits, "epochs": epochs, "rate": rate}
                            attach = {**arguments, "bits": bits, **more}
                            job = Job(setting=row, seed=seed, attach=attach, epochs=epochs, lr=rate)
                            yield {**label, "wave": waved, "seed": seed}, job


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each base, rate and length; for each number of bits alone, and with the wave and its difference."""
    lines: list[dict[str, Any]] = []
    for (base, epochs, rate), group in rows.groupby(["base", "epochs", "rate"], sort=False):
        line: dict[str, Any] = {"base": base, "epochs": epochs, "rate": f"{rate:g}"}
        for bits, each in group.groupby("bits"):
            if bits == 32:
                line["32 bits"] = with_error(each.test)
                continue
            sides = {waved: runs.set_index("seed").test for waved, runs in each.groupby("wave")}
            alone, waved = sides.get(False), sides.get(True)
            line[f"{bits} bits"] = "-" if alone is None else with_error(alone)
            if alone is not None and waved is not None:
                line[f"{bits} bits, wave"] = f"{with_error(waved)}, {with_error((waved - alone).dropna())}"
        lines.append(line)
    return pd.DataFrame(lines).fillna("-")


def main(argv: list[str]) -> int:
    """Train, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks table2_simplenet5", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--init", type=Path, required=True, help="float weights of SimpleNet-5 for CIFAR10")
    parser.add_argument("--bits", type=int, nargs="+", default=[2, 3, 4, 5])
    parser.add_argument("--bases", nargs="+", choices=list(BASES), default=list(BASES), metavar="BASE")
    parser.add_argument("--epochs", type=int, nargs="+", default=None, help="of DoReFa; default 1 2 (quick), 1 3 8 20")
    parser.add_argument("--epochs-others", type=int, default=None, help="of the other bases; default 2 (quick), 8")
    parser.add_argument("--minutes", type=number(), default=None, help="begin no further training after so many")
    add_options(parser)
    parser.set_defaults(dataset="cifar10")
    args = parser.parse_args(argv)
    quick = args.budget != "full"
    args.epochs = args.epochs or ([1, 2] if quick else [1, 3, 8, 20])
    args.epochs_others = args.epochs_others or (2 if quick else 8)
    if not args.init.is_file():
        raise ValueError(f"--init {args.init}: there is no such file of weights")
    row = Setting(
        network="simplenet5",
        dataset=args.dataset,
        channels=3,
        size=32,
        width=1.0,
        images=0,
        test_images=0,
        pretrain_epochs=0,
        epochs=args.epochs_others,
        init=str(args.init),
    )
    listed = list(jobs_of(row, args))
    found = run_within([job for _, job in listed], where_of(args), processes=args.processes, minutes=args.minutes)
    rows = pd.DataFrame(
        [{**label, **_kept(found[job.key()])} for label, job in listed if job.key() in found],
    )
    if rows.empty:
        raise ValueError("--minutes: no training was finished in time")
    args.init = args.init.name
    save_table(
        "table2_simplenet5", summary(rows).set_index(["base", "epochs", "rate"]), rows, args, planned=len(listed)
    )
    return 0


def _kept(result: dict[str, Any]) -> dict[str, Any]:
    return {key: result[key] for key in ("test", "validation", "diverged", "seconds")}
