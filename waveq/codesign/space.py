"""Accuracy and cost of every policy of a run's design space, and of those one layer away from its own.

One protocol for all policies (see `protocol`): the learned policy gets no other treatment than any other.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from waveq._files import write_json
from waveq.codesign.campaign import fingerprint, versions
from waveq.codesign.certainty import store_named
from waveq.codesign.frames import read_frame, write_frame
from waveq.codesign.origins import record
from waveq.codesign.placement import DESCRIBED, STORE, TABLE, own_bits
from waveq.codesign.protocol import Protocol, evaluation, require_choices
from waveq.codesign.score import OBJECTIVES, layer_energies, price_policies
from waveq.codesign.tables import check_table, read_any
from waveq.policy import Policy
from waveq.train.run_folder import nearest_run
from waveq.train.trained_run import TrainedRun

if TYPE_CHECKING:
    from pareto import DesignSpace
    from stripes_sim import Accelerator

__all__ = [
    "CHOICES",
    "INPUTS_STORE",
    "SENSITIVITY",
    "enumerate_run",
    "read_table",
    "run_protocol",
    "run_sensitivity",
]

Policies = npt.NDArray[np.uint8]
CHOICES = (2, 3, 4, 5, 8)
SENSITIVITY, INPUTS_STORE = "sensitivity.csv", "enumeration-inputs.sqlite"
UNIT_ROWS = 256  # policies between two commits: what a kill can lose, and what a walk over prefixes can share
TUNED_ROWS = 16  # the same where each of them is trained
_LARGEST_SPACE = 1_000_000


def enumerate_run(
    run: TrainedRun,
    hardware: Accelerator,
    *,
    choices: Sequence[int] = CHOICES,
    input_choices: Sequence[int] | None = None,
    protocol: Protocol | None = None,
    sample: int | None = None,
    seed: int = 0,
    store: Path | None = None,
    replace: bool = False,
    retry_failed: bool = False,
    engine: str = "serial",
    progress: bool = True,
    **engine_options: Any,
) -> pd.DataFrame:
    """Evaluate and price every policy of the space, and the run's own; calling it again resumes.

    Args:
        run: a finished run.
        hardware: the machine that prices them.
        choices: bits that every quantised layer may take.
        input_choices: bits that the inputs which the run quantises may take; None leaves them at the run's.
        protocol: how an accuracy is measured; by default as the run's last enumeration did; where there is none,
            by rounding without training, on the validation images.
        sample: evaluate so many policies, drawn at random, instead of all.
        seed: of the sample.
        store: where accuracies are kept; by default RUN/enumeration.sqlite, or RUN/enumeration-inputs.sqlite with
            ``input_choices``.
        replace: whether RUN/policies.csv may lose policies that it has.
        retry_failed: evaluate policies that could not be evaluated once more; else they stay out of the table.
        engine, engine_options: see `pareto.run_campaign`.
        progress: whether a bar is drawn on standard error.

    Returns:
        One row per policy: bits by layer, accuracy (percent), cycles, energy_pj, weight_bytes. Also written to
        RUN/policies.csv, and how they were measured to RUN/enumeration.json.

    Raises:
        ValueError: a space too large to enumerate; a store that belongs to another network, data or protocol; a table
            that would lose policies.
    """
    from pareto import DesignSpace, Store, run_campaign

    require_choices(run.config, choices)
    chosen = protocol or run_protocol(run)
    evaluate = evaluation(run, chosen, inputs=input_choices is not None)
    names = evaluate.names
    own = own_bits(run.policy, names)
    space = {name: tuple(choices if name in run.policy else input_choices or ()) for name in names}
    wanted = np.vstack([_rows(DesignSpace(space), sample, seed), np.array([list(own.values())], dtype=np.uint8)])
    if not replace:
        _keep_larger(run.path / TABLE, wanted, names)
    identity = fingerprint(run, evaluate, chosen)
    unit_rows = TUNED_ROWS if chosen.finetune_epochs else UNIT_ROWS
    path = store or run.path / (STORE if input_choices is None else INPUTS_STORE)
    with Store(path, layers=names, fingerprint=identity, versions=versions()) as results:
        frame = run_campaign(
            wanted,
            evaluate.correct,
            results,
            engine=engine,
            progress=progress,
            unit_rows=unit_rows,
            retry_failed=retry_failed,
            **engine_options,
        )
        failed = int(results.failed(wanted).sum())
    frame = _only(frame, wanted, names)
    if frame.empty:
        raise ValueError(f"{path}: all {failed} policies failed; no table is written")
    policies = frame[list(names)].to_numpy(dtype=np.uint8)
    costs = price_policies(run, hardware, names, policies)
    frame = pd.concat([frame, costs], axis=1)
    write_frame(run.path / TABLE, frame)
    described = {"how": str(chosen), "hardware": hardware.name, "choices": list(choices), "sample": sample, **identity}
    described |= {"layer_energies": layer_energies(run, hardware, names, policies)}
    described |= {"failed": failed, **store_named(path, run.path)}
    described |= {} if input_choices is None else {"input_choices": list(input_choices)}
    write_json(run.path / DESCRIBED, {**described, "versions": versions()})
    record(run.path, TABLE, [DESCRIBED, "policy.json"])
    return frame


def _keep_larger(path: Path, wanted: Policies, names: Sequence[str]) -> None:
    """Refuse to replace a table by one without policies that it has; one that cannot be read has none."""
    try:
        table = read_frame(path, wholes=("cycles",))
    except (FileNotFoundError, ValueError):
        return
    keys = {tuple(row) for row in wanted.tolist()}
    same_columns = set(names) == set(table.columns) - {"accuracy", *OBJECTIVES}
    kept = sum(row in keys for row in table[list(names)].itertuples(index=False, name=None)) if same_columns else 0
    lost = len(table) - kept
    if lost:
        raise ValueError(
            f"{path} has {len(table):,} policies, and {lost:,} of them are not asked for now; ask for them too, or "
            "give --replace and they leave the table (their accuracies stay in the store)"
        )


def run_protocol(run: TrainedRun) -> Protocol:
    """The protocol of the run's enumeration, or the default one before there is any."""
    described = run.read_json(DESCRIBED, {"protocol": {"part": str, "finetune_epochs": int}})
    if described is None:
        return Protocol()
    try:
        return Protocol.from_dict(described["protocol"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{run.path / DESCRIBED}: damaged: protocol is none ({error})") from None


def _rows(space: DesignSpace, sample: int | None, seed: int) -> Policies:
    if sample is not None:
        uniform = {width for widths in space.choices.values() for width in widths}
        lines = np.array([[width] * len(space.names) for width in sorted(uniform)], dtype=np.uint8)
        return np.vstack([lines, space.sample(sample, seed=seed)])
    if space.size > _LARGEST_SPACE:
        raise ValueError(
            f"the design space has {space.size:,} policies, too many to evaluate each; take a sample (--sample 2000), "
            "or fewer bits (--bits 2,4,8)"
        )
    return space.policies()


def _only(frame: pd.DataFrame, wanted: Policies, names: Sequence[str]) -> pd.DataFrame:
    """The wanted policies; the store may hold those of an earlier, larger space too."""
    keys = {row.tobytes() for row in wanted}
    rows = frame[list(names)].to_numpy(dtype=np.uint8)
    return frame[[row.tobytes() in keys for row in rows]].reset_index(drop=True)


def run_sensitivity(
    run: TrainedRun, *, protocol: Protocol | None = None, steps: Sequence[int] = (-1, 1)
) -> pd.DataFrame:
    """One layer of the run's policy at a time with fewer or more bits; written to RUN/sensitivity.csv.

    Where the run has learned bits of inputs, those change one at a time too.

    Args:
        run: a finished run.
        protocol: how an accuracy is measured; by default as the run's enumeration measured it.
        steps: changes in bits.
    """
    from pareto import sensitivity
    from waveq.quantizers import quantizer_class

    chosen = protocol or run_protocol(run)
    evaluate = evaluation(run, chosen, inputs=run.config.learns_inputs)
    policy = own_bits(run.policy, evaluate.names)
    if run.config.learns_inputs:
        least, most = min(2, *policy.values()), max(8, *policy.values())  # what learned bits of inputs may be
    else:
        method = quantizer_class(run.config.quantizer)
        least, most = method.bit_counts[0], method.bit_counts[-1]
    table = sensitivity(policy, evaluate.correct, steps=steps, min_bits=least, max_bits=most)
    write_frame(run.path / SENSITIVITY, table)
    record(run.path, SENSITIVITY, ["policy.json"], how=f"{chosen}, {chosen.part} images")
    return table


def read_table(
    path: Path, *, numbers: Sequence[str] = (), costs: Sequence[str] = (), policy: Policy | None = None
) -> pd.DataFrame:
    """A table of policies: that of `enumerate_run`, or anybody's; see `tables.read_any` for the kinds of file.

    Args:
        path: the file.
        numbers: columns that must be there, of finite numbers.
        costs: columns that must be finite numbers where they are there.
        policy: its layers and inputs say which columns are bits.

    Raises:
        ValueError: not there, no table, or a cell that cannot be (see `tables.check_table`).
    """
    try:
        frame = read_any(path, numbers=numbers)
        check_table(path, frame, costs=costs, layers=[] if policy is None else list(own_bits(policy, frame.columns)))
        return frame
    except FileNotFoundError:
        if path.name == TABLE and (path.parent / "config.json").exists():
            raise ValueError(
                f"{path} is not there; make it with: waveq enumerate {shlex.quote(str(path.parent))}"
            ) from None
        raise ValueError(f"{path} is not there: no run folder, no table of policies{nearest_run(path)}") from None
