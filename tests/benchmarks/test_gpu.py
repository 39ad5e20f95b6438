"""One call for a GPU: its time, its record, what it decides; and the whole script on the CPU, killed in the middle."""

from __future__ import annotations

import copy
import functools
import importlib
import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import waveq
from benchmarks import __main__ as benchmarks
from benchmarks.speed import gpu
from benchmarks.speed._compiled import CompiledForm
from benchmarks.speed._gpu_parts import FULL, REHEARSAL, Part
from benchmarks.speed._gpu_record import Record
from benchmarks.speed._gpu_report import decision, report
from benchmarks.speed._mps import side_by_side
from benchmarks.speed.penalty import forms
from benchmarks.speed.step import COMPILED, FUSED, METHODS, PLAIN, measure

COMPILED_WAVE, GRAPHED = COMPILED
ROOT = Path(__file__).parents[2]


@pytest.fixture
def options(tmp_path) -> Namespace:
    given = {"out": tmp_path, "device": "cpu", "rehearse": True, "minutes": 1.0}
    return Namespace(**given, data_dir=tmp_path / "data", init=None, processes=0)


@pytest.fixture
def record(tmp_path) -> Record:
    return Record(tmp_path / "gpu.json", device="cpu", rehearsed=True)


# ---------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--device", "cpu"], "--device cpu: the sizes are made for a GPU; add --rehearse"),
        (["--rehearse", "--minutes", "0"], "--minutes 0: give a number above 0"),
        (["--rehearse", "--minutes", "nan"], "--minutes nan"),
        (["--rehearse", "--only", "penalti"], "--only 'penalti': no such part; did you mean 'penalty'?"),
        (["--rehearse", "--init", "nowhere.pth"], "--init nowhere.pth: there is no such file"),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(argv, says, tmp_path, capsys):
    assert benchmarks.main(["gpu", "--out", str(tmp_path / "out"), *argv]) == 2
    told = capsys.readouterr().err
    assert told.startswith("gpu: ")
    assert says in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_no_gpu_is_told(tmp_path, capsys):
    assert benchmarks.main(["gpu", "--device", "cuda", "--out", str(tmp_path)]) == 2
    assert "torch sees no CUDA device; --device cpu --rehearse" in capsys.readouterr().err


def test_a_record_of_another_device_or_another_kind_is_refused(tmp_path, record):
    record.put("alike", state="done", why="")
    with pytest.raises(ValueError, match="holds a run with --device cpu --rehearse; ask for the same"):
        Record(record.path, device="cuda", rehearsed=False)
    record.path.write_text("[]")
    with pytest.raises(ValueError, match=r"gpu\.json in it is no record"):
        Record(record.path, device="cpu", rehearsed=True)


# ---------------------------------------------------------------------- parts, time, record


def part(name: str, **changed: Any) -> Part:
    return Part(**{"name": name, "words": ("none",), "least": 5, "limit": 20, **changed})


def test_parts_that_are_done_stay_and_the_others_are_tried_again(monkeypatch, options, record, capsys):
    record.put("first", state="done", why="", seconds=3.0)
    record.put("second", state="failed", why="exit code 1")
    begun = []

    def run(part: Part, record: Record, options: Namespace, left: float) -> None:
        begun.append(part.name)
        (options.out / f"{part.name}.txt").write_text("some ━━━ bar\nfigures\n")
        record.put(part.name, state="done", why="")

    monkeypatch.setattr(gpu, "run_part", run)
    gpu.run_parts([part("first"), part("second"), part("third", least=61.0)], record, options)
    assert begun == ["second"]
    again = Record(record.path, device="cpu", rehearsed=True).entries
    assert again["first"]["seconds"] == 3.0
    assert again["third"]["state"] == "not reached"
    assert "61 are the least" in again["third"]["why"]
    shown = capsys.readouterr().out
    assert "figures" in shown
    assert "bar" not in shown


def test_what_is_not_there_is_named_and_earlier_figures_stay(monkeypatch, options, record):
    record.put("grid", state="stopped", why="2 of 9 trainings are done", result={"rows": {}})
    monkeypatch.setattr(gpu, "run_part", lambda *_: pytest.fail("nothing could be begun"))
    images = part("images", dataset="svhn")
    weights = part("weights", limit=None, starts=True)
    gpu.run_parts([images, weights, part("grid", dataset="svhn")], record, options)
    assert record.entries["images"]["why"].startswith(f"svhn is not in {options.data_dir}")
    assert record.entries["weights"]["why"].startswith("--init was not given")
    assert record.entries["grid"]["state"] == "stopped"


def test_a_part_says_how_it_ended(monkeypatch, options, record):
    def ended(code: int | None, log: str = "", **written: Any) -> str:
        def run(words: list[str], path: Path, seconds: float) -> gpu.Outcome:
            path.write_text(log)
            target = Path(words[words.index("--json") + 1]) if "--json" in words else options.out / "tables" / "a.json"
            target.parent.mkdir(exist_ok=True)
            if written:
                target.write_text(json.dumps(written))
            return gpu.Outcome(code, 1.0)

        monkeypatch.setattr(gpu, "run_words", run)
        gpu.run_part(part("a", limit=None if "planned" in written else 20), record, options, left=30)
        return f"{record.entries['a']['state']}, {record.entries['a']['why']}"

    assert (
        ended(1, "Traceback\nValueError: too little memory\n") == "failed, exit code 1: ValueError: too little memory"
    )
    assert ended(None) == "stopped, after its 20 s"
    assert ended(0) == "failed, it wrote no figures"
    assert ended(0, rows=[]) == "done, "
    assert ended(0, rows={"lines": [1, 2]}, planned=3) == "stopped, 2 of 3 trainings are done"
    assert ended(0, rows={"lines": [1, 2, 3]}, planned=3) == "done, "
    assert record.entries["a"]["result"]["planned"] == 3


def test_the_minutes_are_the_whole_runs(monkeypatch, options, record):
    """With parts that take what they are given, up to 50 s, nothing runs beyond the end, and experiments leave some."""
    clock, calls = [0.0], []

    def run(words: list[str], log: Path, seconds: float) -> gpu.Outcome:
        calls.append((words, seconds))
        asked = 60 * float(words[words.index("--minutes") + 1]) if "--minutes" in words else 50.0
        clock[0] += min(seconds, asked)
        log.touch()
        return gpu.Outcome(1, min(seconds, asked))

    monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(gpu, "run_words", run)
    monkeypatch.setattr(gpu, "_missing", lambda *_: "")
    options.minutes, options.rehearse, options.init = 14.0, False, Path("weights")
    gpu.run_parts(FULL, record, options)
    begun = [words for words, _ in calls]
    assert begun[0][0] == "alike"
    assert [words[0] for words in begun].index("claim") == 11
    assert clock[0] <= 60 * options.minutes
    assert sum(min(50.0, seconds) for words, seconds in calls[:11]) == 540.0
    assert [record.state(each.name) for each in FULL].count("not reached") == len(FULL) - len(calls) > 0


def test_all_calls_are_ones_that_benchmarks_knows():
    for each in (*FULL, *REHEARSAL):
        assert each.words[0] in benchmarks.modules()
        assert each.experiment == bool(each.dataset)
        if "--methods" in each.words and each.words[0] == "step":
            assert set(each.words[each.words.index("--methods") + 1 :]) <= set(METHODS)
    assert len({each.name for each in FULL}) == len(FULL)


@pytest.mark.parametrize("part", [each for each in FULL if each.experiment], ids=lambda each: each.name)
def test_what_an_experiment_is_told_it_understands(part, monkeypatch, tmp_path):
    class ReachedError(Exception):
        pass

    def reached(jobs: list[Any], *_: Any, **__: Any) -> None:
        raise ReachedError(len(jobs))

    module = importlib.import_module(benchmarks.modules()[part.words[0]])
    monkeypatch.setattr(module, "run_within", reached)
    (tmp_path / "weights").touch()
    init = ["--init", str(tmp_path / "weights")] if part.starts else []
    with pytest.raises(ReachedError) as planned:
        module.main([*part.words[1:], "--device", "cpu", "--budget", "full", "--minutes", "2", *init])
    assert planned.value.args[0] > 10


@pytest.mark.slow
def test_a_part_that_takes_too_long_is_ended(tmp_path):
    began = time.monotonic()
    ended = gpu.run_words(["alike", "--device", "cpu"], tmp_path / "a.txt", seconds=1.0)
    assert ended.code is None
    assert time.monotonic() - began < 30


# ---------------------------------------------------------------------- the decision


def steps(fused: float, **compiled: float | str) -> dict[str, Any]:
    rows: dict[str, Any] = {FUSED: {"wall_ratio": fused, "wall_ratio_quartiles": [fused, fused]}}
    for name, value in compiled.items():
        method = {"graph": COMPILED_WAVE, "replayed": GRAPHED}[name]
        ran = {"wall_ratio": value, "wall_ratio_quartiles": [value, value], "ready_s": 9.0}
        rows[method] = {"why": value} if isinstance(value, str) else ran
    return rows


def found(**networks: dict[str, Any]) -> dict[str, Any]:
    made = {name: {"methods": methods} for name, methods in networks.items()}
    return {"steps": {"state": "done", "why": "", "device": "cuda", "result": {"networks": made}}}


@pytest.mark.parametrize(
    ("networks", "says"),
    [
        ({"a": steps(1.5, graph=3.0), "b": steps(1.5, graph=1.5)}, "1.41 of one with the kernels: keep Triton"),
        ({"a": steps(2.0, graph=1.0), "b": steps(1.0, graph=1.0)}, "0.71 of one with the kernels: keep torch.compile,"),
        ({"a": steps(2.0, graph=2.02)}, "no difference: keep torch.compile, delete waveq/_kernels/cuda"),
        (
            {"a": steps(2.0, graph=1.8, replayed=1.0)},
            "0.50 of one with the kernels: keep torch.compile and CUDA graphs",
        ),
        # one that runs on some networks alone is no candidate
        ({"a": steps(2.0, graph=1.8, replayed=1.0), "b": steps(2.0, graph=1.8, replayed="no")}, "Over 2 network(s)"),
        ({"a": steps(2.0, graph="no compiler")}, "Undecided"),
        ({}, "Undecided"),
    ],
)
def test_the_sentence_that_decides(networks, says):
    told = decision(found(**networks))
    assert says in told[-1]
    assert "CUDA graphs" not in told[-1] or "replayed" in says or "CUDA graphs" in says


def test_kernels_that_do_not_train_alike_are_mended_first_and_a_cpu_decides_nothing():
    entries = found(a=steps(1.0, graph=2.0))
    assert "mend them first" in decision({"alike": {"state": "failed", "why": "2 apart"}, **entries})[-1]
    entries["steps"]["device"] = "cpu"
    assert decision(entries)[-1].endswith("on a CPU, which decides nothing about Triton.")


def test_penalties_are_told_beside_and_all_is_in_the_tables():
    form = {"wall_s": 2e-3, "gb_per_s": 80.5}
    rows = [{"weights": 10**8, "copy": form, "fused": form, "compiled": {**form, "wall_s": 3e-3}}]
    entries = {
        **found(a=steps(1.25, graph="no compiler")),
        "penalty": {"state": "done", "why": "", "result": {"rows": rows}},
    }
    assert "penalty of 100,000,000 weights: torch.compile takes 1.50 of the kernels' time." in decision(entries)
    shown = report(entries)
    for each in ("1.25 (1.25-1.25)", "does not run", "nothing with torch.compile: no compiler", "100,000,000 weights"):
        assert each in shown


# ---------------------------------------------------------------------- the compiled form


@pytest.fixture
def traced(monkeypatch):
    """torch.compile with the graph run by torch itself: what is traced is tested, no compiler is needed."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    yield
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("quantizer", ["dorefa", "lsq"])
def test_the_compiled_form_trains_like_the_plain_one(traced, quantizer):
    torch.manual_seed(0)
    start = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    x, y = torch.randn(8, 1, 8, 8), torch.arange(8) % 3
    results = []
    for compiled in (False, True):
        model = copy.deepcopy(start)
        wq = waveq.attach(model, quantizer=quantizer, total_steps=10**6, schedule=lambda _step: (0.1, 0.02))
        form = CompiledForm(wq) if compiled else None
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        losses = []
        with waveq.use_backend("plain"):
            for _ in range(4):
                if form is not None:
                    form.round()
                loss = F.cross_entropy(model(x), y) + (form or wq).penalty()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                wq.step()
                losses.append(loss.item())
        results.append((losses, wq.betas(), len(wq.history())))
    (plain, betas, records), (graph, theirs, kept) = results
    assert graph == pytest.approx(plain, rel=1e-5)
    assert theirs == pytest.approx(betas, rel=1e-6)
    assert kept == records


@pytest.mark.slow
def test_a_graph_that_computes_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda formulas, **_: formulas)
    torch.manual_seed(0)
    wq = waveq.attach(nn.Sequential(nn.Linear(8, 4)), bits=3, schedule=lambda _step: (0.1, 0.0))
    honest = CompiledForm(wq)
    honest.round()
    for change, says in ((0.5, "of the weights of .* are not the plain form's"), (0.0, "the penalty is")):
        form = CompiledForm(wq)
        graph, more = form._graph, 1.0 - 2 * change
        form._graph = lambda given, graph=graph, change=change, more=more: (
            [made + change for made in graph(given)[0]],
            graph(given)[1] + more,
        )
        with pytest.raises(ArithmeticError, match=says):
            form.round()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_compiled_penalty_agrees_and_is_timed(traced):
    made = forms(3000, ["fused", "compiled"], "cpu", torch.float32)
    assert list(made.work) == ["copy", "plain", "fused", "compiled"]
    (want,), (found_,) = made.work["plain"](), made.work["compiled"]()
    torch.testing.assert_close(found_, want, rtol=1e-4, atol=1e-7)
    assert made.ready_s["compiled"] > 0
    assert not made.why


@pytest.mark.slow
def test_what_does_not_run_has_a_row_that_says_why(monkeypatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler here\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    names = [COMPILED_WAVE, GRAPHED]
    table = measure("simplenet5", names=names, rounds=2, batch=1, device="cpu", bf16=False)
    assert list(table) == [PLAIN, COMPILED_WAVE, GRAPHED]
    assert table[COMPILED_WAVE] == {"why": "RuntimeError: no compiler here"}
    assert table[GRAPHED] == {"why": "CUDA graphs need a GPU"}


# ---------------------------------------------------------------------- processes side by side


def tool(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> Path:
    """A stand-in for the service's program, which notes what it is told."""
    said = folder / "said"
    program = folder / "nvidia-cuda-mps-control"
    lines = ("#!/bin/sh", f'if [ "$1" = -d ]; then echo "$@" >> {said}; exit {code}; fi', f"cat >> {said}")
    program.write_text("\n".join(lines) + "\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("benchmarks.speed._mps._TRIAL", "pass")
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    return said


def test_the_service_is_ended_and_leaves_nothing(tmp_path, monkeypatch):
    said = tool(tmp_path, monkeypatch, 0)
    with side_by_side() as told:
        assert told.endswith("share the GPU")
        place = Path(os.environ["CUDA_MPS_PIPE_DIRECTORY"])
        assert place.is_dir()
    assert said.read_text().split() == ["quit", "-d", "quit"]
    assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ
    assert not place.exists()


def test_a_service_that_does_not_start_is_told_and_done_without(tmp_path, monkeypatch):
    tool(tmp_path, monkeypatch, 3)
    with side_by_side() as told:
        assert "does not work here" in told
        assert "processes take turns" in told
        assert "CUDA_MPS_PIPE_DIRECTORY" not in os.environ


def test_without_the_service_processes_take_turns(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("benchmarks.speed._mps._ELSEWHERE", tmp_path)
    with side_by_side() as told:
        assert "is not installed" in told


# ---------------------------------------------------------------------- the script itself


@pytest.mark.slow
def test_a_rehearsal_that_was_killed_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "/nonexistent")  # its row says why, and nothing waits for a compiler
    out, wanted = tmp_path / "gpu", ["alike", "compiled_simplenet5", "claim_digits"]
    argv = ["--device", "cpu", "--rehearse", "--out", str(out), "--only", *wanted]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks", "gpu", *argv]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 240
        while (states := _states(out)).get("compiled_simplenet5") != "begun":
            assert process.poll() is None, states
            assert time.monotonic() < end, states
            time.sleep(0.1)
        process.kill()
    first = json.loads((out / "gpu.json").read_text())["parts"]["alike"]
    assert first["state"] == "done"

    assert gpu.main(argv) == 0
    held = json.loads((out / "gpu.json").read_text())
    assert _states(out) == dict.fromkeys(wanted, "done")
    assert held["parts"]["alike"] == first
    methods = held["parts"]["compiled_simplenet5"]["result"]["networks"]["simplenet5"]["methods"]
    assert "InvalidCxxCompiler" in methods[COMPILED_WAVE]["why"]
    assert methods[FUSED]["wall_ratio"] > 0
    assert held["parts"]["claim_digits"]["result"]["planned"] == 5
    shown = capsys.readouterr().out
    assert "alike: done before" in shown
    assert "Undecided" in shown
    assert held["provenance"]["versions"]["torch"] == torch.__version__.split("+")[0]


def _states(out: Path) -> dict[str, str]:
    path = out / "gpu.json"
    if not path.exists():
        return {}
    return {name: entry["state"] for name, entry in json.loads(path.read_text())["parts"].items()}
